//! What is wrong with an identity's settings is said at start and by `check`, with its place and what to write.

use crate::harness::simulator::entra::certificate;
use std::process::Command;
use std::sync::OnceLock;

/// Two keys with their certificates; making them takes a while.
static PAIRS: OnceLock<(String, String)> = OnceLock::new();

/// What `larder check` says of these lines of `[upstream.credential]`, and its exit code.
fn check(lines: &str, flags: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "s3cret").unwrap();
    let (one, two) = PAIRS.get_or_init(|| (certificate("one").0, certificate("two").0));
    let (key, other) =
        (&one[..one.find("-----BEGIN CERTIFICATE").unwrap()], &two[two.find("-----BEGIN CERTIFICATE").unwrap()..]);
    std::fs::write(folder.path().join("good.pem"), one).unwrap();
    std::fs::write(folder.path().join("mixed.pem"), format!("{key}{other}")).unwrap();
    let credential = if lines.is_empty() { String::new() } else { format!("[upstream.credential]\n{lines}\n") };
    let file = folder.path().join("larder.toml");
    std::fs::write(&file, format!("[[upstream]]\nname = \"myacr.azurecr.io\"\n{credential}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.env_clear().env("HOME", folder.path()).current_dir(folder.path());
    let output = command.arg("check").arg("--config").arg(&file).args(flags).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), said)
}

#[test]
fn every_wrong_setting_has_its_place_and_its_advice() {
    let ids = "tenant_id = \"t\"\nclient_id = \"c\"";
    let principal = "kind = \"service-principal\"";
    let cases = [
        (format!("{principal}\nclient_id = \"c\"\nclient_secret_file = \"secret\""), ":3:", "needs tenant_id"),
        (format!("{principal}\ntenant_id = \"t\"\nclient_secret_file = \"secret\""), ":3:", "needs client_id"),
        (format!("{principal}\n{ids}"), ":3:", "client_secret_file or certificate_file"),
        (
            format!("{principal}\n{ids}\nclient_secret_file = \"secret\"\ncertificate_file = \"good.pem\""),
            ":7:",
            "keep the one",
        ),
        (format!("{principal}\n{ids}\nclient_secret_file = \"gone\""), ":7:", "does not exist"),
        (format!("{principal}\n{ids}\ncertificate_file = \"gone\""), ":7:", "does not exist"),
        (format!("{principal}\n{ids}\ncertificate_file = \"mixed.pem\""), ":7:", "do not belong together"),
        (format!("{principal}\n{ids}\ncertificate_file = \"secret\""), ":7:", "holds no private key"),
        (
            format!("{principal}\ntenant_id = \"a/b\"\nclient_id = \"c\"\nclient_secret_file = \"secret\""),
            ":5:",
            "is no id",
        ),
        (
            format!("{principal}\n{ids}\nclient_secret_file = \"secret\"\nauthority = \"http://login.example.com\""),
            ":8:",
            "loopback addresses only",
        ),
        (
            format!("{principal}\n{ids}\nclient_secret_file = \"secret\"\nauthority = \"https://a/b\""),
            ":8:",
            "has a path",
        ),
        ("kind = \"managed-identity\"\nclient_id = \"a\"\nobject_id = \"b\"".into(), ":6:", "keep one of"),
        ("kind = \"managed-identity\"\nresource_id = \"pull\"".into(), ":5:", "/subscriptions/"),
        ("kind = \"managed-identity\"\nendpoint = \"http://169.254.169.253\"".into(), ":5:", "loopback addresses only"),
        (
            "kind = \"workload-identity\"\nclient_id = \"c\"\ntoken_file = \"secret\"".into(),
            ":3:",
            "set AZURE_TENANT_ID",
        ),
        (format!("kind = \"workload-identity\"\n{ids}"), ":3:", "AZURE_FEDERATED_TOKEN_FILE"),
        (format!("kind = \"workload-identity\"\n{ids}\ntoken_file = \"gone\""), ":7:", "does not exist"),
        ("kind = \"managed-identities\"".into(), ":4:", "did you mean \"managed-identity\"?"),
    ];
    for (lines, place, advice) in cases {
        let (code, said) = check(&lines, &[]);
        assert_eq!(code, Some(1), "{lines}\n{said}");
        assert!(said.contains(&format!("larder.toml{place}")) && said.contains(advice), "{lines}\n{said}");
        assert!(!said.contains("s3cret"));
    }
}

#[test]
fn every_kind_is_taken_from_the_file_and_from_flags() {
    let ids = ["--tenant-id", "t", "--client-id", "c"];
    let (code, said) = check("kind = \"managed-identity\"\nobject_id = \"o\"", &[]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) =
        check("", &[&["--login", "service-principal", "--certificate-file", "good.pem"], &ids[..]].concat());
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = check("", &[&["--login", "workload-identity", "--token-file", "secret"], &ids[..]].concat());
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = check("", &["--login", "managed-identity", "--endpoint", "http://127.0.0.1:1"]);
    assert!(code == Some(0) && said.contains("--endpoint"), "{said}");
}

#[test]
fn flags_that_do_not_belong_together_are_named() {
    let (code, said) = check("", &["--login", "auto", "--client-id", "c"]);
    assert!(code == Some(1) && said.contains("--client-id") && said.contains("managed-identity"), "{said}");
    let (code, said) = check("", &["--login", "managed-identity", "--client-id", "c", "--object-id", "o"]);
    assert!(code == Some(1) && said.contains("--object-id") && said.contains("keep one of"), "{said}");
    let (code, said) = check("", &["--login", "service-principal"]);
    assert!(code == Some(1) && said.contains("needs tenant_id"), "{said}");
    let (code, said) = check("", &["--login", "managed"]);
    assert!(code == Some(2) && said.contains("managed-identity"), "{said}");
    let (code, said) = check("", &["--client-id", "c"]);
    assert!(code == Some(2) && said.contains("--login"), "{said}");
}
