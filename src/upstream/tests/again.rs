use super::super::testing::{Server, reply, settings, upstream};
use super::*;
use crate::config::CredentialSettings;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::Instant;

/// A registry that never answers the first request of each kind, and all others at once.
async fn swallowing(first: impl Fn(&str) -> bool + Send + Sync + 'static) -> Server {
    let seen = Mutex::new(HashSet::new());
    Server::start_async(move |asked| {
        let what = format!("{} {}", asked.method, asked.target.split('?').next().unwrap_or_default());
        let swallowed = first(&what) && seen.lock().insert(what);
        async move {
            if swallowed {
                std::future::pending::<()>().await;
            }
            if asked.target.starts_with("/token") {
                return reply(200, &[], r#"{"token":"t"}"#);
            }
            if asked.target.contains("/private/") && asked.header("authorization").is_none() {
                let realm = format!("http://{}/token", asked.header("host").unwrap());
                let challenge = challenge(&realm, Some("repository:private/a:pull"));
                return reply(401, &[("www-authenticate", &challenge)], "");
            }
            if asked.target.contains("/manifests/") {
                // With its digest, so that a HEAD is enough.
                let digest = blob(MANIFEST.as_bytes()).to_string();
                return reply(200, &[("content-type", OCI), ("docker-content-digest", &digest)], MANIFEST);
            }
            reply(200, &[], r#"{"name":"a","tags":["v1"]}"#)
        }
    })
    .await
}

fn takes_a_second(begun: Instant, what: &str) {
    let took = begun.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_millis(2500)).contains(&took), "{what} took {took:?}");
}

#[tokio::test]
async fn every_question_that_is_swallowed_is_asked_again_on_a_new_connection() {
    let server = swallowing(|_| true).await;
    let (upstream, metrics) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let begun = Instant::now();
    let (a, x) = (name("a"), blob(b"x"));
    let list = ListRequest::Tags { repository: name("a"), page: Page::First };
    let (v1, v2) = (tag("v1"), tag("v2"));
    let accept = Accept::default();
    let answers = tokio::join!(
        async { upstream.head_manifest(&a, &v1).await.map(drop) },
        async { upstream.get_manifest(&a, &v2, &accept).await.map(drop) },
        async { upstream.head_blob(&a, &x).await.map(drop) },
        async { upstream.get_blob(&a, &x, None).await.map(drop) },
        async { upstream.get_list(list).await.map(drop) },
        async { upstream.ping().await },
    );
    takes_a_second(begun, "all together");
    let (manifest_head, manifest, blob_head, blob, list, ping) = answers;
    for answer in [manifest_head, manifest, blob_head, blob, list, ping] {
        answer.unwrap();
    }
    assert_eq!(server.asked().len(), 12, "{:?}", paths(&server));
    assert_eq!(metrics.upstream_retries.with_label_values(&["test.registry", "silence"]).get(), 6);
}

#[tokio::test]
async fn a_token_that_does_not_come_is_asked_for_again() {
    let server = swallowing(|what| what.contains("/token")).await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let begun = Instant::now();
    manifest(&upstream, "private/a").await.unwrap();
    takes_a_second(begun, "the token");
    assert_eq!(server.count("/token"), 2);
}

#[tokio::test]
async fn what_changes_something_is_sent_once_however_long_it_takes() {
    let server = swallowing(|what| what.starts_with("DELETE") || what.starts_with("PUT")).await;
    let mut patient = settings(&server.url(), CredentialSettings::Anonymous);
    patient.first_byte_timeout = Duration::from_millis(2500);
    let (upstream, _) = upstream(&patient);
    let (a, v1, x) = (name("a"), tag("v1"), blob(b"x"));
    let deleted = upstream.delete_blob(&a, &x);
    let put = upstream.put_manifest(&a, &v1, None, "", Bytes::from_static(b"{}"));
    let (deleted, put) = tokio::join!(deleted, put);
    assert!(deleted.is_err() && put.is_err());
    assert_eq!((server.count("DELETE"), server.count("PUT")), (1, 1));
}

#[tokio::test]
async fn a_registry_that_is_only_slow_answers_the_first_request() {
    let server = Server::start_async(|_| async {
        tokio::time::sleep(Duration::from_millis(2800)).await;
        reply(200, &[("content-type", OCI)], MANIFEST)
    })
    .await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let begun = Instant::now();
    manifest(&upstream, "a").await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(3500), "{:?}", begun.elapsed());
    assert_eq!(server.asked().len(), 2, "and is asked once more only");
}
