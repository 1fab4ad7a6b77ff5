//! `docs/clients.md`: its table is that of the matrix. `scripts/clients` runs the matrix and writes the table anew, with the versions
//! that it met; this test compares all but the versions.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::matrix::{FALLBACKS, PUSHES, ROWS, passed};
use crate::process::program;

const BEGIN: &str = "<!-- the matrix, by scripts/clients -->\n";
const END: &str = "<!-- end of the matrix -->\n";

/// A client's program and what makes it say its version; a library has no program.
const VERSIONS: &[(&str, &str, &[&str])] = &[
    ("oras", "oras", &["version"]),
    ("oras 1.1", "oras-1.1.0", &["version"]),
    ("helm", "helm", &["version", "--template", "{{.Version}}"]),
    ("crane", "crane", &["version"]),
    ("cosign", "cosign", &["version"]),
    ("regctl", "regctl", &["version", "--format", "{{.VCSTag}}"]),
    ("skopeo", "skopeo", &["--version"]),
    ("podman", "podman", &["--version"]),
    ("buildah", "buildah", &["--version"]),
    ("containerd", "containerd", &["--version"]),
    ("oci-client", "", &[]),
    ("docker", "dockerd", &["--version"]),
];

/// The version of a crate, as the tests are built with it.
fn crate_version(name: &str) -> String {
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    let (_, entry) = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).unwrap();
    entry.split('"').next().unwrap().to_owned()
}

/// The first number with dots in what the program says; for a program that was built without one, that of its module.
fn version(client: &str) -> String {
    let (_, name, arguments) = VERSIONS.iter().find(|(known, ..)| *known == client).unwrap();
    if name.is_empty() {
        return crate_version(client);
    }
    let said = Command::new(program(name)).args(*arguments).output().unwrap();
    let module = Command::new("go").args(["version", "-m"]).arg(program(name)).output();
    let module = module.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let module = module.lines().find(|line| line.trim_start().starts_with("mod\t")).unwrap_or_default().to_owned();
    let said = format!("{} {module}", String::from_utf8_lossy(&said.stdout));
    let number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.matches('.').count() >= 2;
    let mut words = said.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    let found = words.by_ref().map(|word| word.trim_start_matches('v')).find(|word| number(word));
    found.unwrap_or_else(|| panic!("{name} says no version: {said}")).to_owned()
}

/// The table, with what `version` says of each client.
fn table(version: impl Fn(&str) -> String) -> String {
    let mut text = String::from(
        "| client | version | route | cold | warm | upstream gone | what is typed or written |\n|---|---|---|---|---|---|---|\n",
    );
    for row in ROWS {
        let (client, version) = (row.client, version(row.client));
        writeln!(text, "| {client} | {version} | {} | yes | yes | yes | {} |", row.route, row.how).unwrap();
    }
    text.push_str("\n| client | version | pushed by |\n|---|---|---|\n");
    for (client, how) in PUSHES {
        writeln!(text, "| {client} | {} | {how} |", version(client)).unwrap();
    }
    text.push_str(
        "\n| client | version | files | larder down | larder sealed, the image not there |\n|---|---|---|---|---|\n",
    );
    for row in FALLBACKS {
        let files = if row.sealed { "`client-config --sealed`" } else { "`client-config`" };
        let outcome = if row.sealed { "fails; the registry is not asked" } else { "pulled from the registry itself" };
        writeln!(text, "| {} | {} | {files} | {outcome} | {outcome} |", row.client, version(row.client)).unwrap();
    }
    text
}

fn without_versions(table: &str) -> Vec<String> {
    let columns = |line: &str| {
        line.split(" | ").enumerate().filter(|(at, _)| *at != 1).map(|(_, cell)| cell.to_owned()).collect::<Vec<_>>()
    };
    table.lines().map(|line| columns(line).join(" | ")).collect()
}

#[test]
fn clients_page_holds_the_rows_that_are_run() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients.md");
    let page = fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (old, tail) = rest.split_once(END).unwrap();
    if std::env::var_os("LARDER_TEST_BLESS").is_some() {
        let pulls = ROWS.iter().map(|row| (row.client, row.route));
        let pushes = PUSHES.iter().map(|(client, _)| (*client, "push"));
        for (client, route) in pulls.chain(pushes).chain(FALLBACKS.iter().map(|row| (row.client, row.name()))) {
            assert!(passed(client, route).is_file(), "{client} by {route} has not passed here: run scripts/clients");
        }
        fs::write(&path, format!("{head}{BEGIN}{}{END}{tail}", table(version))).unwrap();
        return;
    }
    let now = table(|_| String::new());
    assert_eq!(
        without_versions(old),
        without_versions(&now),
        "docs/clients.md is not what runs: scripts/clients writes it"
    );
}
