use super::*;
use crate::config::CredentialSettings;
use crate::upstream::testing::{Server, errors, reply, settings, upstream};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::Instant;

const NAME: &str = "test.registry";

/// A port of loopback on which nobody listens.
async fn nobody() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_429_holds_back_reads_and_says_how_many_seconds_are_left() {
    let server = Server::start(|_| reply(429, &[("retry-after", "40")], errors("TOOMANYREQUESTS", "slow down"))).await;
    let (upstream, metrics) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let first = manifest(&upstream, "a").await.unwrap_err();
    assert_eq!(first.kind(), &ErrorKind::Throttled { retry_after: Some(Duration::from_secs(40)) });
    let second = manifest(&upstream, "b").await.unwrap_err();
    let ErrorKind::Throttled { retry_after: Some(left) } = second.kind() else { panic!("{second}") };
    assert!((39..=40).contains(&left.as_secs()), "{left:?}");
    assert!(second.to_string().contains("throttles reads, and wants to be left alone for another"), "{second}");
    let blob = upstream.head_blob(&name("a"), &blob(b"x")).await.unwrap_err();
    assert!(blob.is_outage());
    assert_eq!(server.asked().len(), 1, "nothing more was sent");
    assert_eq!(metrics.upstream_throttled.with_label_values(&[NAME]).get(), 1);
    assert_eq!(metrics.upstream_withheld.with_label_values(&[NAME, "throttled"]).get(), 2);
}

#[tokio::test]
async fn a_throttled_token_service_is_left_alone_and_its_tokens_go_on_working() {
    let server = Server::start_async(|asked| async move {
        let host = asked.header("host").unwrap().to_owned();
        let header = |name: &str| asked.header(name).map(str::to_owned);
        match (asked.target.as_str(), header("authorization")) {
            (path, _) if path.starts_with("/token") && path.contains("first") => reply(200, &[], r#"{"token":"t"}"#),
            (path, _) if path.starts_with("/token") => reply(429, &[("retry-after", "30")], "busy"),
            (_, Some(_)) => reply(200, &[("content-type", OCI)], MANIFEST),
            (path, None) => {
                let repository = path.split('/').nth(2).unwrap();
                let scope = format!("repository:{repository}:pull");
                let challenge = challenge(&format!("http://{host}/token"), Some(&scope));
                reply(401, &[("www-authenticate", &challenge)], errors("UNAUTHORIZED", "no"))
            }
        }
    })
    .await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    manifest(&upstream, "first").await.unwrap();
    for _ in 0..3 {
        let error = manifest(&upstream, "second").await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Throttled { retry_after: Some(_) }), "{error}");
    }
    assert_eq!(server.count("/token"), 2, "one for each repository");
    manifest(&upstream, "first").await.unwrap();
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_not_waited_for_and_is_used_again_when_it_does() {
    let address = nobody().await;
    let (upstream, metrics) = upstream(&settings(&format!("http://{address}"), CredentialSettings::Anonymous));
    for _ in 0..3 {
        let error = manifest(&upstream, "a").await.unwrap_err();
        assert!(!error.to_string().contains("has not answered since"), "{error}");
    }
    let error = manifest(&upstream, "a").await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unreachable);
    let text = error.to_string();
    assert!(text.contains(&format!("{address} has not answered since 20")) && text.contains("refused"), "{text}");
    assert_eq!(metrics.upstream_withheld.with_label_values(&[NAME, "unreachable"]).get(), 1);
    assert_eq!(metrics.upstream_requests.with_label_values(&[NAME, "manifest_get", "error"]).get(), 3);
    assert_eq!(metrics.upstream_up.with_label_values(&[NAME]).get(), 0);

    let listener = TcpListener::bind(address).await.unwrap();
    let server = Server::on(listener, |_| async { reply(200, &[("content-type", OCI)], MANIFEST) });
    tokio::time::sleep(Duration::from_millis(1100)).await;
    manifest(&upstream, "a").await.unwrap();
    manifest(&upstream, "b").await.unwrap();
    assert_eq!(server.asked().len(), 2);
    assert_eq!(metrics.upstream_up.with_label_values(&[NAME]).get(), 1);
}

#[tokio::test]
async fn storage_that_is_away_keeps_nobody_from_the_registry() {
    let storage = nobody().await;
    let server = Server::start(move |asked| {
        if asked.target.contains("/blobs/") {
            return reply(307, &[("location", &format!("http://localhost:{}/b", storage.port()))], "");
        }
        reply(200, &[("content-type", OCI)], MANIFEST)
    })
    .await;
    let (upstream, metrics) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    for _ in 0..5 {
        let error = upstream.get_blob(&name("a"), &blob(b"x"), None).await.unwrap_err();
        assert!(error.to_string().contains(&format!("localhost:{}", storage.port())), "{error}");
        manifest(&upstream, "a").await.unwrap();
    }
    assert_eq!(metrics.upstream_withheld.with_label_values(&[NAME, "unreachable"]).get(), 2);
}

#[tokio::test]
async fn silence_is_waited_for_three_times_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut silent = settings(&format!("http://{}", listener.local_addr().unwrap()), CredentialSettings::Anonymous);
    silent.first_byte_timeout = Duration::from_millis(300);
    let (upstream, _) = upstream(&silent);
    for _ in 0..3 {
        assert_eq!(manifest(&upstream, "a").await.unwrap_err().kind(), &ErrorKind::Timeout);
    }
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(manifest(&upstream, "a").await.unwrap_err().kind(), &ErrorKind::Timeout);
    }
    assert!(begun.elapsed() < Duration::from_millis(250), "{:?}", begun.elapsed());
}
