use super::*;
use crate::config::CredentialSettings;
use crate::upstream::testing::{ReceivedRequest, Reply, Server, bare, password, reply, settings, upstream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const CONTENT: &[u8] = b"0123456789";
const SIGNED: &str = "/id-x//docker/registry/v2/blobs/sha256/d2/ab/data?se=2023-01-30T18%3A57%3A33Z&sig=a%2Bb%3D&sp=r";

/// Storage that serves ranges and refuses an `Authorization`.
fn storage(asked: &ReceivedRequest) -> Reply {
    if asked.header("authorization").is_some() {
        return bare(
            400,
            &[("content-type", "application/xml")],
            "<Error><Code>InvalidAuthenticationInfo</Code></Error>",
        );
    }
    match asked.header("range") {
        Some("bytes=4-") => bare(206, &[("content-range", "bytes 4-9/10")], &CONTENT[4..]),
        Some("bytes=4-6") => bare(206, &[("content-range", "bytes 4-6/10")], &CONTENT[4..7]),
        _ => bare(200, &[("content-type", "application/octet-stream")], CONTENT),
    }
}

/// A login server that wants a token and leads to `location`.
fn login_server(location: String) -> impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static {
    move |asked| {
        let host = asked.header("host").unwrap();
        if asked.target.starts_with("/token") {
            return reply(200, &[], r#"{"token":"t"}"#);
        }
        if asked.header("authorization").is_none() {
            let challenge = challenge(&format!("http://{host}/token"), Some("repository:a:pull"));
            return reply(401, &[("www-authenticate", &challenge)], "");
        }
        reply(
            307,
            &[("location", &location), ("content-type", "text/html; charset=utf-8")],
            "<a href=\"x\">Temporary Redirect</a>.\n",
        )
    }
}

#[tokio::test]
async fn storage_gets_the_url_byte_for_byte_and_no_authorization() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Server::start(storage).await;
    let server = Server::start(login_server(format!("{}{SIGNED}", storage.url()))).await;
    let (upstream, metrics) = upstream(&settings(&server.url(), password(folder.path(), "pw")));
    let digest = blob(CONTENT);
    let whole = upstream.get_blob(&name("a"), &digest, None).await.unwrap();
    assert_eq!((whole.start, whole.length), (0, Some(10)));
    assert_eq!(read(whole).await.unwrap(), CONTENT);
    let part = upstream.get_blob(&name("a"), &digest, Some((4, Some(6)))).await.unwrap();
    assert_eq!((part.start, part.length), (4, Some(10)));
    assert_eq!(read(part).await.unwrap(), &CONTENT[4..7]);
    let rest = upstream.get_blob(&name("a"), &digest, Some((4, None))).await.unwrap();
    assert_eq!(read(rest).await.unwrap(), &CONTENT[4..]);
    for asked in storage.asked() {
        assert_eq!(asked.target, SIGNED);
        assert_eq!(asked.header("authorization"), None);
        assert_eq!(asked.header("host").unwrap(), storage.address.to_string());
    }
    assert_eq!(metrics.upstream_requests.with_label_values(&["test.registry", "blob_storage", "206"]).get(), 2);
    assert_eq!(metrics.upstream_requests.with_label_values(&["test.registry", "blob_get", "307"]).get(), 3);
    let addresses: Vec<_> =
        server.asked().iter().filter(|a| a.target.starts_with("/v2")).map(|a| a.target.clone()).collect();
    assert_eq!(addresses[0], format!("/v2/a/blobs/{digest}"));
}

#[tokio::test]
async fn no_log_line_holds_a_signature_or_a_secret() {
    #[derive(Clone, Default)]
    struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // With one subscriber alone, a place that another test's thread reaches first would count as wanted by nobody.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let folder = tempfile::tempdir().unwrap();
    let storage = Server::start(storage).await;
    let server = Server::start(login_server(format!("{}{SIGNED}", storage.url()))).await;
    let (upstream, _) = upstream(&settings(&server.url(), password(folder.path(), "s3cret")));
    upstream.get_blob(&name("a"), &blob(CONTENT), None).await.unwrap();
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("blob_storage") && text.contains("//docker/registry"), "{text}");
    for secret in ["sig=", "s3cret", "Y2k6", "Bearer t", "scope="] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn an_expired_address_is_resolved_once_more() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let target = Server::start(move |request| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 { bare(403, &[], "<Error/>") } else { storage(request) }
    })
    .await;
    let server = Server::start(login_server(format!("{}{SIGNED}", target.url()))).await;
    let (upstream, metrics) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let whole = upstream.get_blob(&name("a"), &blob(CONTENT), None).await.unwrap();
    assert_eq!(read(whole).await.unwrap(), CONTENT);
    assert_eq!(metrics.upstream_retries.with_label_values(&["test.registry", "redirect"]).get(), 1);
    assert_eq!(server.count("/blobs/"), 3, "the 401, and one for each address");
}

