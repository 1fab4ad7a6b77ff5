//! Upstreams that are no ACR, or none that works: headers that must not reach the client, content that is not what it says.

use crate::harness::scripted::{Scripted, answer};
use crate::harness::simulator::{OCI_MANIFEST, Options};
use crate::harness::{Acr, Setup, UPSTREAM, sha256};
use crate::pull::{REPOSITORY, blob, manifest, seed};
use std::sync::atomic::{AtomicBool, Ordering};

const API: &str = "Docker-Distribution-Api-Version: registry/2.0";
const DOCUMENT: &str = "{\"schemaVersion\":2,\"layers\":[]}";

fn kind() -> String {
    format!("Content-Type: {OCI_MANIFEST}")
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_34_cookies_challenges_and_whatever_else_upstream_says_stay_here() {
    let upstream = Scripted::start(|_| {
        let digest = format!("Docker-Content-Digest: {}", sha256(DOCUMENT.as_bytes()));
        let lines = [
            API,
            &kind(),
            &digest,
            "Set-Cookie: session=1; Path=/",
            "Www-Authenticate: Bearer realm=\"http://10.0.0.1/token\"",
            "X-Registry-Supports-Signatures: 1",
            "Strict-Transport-Security: max-age=1",
            "ETag: \"x\"",
            "Location: http://10.0.0.1/elsewhere",
            "Cache-Control: no-store",
            "Warning: 299 - \"upstream's own\"",
        ];
        answer("200 OK", &lines, DOCUMENT)
    })
    .await;
    let larder = Setup::at(&upstream.url()).start().await;
    for _ in ["cold", "warm"] {
        let got = larder.get(&manifest(REPOSITORY, "v1")).await;
        assert_eq!((got.status.as_u16(), got.text()), (200, DOCUMENT));
        let names: Vec<&str> = got.headers.keys().map(http::HeaderName::as_str).collect();
        for foreign in
            ["set-cookie", "www-authenticate", "x-registry-supports-signatures", "location", "etag", "warning"]
        {
            assert!(!names.contains(&foreign), "{names:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_03_an_absolute_link_is_followed_here_and_never_handed_on() {
    let upstream = Scripted::start(|line| {
        let host = "http://127.0.0.1";
        if line.contains("last=b") {
            return answer("200 OK", &[API, "Content-Type: application/json"], r#"{"name":"x","tags":["c"]}"#);
        }
        let link = format!("Link: <{host}/v2/{REPOSITORY}/tags/list?last=b&n=2>; rel=\"next\"");
        answer("200 OK", &[API, "Content-Type: application/json", &link], r#"{"name":"x","tags":["a","b"]}"#)
    })
    .await;
    let larder = Setup::at(&upstream.url()).start().await;
    let all = larder.get(&format!("/v2/{REPOSITORY}/tags/list")).await;
    assert_eq!(all.json(), serde_json::json!({"name": REPOSITORY, "tags": ["a", "b", "c"]}));
    let cut = larder.get(&format!("/v2/{REPOSITORY}/tags/list?n=1")).await;
    assert_eq!(cut.header("link"), Some(&*format!("</v2/{REPOSITORY}/tags/list?last=a&n=1>; rel=\"next\"")));
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_17_a_manifest_that_is_not_what_its_digest_says_is_a_clean_502_and_is_asked_for_anew() {
    let sound = std::sync::Arc::new(AtomicBool::new(false));
    let turned = std::sync::Arc::clone(&sound);
    let upstream = Scripted::start(move |_| {
        let digest = format!("Docker-Content-Digest: {}", sha256(DOCUMENT.as_bytes()));
        let body = if turned.load(Ordering::Relaxed) { DOCUMENT.to_owned() } else { DOCUMENT.replace('2', "3") };
        answer("200 OK", &[API, &kind(), &digest], body)
    })
    .await;
    let larder = Setup::at(&upstream.url()).start().await;
    let digest = sha256(DOCUMENT.as_bytes());
    for reference in ["v1", &*digest] {
        let (status, _, message) = larder.get(&manifest(REPOSITORY, reference)).await.error();
        assert_eq!(status, 502, "{reference}");
        assert!(message.contains(UPSTREAM) && message.contains(&digest), "{message}");
    }
    sound.store(true, Ordering::Relaxed);
    for reference in ["v1", &*digest] {
        assert_eq!(larder.get(&manifest(REPOSITORY, reference)).await.text(), DOCUMENT, "{reference}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_02_content_that_something_has_compressed_on_the_way_is_not_taken_for_content() {
    let upstream = Scripted::start(|_| answer("200 OK", &[API, &kind(), "Content-Encoding: gzip"], "\x1f")).await;
    let larder = Setup::at(&upstream.url()).start().await;
    let (status, _, message) = larder.get(&manifest(REPOSITORY, "v1")).await.error();
    assert_eq!(status, 502);
    assert!(message.contains("gzip"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_and_a_list_that_break_off_in_the_middle_are_asked_for_once_more() {
    let cut = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let left = std::sync::Arc::clone(&cut);
    let upstream = Scripted::start(move |line| {
        let list = line.contains("/tags/list");
        let (kind, body) =
            if list { ("Content-Type: application/json".to_owned(), r#"{"tags":["v1"]}"#) } else { (kind(), DOCUMENT) };
        let mut whole = answer("200 OK", &[API, &kind], body);
        let cut = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        whole.truncate(whole.len() - if cut { 5 } else { 0 });
        whole
    })
    .await;
    let larder = Setup::at(&upstream.url()).start().await;
    let targets = [manifest(REPOSITORY, "v1"), format!("/v2/{REPOSITORY}/tags/list")];
    for target in &targets {
        cut.store(2, Ordering::Relaxed);
        assert_eq!(larder.get(target).await.status, 502, "twice is an outage");
        cut.store(1, Ordering::Relaxed);
        assert_eq!(larder.get(target).await.status, 200, "{target}");
    }
    assert_eq!(upstream.asked().len(), 8, "{:?}", upstream.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_larger_than_any_client_takes_is_refused_with_a_word() {
    let upstream = Scripted::start(|_| answer("200 OK", &[API, &kind()], vec![b' '; 5 << 20])).await;
    let larder = Setup::at(&upstream.url()).start().await;
    let (status, _, message) = larder.get(&manifest(REPOSITORY, "v1")).await.error();
    assert_eq!(status, 502);
    assert!(message.contains(UPSTREAM), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_none_is_502_and_leaves_a_stored_one_alone() {
    let broken = std::sync::Arc::new(AtomicBool::new(false));
    let turned = std::sync::Arc::clone(&broken);
    let upstream = Scripted::start(move |_| {
        let body = if turned.load(Ordering::Relaxed) { r#"{"tags":17}"# } else { r#"{"name":"x","tags":["v1"]}"# };
        answer("200 OK", &[API, "Content-Type: application/json"], body)
    })
    .await;
    let larder = Setup::at(&upstream.url()).tag_ttl(std::time::Duration::ZERO).start().await;
    let target = format!("/v2/{REPOSITORY}/tags/list");
    assert_eq!(larder.get(&target).await.json()["tags"][0], "v1");
    broken.store(true, Ordering::Relaxed);
    let stale = larder.get(&target).await;
    assert_eq!(stale.json()["tags"][0], "v1");
    assert!(stale.header("warning").unwrap().contains(UPSTREAM), "{:?}", stale.header("warning"));
    assert_eq!(larder.get("/v2/another/tags/list").await.error().0, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_vouches_for_is_502_naming_its_issuer_and_ca_file_cures_it() {
    let options = Options { tls: true, ..Options::public() };
    let acr = Acr::start(options).await;
    let (artifact, content) = seed(&acr);
    let setup = Setup::of(&acr);
    let ca_file = setup.file("ca.pem", &acr.ca_pem().unwrap());
    let trusted = setup.clone().upstream(|upstream| upstream.ca_file = Some(ca_file));
    let larder = trusted.start().await;
    assert_eq!(larder.get(&manifest(REPOSITORY, "v1")).await.body, artifact.manifest);
    assert_eq!(larder.get(&blob(REPOSITORY, &artifact.layers[0])).await.body, content);
    drop(larder);

    let setup = Setup::of(&acr);
    let roots =
        setup.file("roots.pem", &Acr::start(Options { tls: true, ..Options::public() }).await.ca_pem().unwrap());
    let larder = setup.variable("SSL_CERT_FILE", roots.as_os_str()).start().await;
    let (status, _, message) = larder.get(&manifest(REPOSITORY, "v1")).await.error();
    assert_eq!(status, 502, "{message}");
    assert!(message.contains(UPSTREAM) && message.contains("issue") && message.contains("ca_file"), "{message}");
}
