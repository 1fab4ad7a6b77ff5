use super::harness::tls::{Authority, Pair};
use larder::config::{ConfigErrors, Listen, Loaded, Sources, load};
use std::fs;
use tempfile::TempDir;

const UPSTREAM: &str = "[[upstream]]\nname = \"myacr.azurecr.io\"\n";
const BOTH: &str = "certificate_file = \"server.pem\"\nkey_file = \"server.key\"\n";

/// A folder with a pair of files, and what the lines of `[server.tls]` make of it.
struct Place(TempDir);

impl Place {
    fn with(pair: &Pair) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("server.pem"), &pair.certificate).unwrap();
        fs::write(folder.path().join("server.key"), &pair.key).unwrap();
        Self(folder)
    }

    fn load(&self, text: &str) -> Result<Loaded, ConfigErrors> {
        let file = self.0.path().join("larder.toml");
        fs::write(&file, format!("{text}{UPSTREAM}")).unwrap();
        let home = self.0.path().to_str().unwrap();
        let environment = [("HOME", home)].into_iter().collect();
        load(&Sources { file: Some(file), environment, current_folder: self.0.path().to_owned(), ..Sources::default() })
    }

    /// The one error, without the folder's name.
    fn error(&self, text: &str) -> String {
        let errors = self.load(text).unwrap_err().errors;
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors[0].to_string().replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn good() -> Pair {
    Authority::new("test").issue(&["larder.lan"])
}

fn listen(loaded: &Loaded) -> Vec<String> {
    let shown = loaded.settings.server.listen.iter().map(|listen| match listen {
        Listen::Tls(address) => format!("tls {address}"),
        Listen::Tcp(address) => format!("tcp {address}"),
        Listen::Unix(path) => format!("unix {}", path.display()),
    });
    shown.collect()
}

#[test]
fn with_a_certificate_and_no_tls_entry_every_tcp_listener_speaks_tls() {
    let place = Place::with(&good());
    let loaded = place.load(&format!("[server.tls]\n{BOTH}")).unwrap();
    assert_eq!(listen(&loaded), ["tls 127.0.0.1:5000", "tls [::1]:5000"]);
    let tls = loaded.settings.server.tls.as_ref().unwrap();
    assert_eq!(
        (&tls.certificate_file, &tls.key_file),
        (&place.0.path().join("server.pem"), &place.0.path().join("server.key"))
    );
    let shown = loaded.effective.iter().find(|one| one.table == "server" && one.key == "listen").unwrap();
    assert_eq!(shown.value.as_deref(), Ok("[\"tls://127.0.0.1:5000\", \"tls://[::1]:5000\"]"));
    let loaded = place
        .load(&format!("[server]\nlisten = [\"127.0.0.1:5000\", \"unix:/run/l.sock\"]\n[server.tls]\n{BOTH}"))
        .unwrap();
    assert_eq!(listen(&loaded), ["tls 127.0.0.1:5000", "unix /run/l.sock"]);
}

#[test]
fn with_a_tls_entry_the_others_stay_plain() {
    let loaded = Place::with(&good())
        .load(&format!("[server]\nlisten = [\"127.0.0.1:5000\", \"tls://127.0.0.1:5443\"]\n[server.tls]\n{BOTH}"))
        .unwrap();
    assert_eq!(listen(&loaded), ["tcp 127.0.0.1:5000", "tls 127.0.0.1:5443"]);
}

#[test]
fn without_the_table_nothing_is_encrypted_and_a_tls_entry_is_an_error() {
    let place = Place::with(&good());
    assert_eq!(listen(&place.load("").unwrap()), ["tcp 127.0.0.1:5000", "tcp [::1]:5000"]);
    let error = place.error("[server]\nlisten = [\"tls://127.0.0.1:5443\"]\n");
    assert!(
        error.starts_with(
            "larder.toml:2:10: server.listen: a listener with tls:// needs a certificate: write [server.tls]"
        ),
        "{error}"
    );
    let error = place.error("[server]\nlisten = [\"tls://larder.lan\"]\n");
    assert!(error.contains("'larder.lan' is not a listen address"), "{error}");
}

#[test]
fn half_a_table_says_what_is_missing() {
    let place = Place::with(&good());
    let error = place.error("[server.tls]\ncertificate_file = \"server.pem\"\n");
    assert!(
        error.starts_with("larder.toml:2:20: server.tls.certificate_file:") && error.contains("write key_file"),
        "{error}"
    );
    let error = place.error("[server.tls]\nkey_file = \"server.key\"\n");
    assert!(error.contains("write certificate_file"), "{error}");
    let error = place.error("[server.tls]\n");
    assert!(error.contains("larder.toml:1:") && error.contains("certificate_file and key_file"), "{error}");
    let error = place.error(&format!("[server.tls]\n{BOTH}client_ca_fil = \"x\"\n"));
    assert!(error.contains("did you mean `client_ca_file`?"), "{error}");
    let error = place.error("[server.tls]\ncertificate_file = 5\nkey_file = \"server.key\"\n");
    assert!(error.contains("server.tls.certificate_file: found 5"), "{error}");
}

#[test]
fn each_file_that_is_wrong_is_named_with_the_line_of_its_setting() {
    let (ours, other) = (Authority::new("test"), Authority::new("other"));
    let old = ours.issue_with(&["larder.lan"], |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let young = ours.issue_with(&["larder.lan"], |params| params.not_before = rcgen::date_time_ymd(2090, 1, 1));
    let (good, stranger) = (good(), other.issue(&["larder.lan"]));
    let pair = |certificate: &str, key: &str| Pair { certificate: certificate.to_owned(), key: key.to_owned() };
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (pair, line, says) in [
        (pair("", &good.key), 2, "server.pem: holds no certificate"),
        (pair("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", &good.key), 2, "server.pem: not PEM"),
        (pair("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", &good.key), 2, "cannot be read"),
        (old, 2, "the certificate expired on 2021-01-01T00:00:00Z: renew it"),
        (young, 2, "not valid before 2090-01-01T00:00:00Z"),
        (ours.client("larder.lan"), 2, "names no host"),
        (pair(&good.certificate, ""), 3, "server.key: holds no private key"),
        (pair(&good.certificate, encrypted), 3, "the key is encrypted"),
        (pair(&good.certificate, &stranger.key), 3, "is not the key of the certificate in server.pem"),
    ] {
        let error = Place::with(&pair).error(&format!("[server.tls]\n{BOTH}"));
        assert!(error.starts_with(&format!("larder.toml:{line}:")) && error.contains(says), "{says}: {error}");
    }
}

#[test]
fn a_file_that_is_missing_or_closed_or_no_file_is_said() {
    let place = Place::with(&good());
    let path = place.0.path().to_owned();
    fs::create_dir(path.join("folder")).unwrap();
    fs::write(path.join("empty.pem"), "").unwrap();
    let table = |certificate: &str, key: &str, more: &str| {
        format!("[server.tls]\ncertificate_file = \"{certificate}\"\nkey_file = \"{key}\"\n{more}")
    };
    for (text, line, says) in [
        (table("none.pem", "server.key", ""), 2, "cannot read none.pem: No such file"),
        (table("folder", "server.key", ""), 2, "cannot read folder: it is no regular file"),
        (table("server.pem", "none.key", ""), 3, "none.key does not exist"),
        (table("server.pem", "folder", ""), 3, "is no regular file"),
        (table("server.pem", "server.key", "client_ca_file = \"none.pem\"\n"), 4, "cannot read none.pem"),
        (table("server.pem", "server.key", "client_ca_file = \"empty.pem\"\n"), 4, "empty.pem: holds no certificate"),
    ] {
        let error = place.error(&text);
        assert!(error.starts_with(&format!("larder.toml:{line}:")) && error.contains(says), "{says}: {error}");
    }
}