#[tokio::test]
async fn storage_that_refuses_for_good_is_no_not_found() {
    for (status, body) in
        [(400, "<Error/>"), (403, "<Error/>"), (404, "<Error/>"), (401, "{\"errors\":[{\"code\":\"DENIED\"}]}")]
    {
        let target = Server::start(move |_| bare(status, &[("content-type", "application/xml")], body)).await;
        let server = Server::start(login_server(target.url())).await;
        let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
        let error = upstream.get_blob(&name("a"), &blob(CONTENT), None).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Foreign, "{error}");
        assert!(error.to_string().contains(&target.address.to_string()), "{error}");
        assert_eq!(target.asked().len(), 2);
    }
}

#[tokio::test]
async fn a_page_behind_a_redirect_is_foreign_and_loops_end() {
    let portal = Server::start(|_| bare(200, &[("content-type", "text/html")], "<html>")).await;
    let server = Server::start(login_server(portal.url())).await;
    let (ours, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    // The digest decides; that it was a page is said if that is wrong.
    let page = ours.get_blob(&name("a"), &blob(CONTENT), None).await.unwrap().page.unwrap();
    assert_eq!(page.kind(), &ErrorKind::Foreign, "{page}");
    let head = ours.head_blob(&name("a"), &blob(CONTENT)).await.unwrap_err();
    assert_eq!(head.kind(), &ErrorKind::Foreign, "{head}");

    let server = Server::start(login_server("/v2/a/again".into())).await;
    let (ours, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let error = ours.get_blob(&name("a"), &blob(CONTENT), None).await.unwrap_err();
    assert!(error.to_string().contains("more than 10 redirects"), "{error}");
    assert_eq!(server.count("/again"), 10);
    for location in ["ftp://x/", "http://user:pw@127.0.0.1:1/", "http://"] {
        let server = Server::start(login_server(location.into())).await;
        let (ours, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
        let error = ours.get_blob(&name("a"), &blob(CONTENT), None).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Foreign, "{error}");
    }
}

#[tokio::test]
async fn every_redirect_is_followed_relative_ones_too() {
    for status in [301, 302, 303, 307, 308] {
        let server = Server::start(move |asked| match asked.target.as_str() {
            "/v2/a/blobs/there//x%3Ay?z=%2F" => bare(200, &[], CONTENT),
            _ => reply(status, &[("location", "there//x%3Ay?z=%2F")], ""),
        })
        .await;
        let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
        let whole = upstream.get_blob(&name("a"), &blob(CONTENT), None).await.unwrap();
        assert_eq!(read(whole).await.unwrap(), CONTENT, "{status}");
    }
}

#[tokio::test]
async fn a_range_may_be_answered_whole_but_not_elsewhere() {
    let server = Server::start(|asked| match asked.header("range") {
        Some("bytes=1-") => bare(200, &[], CONTENT),
        Some("bytes=2-") => bare(206, &[("content-range", "bytes 3-9/10")], &CONTENT[3..]),
        Some("bytes=3-") => bare(206, &[], &CONTENT[3..]),
        Some("bytes=99-") => reply(416, &[], ""),
        _ => bare(206, &[("content-range", "bytes 0-9/10")], CONTENT),
    })
    .await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let (repository, digest) = (name("a"), blob(CONTENT));
    let whole = upstream.get_blob(&repository, &digest, Some((1, None))).await.unwrap();
    assert_eq!((whole.start, whole.length), (0, Some(10)));
    for first in [2, 3] {
        let error = upstream.get_blob(&repository, &digest, Some((first, None))).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Foreign, "{error}");
    }
    assert_eq!(upstream.get_blob(&repository, &digest, None).await.unwrap_err().kind(), &ErrorKind::Foreign);
    let past = upstream.get_blob(&repository, &digest, Some((99, None))).await.unwrap_err();
    assert!(matches!(past.kind(), ErrorKind::Rejected { status: 416, .. }), "{past:?}");
}
