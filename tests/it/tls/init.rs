use super::harness::simulator::Options;
use super::harness::tls::Dialer;
use super::harness::{Acr, Process, Setup, UPSTREAM, config_of};
use super::{TAG, seed};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// `larder tls init` in a folder.
fn init(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.env_clear().env("HOME", folder).current_dir(folder).args(["tls", "init"]).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn four_files_are_written_keys_for_their_owner_alone_and_nothing_is_replaced_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let output = init(folder.path(), &["--dir", "own", UPSTREAM, "larder.lan", "10.0.0.7"]);
    assert!(output.status.success(), "{}", said(&output));
    let text = said(&output);
    for word in ["own/server.pem", UPSTREAM, "larder.lan", "10.0.0.7", "update-ca-certificates", "--resolve"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let path = |name: &str| folder.path().join("own").join(name);
    #[cfg(unix)]
    for (name, mode) in [("ca.pem", 0o644), ("ca.key", 0o600), ("server.pem", 0o644), ("server.key", 0o600)] {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(path(name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
    }
    let before = fs::read(path("ca.pem")).unwrap();
    let output = init(folder.path(), &["--dir", "own", UPSTREAM]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("ca.pem exists: use --force"), "{}", said(&output));
    assert_eq!(fs::read(path("ca.pem")).unwrap(), before);
    assert!(init(folder.path(), &["--dir", "own", "--force", UPSTREAM]).status.success());
    assert_ne!(fs::read(path("ca.pem")).unwrap(), before);
    assert_eq!(fs::read_dir(folder.path().join("own")).unwrap().count(), 4, "nothing is left over");
}

#[test]
fn the_names_are_the_configurations_whose_certificate_need_not_be_there_yet() {
    let folder = tempfile::tempdir().unwrap();
    let tls = "certificate_file = \"larder-tls/server.pem\"\nkey_file = \"larder-tls/server.key\"\n";
    let text = format!("[server]\nnames = [\"larder.lan\"]\n[server.tls]\n{tls}{}", config_of("http://127.0.0.1:1"));
    fs::write(folder.path().join("larder.toml"), text).unwrap();
    let output = init(folder.path(), &["--config", "larder.toml"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains(&format!("{UPSTREAM}, larder.lan, localhost, 127.0.0.1, ::1")), "{}", said(&output));
    let check = Command::new(env!("CARGO_BIN_EXE_larder"))
        .env_clear()
        .env("HOME", folder.path())
        .args(["check", "--config"])
        .arg(folder.path().join("larder.toml"))
        .output();
    let check = check.unwrap();
    assert!(check.status.success(), "{}", said(&check));
}

#[test]
fn without_a_name_and_with_a_wrong_one_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, says) in
        [(&[][..], "for which names?"), (&["a b"], "is not a host"), (&["--config", "none.toml"], "none.toml")]
    {
        let output = init(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(says), "{says}: {}", said(&output));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// The whole of it: references stay the registry's own, and the authority's key may be gone.
#[tokio::test(flavor = "multi_thread")]
async fn under_the_registrys_own_name_larder_answers_who_trusts_the_authority() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr, 1000);
    let setup = Setup::of(&acr);
    let output = init(setup.folder.path(), &["--dir", "own", UPSTREAM]);
    assert!(output.status.success(), "{}", said(&output));
    fs::remove_file(setup.folder.path().join("own/ca.key")).unwrap();
    let tls = "[server.tls]\ncertificate_file = \"own/server.pem\"\nkey_file = \"own/server.key\"\n";
    let file = setup.file("larder.toml", &format!("{tls}{}", config_of(&acr.url())));
    let process = Process::start(&setup, &["--config", file.to_str().unwrap()]).await;
    let authority = fs::read_to_string(setup.folder.path().join("own/ca.pem")).unwrap();
    let dialer = Dialer::trusting_pem(&authority).alpn(&["h2", "http/1.1"]);
    for name in [UPSTREAM, "localhost"] {
        assert_eq!(dialer.get(process.address, name, TAG).await.unwrap().body(), &artifact.manifest, "{name}");
    }
    assert!(dialer.get(process.address, "github.com", TAG).await.is_err());
}
