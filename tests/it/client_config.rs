//! `larder client-config`: what is printed and written for every client. The texts that are expected are the files in
//! `tests/it/client_config/`; `LARDER_TEST_BLESS=1 cargo test --test client_config` writes them anew, for a person to read the difference.
//! That the files work is held by `tests/real`, which uses them with the programs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CONFIG: &str = r#"
[[upstream]]
name = "myacr.azurecr.io"
aliases = ["acr"]
default = true

[[upstream]]
name = "docker.io"
aliases = ["hub"]

[[upstream]]
name = "registry.lan:5000"
aliases = ["lan"]
"#;

const CLIENTS: [&str; 20] = [
    "containerd",
    "docker",
    "podman",
    "k3s",
    "buildkit",
    "github-actions",
    "kaniko",
    "rules_oci",
    "oras",
    "helm",
    "crane",
    "cosign",
    "notation",
    "regctl",
    "oras-py",
    "oci-client",
    "stargz",
    "soci",
    "nydus",
    "overlaybd",
];

struct Place(tempfile::TempDir);

impl Place {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("larder.toml"), config).unwrap();
        fs::write(folder.path().join("ca.pem"), "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
            .unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run_bare(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command.env_clear().env("HOME", self.0.path()).current_dir(self.0.path()).arg("client-config").args(arguments);
        command.output().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.run_bare(&[&["--config", "larder.toml"], arguments].concat())
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn refused(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(output.stdout.is_empty(), "{output:?}");
    text
}

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/client_config").join(name);
    if std::env::var_os("LARDER_TEST_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(text == expected, "{} differs; now it is:\n{text}", path.display());
}

#[test]
fn every_client_is_told_what_the_golden_files_say() {
    let place = Place::new(CONFIG);
    for client in CLIENTS {
        let plain = place.ok(&[client]);
        let sealed = place.ok(&[client, "--sealed"]);
        let tls = place.ok(&[client, "--at", "https://larder.lan:5443", "--ca", "ca.pem"]);
        let container = place.ok(&[client, "--in-container"]);
        golden(&format!("{client}.txt"), &plain);
        // One file each, of what differs most.
        golden(
            &format!("{client}-sealed-tls.txt"),
            &place.ok(&[client, "--sealed", "--at", "https://larder.lan:5443", "--ca", "ca.pem"]),
        );
        for (text, word) in
            [(&plain, "localhost:5000"), (&tls, "larder.lan:5443"), (&container, "host.docker.internal:5000")]
        {
            assert!(text.contains(word), "{client}: {text}");
        }
        for text in [&plain, &sealed, &tls, &container] {
            assert!(text.contains("\nrestart: ") && text.contains("\nlarder down: "), "{client}: {text}");
            assert!(!text.contains("localhost:5000/registry.lan:5000"), "{client}: no path can hold a port");
        }
        assert!(
            !tls.contains("http://larder") && !container.contains("http://localhost"),
            "{client}: {tls} {container}"
        );
    }
}

#[test]
fn an_unknown_client_is_told_which_are_known() {
    let text = refused(&Place::new(CONFIG).run(&["contaynerd"]), 2);
    for client in CLIENTS {
        assert!(text.contains(client), "{client} is not in: {text}");
    }
}

#[test]
fn other_names_of_a_client_lead_to_the_same_guide() {
    let place = Place::new(CONFIG);
    for (name, client) in
        [("ctr", "containerd"), ("Skopeo", "podman"), ("buildah", "podman"), ("rke2", "k3s"), ("buildx", "buildkit")]
    {
        assert_eq!(place.ok(&[name]), place.ok(&[client]));
    }
}

#[test]
fn one_upstream_is_chosen_by_name_or_alias() {
    let place = Place::new(CONFIG);
    let text = place.ok(&["containerd", "--upstream", "lan"]);
    assert!(text.contains("certs.d/registry.lan_5000_/hosts.toml") && text.contains("/v2/lan\""), "{text}");
    assert!(!text.contains("myacr.azurecr.io"), "{text}");
    let text = refused(&place.run(&["containerd", "--upstream", "nobody"]), 2);
    assert!(text.contains("'nobody'") && text.contains("myacr.azurecr.io, docker.io, registry.lan:5000"), "{text}");
}

#[test]
fn without_a_configuration_the_upstream_is_named_on_the_command_line() {
    let place = Place::new(CONFIG);
    let text = refused(&place.run_bare(&["podman"]), 2);
    assert!(text.contains("--upstream") && text.contains("--config"), "{text}");
    let output = place.run_bare(&["podman", "--upstream", "myacr.azurecr.io"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("location = \"localhost:5000/myacr.azurecr.io\""), "{text}");
}

#[test]
fn the_address_is_that_of_the_configured_listener() {
    let listen = |server: &str| {
        let place = Place::new(&format!("[server]\n{server}\n[access]\nopen_to = [\"10.0.0.0/8\"]\n{CONFIG}"));
        place.ok(&["crane"])
    };
    assert!(listen("listen = [\"127.0.0.1:5055\"]").contains("localhost:5055/myacr.azurecr.io"));
    assert!(listen("listen = [\"10.0.0.7:5055\"]").contains("10.0.0.7:5055/myacr.azurecr.io"));
    assert!(
        listen("listen = [\"0.0.0.0:5055\"]\nnames = [\"larder.lan\"]").contains("larder.lan:5055/myacr.azurecr.io")
    );
    assert!(listen("listen = [\"[::]:5055\"]").contains("localhost:5055/myacr.azurecr.io"));
}

#[test]
fn a_name_with_a_port_and_no_alias_is_refused_where_a_path_needs_one_and_named_by_ns_where_not() {
    let place = Place::new("[[upstream]]\nname = \"registry.lan:5000\"\n");
    for client in ["podman", "buildkit", "oras", "helm", "crane", "cosign"] {
        let text = refused(&place.run(&[client]), 2);
        assert!(text.contains("registry.lan:5000") && text.contains("aliases"), "{client}: {text}");
    }
    let text = place.ok(&["containerd"]);
    assert!(text.contains("[host.\"http://localhost:5000\"]") && !text.contains("override_path"), "{text}");
    let text = refused(&Place::new("[[upstream]]\nname = \"a.io\"\n").run(&["kaniko"]), 2);
    assert!(text.contains("without a dot") && text.contains("a.io"), "{text}");
}

#[test]
fn what_is_wrong_with_the_address_or_the_certificate_is_said() {
    let place = Place::new(CONFIG);
    for (arguments, word) in [
        (&["podman", "--at", "localhost:5000"][..], "--at"),
        (&["podman", "--at", "http://larder.lan/v2"], "path"),
        (&["podman", "--at", "https://larder.lan", "--ca", "absent.pem"], "absent.pem"),
        (&["podman", "--ca", "ca.pem"], "https"),
    ] {
        let text = refused(&place.run(arguments), 2);
        assert!(text.contains(word), "{arguments:?}: {text}");
    }
    fs::write(place.path("larder.toml"), "[[upstream]]\nnaem = \"x\"\n").unwrap();
    assert!(refused(&place.run(&["podman"]), 2).contains("naem"));
}

#[test]
fn files_are_written_below_the_folder_and_nothing_of_the_users_is_lost() {
    let place = Place::new(CONFIG);
    let arguments = ["docker", "--write", "out"];
    let text = place.ok(&arguments);
    let daemon = place.path("out/etc/docker/daemon.json");
    assert!(text.contains("written: out/etc/docker/daemon.json"), "{text}");
    assert!(text.contains("restart: "), "{text}");
    let json: serde_json::Value = serde_json::from_slice(&fs::read(&daemon).unwrap()).unwrap();
    assert_eq!(json["registry-mirrors"], serde_json::json!(["http://localhost:5000/docker.io"]));
    assert!(place.path("out/etc/docker/certs.d/registry.lan_5000_/hosts.toml").is_file());
    assert!(place.ok(&arguments).contains("unchanged: out/etc/docker/daemon.json"));
    // A file of the user's own: nothing is written, not even the others.
    fs::write(&daemon, "{\"log-level\": \"debug\"}").unwrap();
    fs::remove_dir_all(place.path("out/etc/docker/certs.d")).unwrap();
    let text = refused(&place.run(&arguments), 1);
    assert!(text.contains("daemon.json") && text.contains("--force"), "{text}");
    assert_eq!(fs::read_to_string(&daemon).unwrap(), "{\"log-level\": \"debug\"}");
    assert!(!place.path("out/etc/docker/certs.d").exists());
    let text = place.ok(&[&arguments[..], &["--force"]].concat());
    assert!(text.contains("replaced: out/etc/docker/daemon.json") && text.contains("written: "), "{text}");
}

#[test]
fn a_script_gets_the_same_as_json() {
    let place = Place::new(CONFIG);
    let json: serde_json::Value = serde_json::from_str(&place.ok(&["ctr", "--json"])).unwrap();
    assert_eq!((&json["client"], &json["at"]), (&"containerd".into(), &"http://localhost:5000".into()));
    assert_eq!(json["files"][0]["path"], "/etc/containerd/certs.d/myacr.azurecr.io/hosts.toml");
    assert!(json["files"][0]["content"].as_str().unwrap().contains("override_path = true"));
    assert!(json["restart"].is_string() && json["when_down"].is_string() && json["lines"].is_array());
}
