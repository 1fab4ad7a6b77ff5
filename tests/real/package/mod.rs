//! What `scripts/package` makes of this checkout: what is in it, that it is the same twice, and (`debian`, `image`) that it runs.

mod debian;
mod image;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::process::{Folder, command, program, run};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `target/package`, made once for all tests here. Cargo has nothing to do if `scripts/test` has made it before.
fn packages() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        script(&[]);
        root().join("target/package")
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs `scripts/package`, however long a release build takes. It sees the machine's settings: it builds as a person would.
fn script(arguments: &[&str]) {
    let mut command = Command::new(root().join("scripts/package"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_") && name != "CARGO_HOME") {
        command.env_remove(name);
    }
    let output = command.args(arguments).current_dir(root()).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}", String::from_utf8_lossy(&output.stdout));
}

/// The same binary as another package.
fn packaged_again(folder: &Path, version: &str) {
    let binary = root().join("target").join(triple()).join("release/larder");
    let (binary, folder) = (binary.to_str().unwrap(), folder.to_str().unwrap());
    script(&["--binary", binary, "--version", version, "--output", folder]);
}

fn triple() -> String {
    let said = String::from_utf8(Command::new("rustc").arg("-vV").output().unwrap().stdout).unwrap();
    said.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn deb(folder: &Path, version: &str) -> PathBuf {
    folder.join(format!("larder_{version}_{}.deb", architecture()))
}

/// What a program prints that succeeds.
fn output(name: &str, arguments: &[&str], folder: &Folder) -> String {
    let home = folder.sub("home");
    let mut command = command(&program(name), &home);
    command.args(arguments);
    String::from_utf8(run(command, &home).ok()).unwrap()
}

fn every_file(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(every_file(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn package_is_the_same_twice() {
    let (first, folder) = (packages(), Folder::new());
    let second = folder.sub("again");
    packaged_again(&second, VERSION);
    let names = |folder: &Path| -> Vec<PathBuf> {
        every_file(folder).iter().map(|path| path.strip_prefix(folder).unwrap().to_owned()).collect()
    };
    assert_eq!(names(first), names(&second));
    for name in names(first) {
        assert!(fs::read(first.join(&name)).unwrap() == fs::read(second.join(&name)).unwrap(), "{}", name.display());
    }
    let sums = fs::read_to_string(first.join("SHA256SUMS")).unwrap();
    assert_eq!(sums.lines().count(), 2, "{sums}");
    let mut check = command(&program("sha256sum"), first);
    check.args(["--check", "--quiet", "SHA256SUMS"]);
    run(check, first).ok();
}

#[test]
fn package_archive_has_all_that_a_site_needs() {
    let folder = Folder::new();
    let name = format!("larder-{VERSION}-{}", triple());
    let archive = packages().join(format!("{name}.tar.gz"));
    output("tar", &["-xzf", archive.to_str().unwrap()], &folder);
    let tree = folder.sub("home").join(name);
    for file in [
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "THIRD-PARTY-LICENSES",
        "larder.toml",
        "systemd/larder.service",
        "man/larder.1",
        "man/larder-serve.1",
        "completions/larder.bash",
        "completions/_larder",
        "grafana/larder.json",
        "prometheus/larder.rules.yml",
    ] {
        assert!(fs::metadata(tree.join(file)).is_ok_and(|file| file.len() > 100), "{file}");
    }
    let sbom: serde_json::Value = serde_json::from_slice(&fs::read(tree.join("larder.cdx.json")).unwrap()).unwrap();
    let components = sbom["components"].as_array().unwrap();
    let of = |name: &str| components.iter().find(|component| component["name"] == name);
    assert!(of("rustls").is_some_and(|it| it["purl"].as_str().unwrap().starts_with("pkg:cargo/rustls@0.")), "{sbom}");
    assert!(of("proptest").is_none() && of("larder").is_none(), "what is linked in, and nothing else: {sbom}");
    let licences = fs::read_to_string(tree.join("THIRD-PARTY-LICENSES")).unwrap();
    assert!(licences.contains("rustls 0.") && licences.contains("---- tokio 1."), "{licences}");
    let binary = tree.join("larder");
    let said = output(binary.to_str().unwrap(), &["--version"], &folder);
    assert!(said.contains(VERSION) && said.contains(&triple()), "{said}");
    let linked = output("file", &[binary.to_str().unwrap()], &folder);
    assert!(linked.contains("static-pie linked"), "{linked}");
}

/// `scripts/debian/lintian.expected` says what lintian has to say; a change of it is looked at.
#[test]
fn package_lintian_says_what_is_pinned() {
    let folder = Folder::new();
    let file = deb(packages(), VERSION);
    let mut lintian = command(&program("lintian"), &folder.sub("home"));
    lintian.args(["--no-cfg", "--fail-on", "none", "--allow-root"]).arg(file);
    let said = String::from_utf8(run(lintian, &folder.sub("home")).ok()).unwrap();
    let mut said: Vec<&str> = said.lines().collect();
    said.sort_unstable();
    let pinned = fs::read_to_string(root().join("scripts/debian/lintian.expected")).unwrap();
    assert_eq!(said, pinned.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>());
}
