//! The same by name: what registries are known to answer.

use crate::harness::scripted::{Scripted, answer};
use crate::harness::simulator::OCI_MANIFEST;
use crate::harness::{Larder, Setup, sha256};
use larder::config::{AccessRule, Right};
use larder::oci::RepositoryPattern;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const API: &str = "Docker-Distribution-Api-Version: registry/2.0";
const JSON: &str = "Content-Type: application/json";

fn document() -> String {
    format!("{{\"schemaVersion\":2,\"mediaType\":\"{OCI_MANIFEST}\",\"config\":{{}},\"layers\":[]}}")
}

async fn larder(upstream: &Scripted) -> Larder {
    Setup::at(&upstream.url()).start().await
}

fn method(head: &str) -> &str {
    head.split(' ').next().unwrap()
}

/// Heads that were asked for, and GETs.
fn counts(upstream: &Scripted) -> (usize, usize) {
    let asked = upstream.asked();
    let count =
        |method: &str| asked.iter().filter(|line| line.starts_with(method) && line.contains("/manifests/")).count();
    (count("HEAD"), count("GET"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_of_no_use_gives_way_to_the_document_s_own() {
    for label in ["text/plain; charset=utf-8", "application/octet-stream", "application/json", "text/html"] {
        let kind = format!("Content-Type: {label}");
        let upstream = Scripted::start(move |_| answer("200 OK", &[&kind], document())).await;
        let larder = larder(&upstream).await;
        let digest = sha256(document().as_bytes());
        for reference in ["v1", &digest, "v1"] {
            let got = larder
                .client()
                .call("GET", &format!("/v2/a/manifests/{reference}"))
                .line("Accept", OCI_MANIFEST)
                .send()
                .await;
            assert_eq!((got.status.as_u16(), got.text()), (200, &*document()), "{label}");
            assert_eq!(got.header("content-type"), Some(OCI_MANIFEST), "{label}");
        }
        assert_eq!(counts(&upstream), (0, 1), "{label}: the next time it is a hit");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_what_is_not_stored_costs_no_get_and_a_pull_by_digest_keeps_the_tag() {
    let digest = sha256(document().as_bytes());
    let named = format!("Docker-Content-Digest: {digest}");
    let away = Arc::new(AtomicBool::new(false));
    let is_away = Arc::clone(&away);
    let upstream = Scripted::start_with_heads(move |head| {
        if is_away.load(Ordering::Relaxed) {
            return answer("503 Service Unavailable", &[], "");
        }
        let kind = format!("Content-Type: {OCI_MANIFEST}");
        let whole = answer("200 OK", &[API, &kind, &named], document());
        if method(head) == "HEAD" { whole[..whole.len() - document().len()].to_vec() } else { whole }
    })
    .await;
    let larder = larder(&upstream).await;
    for _ in 0..2 {
        let head = larder.head("/v2/a/manifests/v1").await;
        assert_eq!((head.status.as_u16(), head.header("docker-content-digest")), (200, Some(&*digest)));
        assert_eq!(head.header("content-length"), Some(&*document().len().to_string()));
    }
    assert_eq!(counts(&upstream), (1, 0), "the second is answered within the TTL of the tag");
    assert_eq!(larder.get(&format!("/v2/a/manifests/{digest}")).await.text(), document());
    away.store(true, Ordering::Relaxed);
    assert_eq!(larder.get("/v2/a/manifests/v1").await.text(), document(), "the tag came with its manifest");
    assert_eq!(counts(&upstream), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_lies_is_no_end_of_a_tag() {
    for status in
        ["404 Not Found", "403 Forbidden", "405 Method Not Allowed", "500 Internal Server Error", "401 Unauthorized"]
    {
        let upstream = Scripted::start_with_heads(move |head| match method(head) {
            "HEAD" => answer(status, &[API, JSON], ""),
            _ => answer("200 OK", &[API, &format!("Content-Type: {OCI_MANIFEST}")], document()),
        })
        .await;
        let larder = Setup::at(&upstream.url()).tag_ttl(Duration::ZERO).start().await;
        for _ in 0..3 {
            let got = larder.get("/v2/a/manifests/v1").await;
            assert_eq!((got.status.as_u16(), got.header("warning")), (200, None), "{status}: {got:?}");
        }
        assert_eq!(larder.head("/v2/b/manifests/v1").await.status, 200, "{status}");
        assert_eq!(larder.metric("larder_upstream_up{upstream=\"myacr.azurecr.io\"}").await, 1, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_referrers_says_404_in_any_way_and_is_not_down() {
    let page = "<html>Sign in</html>";
    let subject = sha256(document().as_bytes());
    for (status, lines, body) in [
        ("404 Not Found", &["Content-Type: text/plain"][..], "404 page not found\n"),
        ("200 OK", &["Content-Type: text/html"], page),
        ("403 Forbidden", &["Content-Type: text/html"], page),
        ("400 Bad Request", &[API, JSON], "{\"errors\":[{\"code\":\"UNSUPPORTED\"}]}"),
        ("405 Method Not Allowed", &[API], ""),
        ("501 Not Implemented", &[], ""),
        ("200 OK", &[API, JSON], "{}"),
        ("401 Unauthorized", &[], ""),
        ("403 Forbidden", &[API, JSON], "{\"errors\":[{\"code\":\"DENIED\"}]}"),
    ] {
        let upstream = Scripted::start(move |line| {
            if line.contains("/referrers/") {
                return answer(status, lines, body);
            }
            answer("200 OK", &[API, &format!("Content-Type: {OCI_MANIFEST}")], document())
        })
        .await;
        let larder = larder(&upstream).await;
        let got = larder.get(&format!("/v2/a/referrers/{subject}")).await;
        let (code, name, message) = got.error();
        assert!(code == 404 && name != "NAME_UNKNOWN", "{status} {body}: {code} {name} {message}");
        assert_eq!(larder.get("/v2/a/manifests/v1").await.text(), document(), "{status}");
        assert_eq!(larder.metric("larder_upstream_up{upstream=\"myacr.azurecr.io\"}").await, 1, "{status} {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_is_no_registry_without_referrers() {
    let upstream = Scripted::start(|_| answer("200 OK", &["Content-Type: text/html"], "<html>Sign in</html>")).await;
    let larder = larder(&upstream).await;
    let got = larder.get(&format!("/v2/a/referrers/{}", sha256(b"x"))).await;
    assert_eq!(got.status, 502, "{got:?}");
    let got = larder.get(&format!("/v2/a/blobs/{}", sha256(b"x"))).await;
    assert!(got.error().2.contains("web page"), "{got:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_whose_next_page_is_wrong_is_followed_at_its_own_path_or_passed_on() {
    for link in [
        "<http://registry.internal:5000/v2/a/tags/list?last=v2&n=2>",
        "<http://127.0.0.1:1/repository/x/v2/a/tags/list?last=v2&n=2>",
        "</v2/elsewhere/tags/list?last=v2&n=2>",
        "<>",
        "<http://registry.internal:5000/>",
        "no link",
    ] {
        let upstream = Scripted::start(move |line| {
            let target = line.split(' ').nth(1).unwrap();
            let line = format!("Link: {link}; rel=\"next\"");
            match target.split_once('?') {
                Some(("/v2/a/tags/list", query)) if query.contains("last=v2") => {
                    answer("200 OK", &[API, JSON], r#"{"name":"a","tags":["v3"]}"#)
                }
                Some(("/v2/a/tags/list", "n=10000")) => {
                    answer("200 OK", &[API, JSON], r#"{"name":"a","tags":["v1","v2","v3"]}"#)
                }
                Some(("/v2/a/tags/list", _)) => {
                    answer("200 OK", &[API, JSON, &line], r#"{"name":"a","tags":["v1","v2"]}"#)
                }
                _ => answer("404 Not Found", &[API, JSON], r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#),
            }
        })
        .await;
        let larder = larder(&upstream).await;
        let all = larder.get("/v2/a/tags/list?n=10000").await;
        assert_eq!(all.json()["tags"], serde_json::json!(["v1", "v2", "v3"]), "{link}: {all:?}");
        let some = larder.get("/v2/a/tags/list?n=2").await;
        assert_eq!(some.json()["tags"], serde_json::json!(["v1", "v2"]), "{link}");
        let next = some.header("link").unwrap_or_default();
        let next = next.trim_start_matches('<').split('>').next().unwrap().to_owned();
        assert_eq!(larder.get(&next).await.json()["tags"], serde_json::json!(["v3"]), "{link}: {next}");
    }
}

fn allow_everything(settings: &mut larder::config::Settings) {
    let (repositories, allow) = (vec![RepositoryPattern::new("**")], vec![Right::Push, Right::Delete]);
    settings.access.rules = vec![AccessRule { users: None, networks: None, repositories, allow }];
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_upstream_does_not_know_deletes_nothing() {
    let upstream = Scripted::start(|line| {
        if line.starts_with("DELETE") {
            return answer(
                "404 Not Found",
                &[API, JSON],
                r#"{"errors":[{"code":"UNSUPPORTED","message":"no such route"}]}"#,
            );
        }
        answer("200 OK", &[API, &format!("Content-Type: {OCI_MANIFEST}")], document())
    })
    .await;
    let larder = Setup::at(&upstream.url()).with(allow_everything).start().await;
    assert_eq!(larder.get("/v2/a/manifests/v1").await.status, 200);
    let digest = sha256(document().as_bytes());
    for reference in ["v1", &digest] {
        let gone = larder.call("DELETE", &format!("/v2/a/manifests/{reference}")).send().await;
        assert_eq!(gone.status, 404);
        assert_eq!(larder.get("/v2/a/manifests/v1").await.text(), document());
        assert_eq!(larder.get(&format!("/v2/a/manifests/{digest}")).await.text(), document());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_blob_under_the_status_of_a_part_is_a_blob() {
    let upstream = Scripted::start(|_| answer("206 Partial Content", &[API], "the whole blob")).await;
    let larder = larder(&upstream).await;
    for _ in 0..2 {
        let got = larder.get(&format!("/v2/a/blobs/{}", sha256(b"the whole blob"))).await;
        assert_eq!((got.status.as_u16(), got.text()), (200, "the whole blob"));
    }
    let other = larder.get(&format!("/v2/a/blobs/{}", sha256(b"another blob"))).await;
    assert_eq!(other.status, 502, "the digest decides");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_wants_a_login_is_confirmed_by_get() {
    for challenge in ["Basic realm=\"x\"", "Negotiate"] {
        for login in [false, true] {
            let challenged = format!("Www-Authenticate: {challenge}");
            let upstream = Scripted::start_with_heads(move |head| match method(head) {
                "HEAD" => answer("401 Unauthorized", &[API, JSON, &challenged], ""),
                _ => answer("200 OK", &[API, &format!("Content-Type: {OCI_MANIFEST}")], document()),
            })
            .await;
            let setup = Setup::at(&upstream.url()).tag_ttl(Duration::ZERO);
            let larder = if login { setup.password("ci", "secret") } else { setup }.start().await;
            for _ in 0..3 {
                let got = larder.get("/v2/a/manifests/v1").await;
                assert_eq!((got.status.as_u16(), got.header("warning")), (200, None), "{challenge}, {login}: {got:?}");
            }
            assert_eq!(larder.head("/v2/b/manifests/v1").await.status, 200, "{challenge}, {login}");
        }
    }
}
