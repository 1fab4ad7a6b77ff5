use super::*;
use crate::config::CredentialSettings;
use crate::upstream::testing::{settings, upstream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Who presents itself at 127.0.0.1 as `change` says; its certificate is trusted. Gives what a request makes of it.
async fn presented(folder: &Path, names: &[&str], change: impl FnOnce(&mut rcgen::CertificateParams)) -> UpstreamError {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = rcgen::CertificateParams::new(names).unwrap();
    change(&mut parameters);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    let root = folder.join("root.pem");
    std::fs::write(&root, certificate.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(acceptor.accept(stream).await);
        }
    });
    let mut settings = settings(&format!("https://{address}"), CredentialSettings::Anonymous);
    settings.ca_file = Some(root);
    let error = manifest(&upstream(&settings).0, "a").await.unwrap_err();
    server.abort();
    error
}

#[tokio::test]
async fn each_way_in_which_a_certificate_is_wrong_is_an_outage_with_its_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let expired = presented(folder.path(), &["127.0.0.1"], |parameters| {
        (parameters.not_before, parameters.not_after) =
            (rcgen::date_time_ymd(2019, 1, 1), rcgen::date_time_ymd(2020, 1, 1));
    });
    let early = presented(folder.path(), &["127.0.0.1"], |parameters| {
        (parameters.not_before, parameters.not_after) =
            (rcgen::date_time_ymd(2090, 1, 1), rcgen::date_time_ymd(2095, 1, 1));
    });
    let expired = expired.await;
    let early = early.await;
    let renamed = presented(folder.path(), &["elsewhere.invalid"], |_| ()).await;
    for (error, words) in [
        (expired, ["has expired", "clock"]),
        (early, ["not valid yet", "clock"]),
        (renamed, ["not accepted", "check the address"]),
    ] {
        assert_eq!(error.kind(), &ErrorKind::Tls);
        assert!(error.is_outage());
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
}

/// As `openssl req -x509` makes it: a certificate that is its own authority.
#[tokio::test]
async fn a_certificate_that_is_given_itself_is_trusted_for_its_names_and_its_time() {
    fn own_authority(parameters: &mut rcgen::CertificateParams) {
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    }
    let folder = tempfile::tempdir().unwrap();
    let trusted = presented(folder.path(), &["127.0.0.1"], own_authority).await;
    assert_ne!(trusted.kind(), &ErrorKind::Tls, "the handshake succeeds, and the server hangs up then: {trusted}");
    let renamed = presented(folder.path(), &["elsewhere.invalid"], own_authority).await;
    assert_eq!(renamed.kind(), &ErrorKind::Tls, "{renamed}");
    let expired = presented(folder.path(), &["127.0.0.1"], |parameters| {
        own_authority(parameters);
        (parameters.not_before, parameters.not_after) =
            (rcgen::date_time_ymd(2019, 1, 1), rcgen::date_time_ymd(2020, 1, 1));
    });
    assert_eq!(expired.await.kind(), &ErrorKind::Tls);
}

#[tokio::test]
async fn what_answers_a_handshake_without_tls_is_told_apart_from_one_that_hangs_up() {
    for (bytes, words) in [
        (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".as_slice(), "not TLS"),
        (b"\x16\x03\x03\xff\xff garbage that looks like a record".as_slice(), "TLS with"),
        (b"".as_slice(), "broke off"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings =
            settings(&format!("https://{}", listener.local_addr().unwrap()), CredentialSettings::Anonymous);
        settings.connect_timeout = Duration::from_secs(2);
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut hello = [0; 1024];
                drop(stream.read(&mut hello).await);
                drop(stream.write_all(bytes).await);
            }
        });
        let error = manifest(&upstream(&settings).0, "a").await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Tls, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        server.abort();
    }
}
