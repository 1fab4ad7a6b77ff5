//! Large documents of many requests at once: what they take together is bounded, and what is short goes on meanwhile.

use super::harness::scripted::{Scripted, answer};
use super::harness::simulator::OCI_MANIFEST;
use super::harness::{Larder, Setup, raw, sha256};
use larder::config::{AccessRule, Right};
use larder::oci::RepositoryPattern;
use tokio::net::TcpStream;

const API: &str = "Docker-Distribution-Api-Version: registry/2.0";
const MIB: usize = 1 << 20;

/// A manifest of so many bytes, and a few.
fn manifest(bytes: usize) -> String {
    format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_MANIFEST}\",\"config\":{{}},\"layers\":[],\"annotations\":{{\"x\":\"{}\"}}}}",
        "x".repeat(bytes)
    )
}

/// A registry with large manifests and lists, and a larder with room for 32 MiB, where everybody may push.
async fn scene() -> (Scripted, Larder) {
    let upstream = Scripted::start(|line| {
        let target = line.split(' ').nth(1).unwrap();
        let kind = format!("Content-Type: {OCI_MANIFEST}");
        if line.starts_with("PUT") {
            return answer("201 Created", &[API], "");
        }
        if target.contains("/tags/list") {
            let tags: Vec<String> = (0..60_000).map(|number| format!("\"{number:0100}\"")).collect();
            let json = "Content-Type: application/json";
            return answer("200 OK", &[API, json], format!("{{\"tags\":[{}]}}", tags.join(",")));
        }
        answer("200 OK", &[API, &kind], manifest(if target.contains("/large") { 4 * MIB } else { 10 }))
    })
    .await;
    let larder = Setup::at(&upstream.url()).with(|settings| {
        settings.server.limits.document_memory = 32 << 20;
        settings.server.limits.manifest_memory = 1 << 20;
        let (repositories, allow) = (vec![RepositoryPattern::new("**")], vec![Right::Push]);
        settings.access.rules = vec![AccessRule { users: None, networks: None, repositories, allow }];
    });
    (upstream, larder.start().await)
}

/// A push whose body stops in the middle: as much is held for it as it says that it is long, twice.
async fn stopped(larder: &Larder, tag: &str) -> TcpStream {
    let head = format!(
        "PUT /v2/a/manifests/{tag} HTTP/1.1\r\nHost: {}\r\nContent-Type: {OCI_MANIFEST}\r\nContent-Length: {}\r\n\r\n{}",
        larder.address,
        4 * MIB,
        " ".repeat(100 << 10)
    );
    raw::send(larder.address, head).await
}

#[tokio::test(flavor = "multi_thread")]
async fn large_documents_share_a_bound_and_short_ones_go_on() {
    let (_upstream, larder) = scene().await;
    let large = manifest(4 * MIB);
    let (tag, digest) = ("/v2/a/manifests/large", format!("/v2/a/manifests/{}", sha256(large.as_bytes())));
    assert_eq!(larder.get(tag).await.body.len(), large.len(), "there is room");
    let mut stopped_ones = Vec::new();
    for number in 0..4 {
        stopped_ones.push(stopped(&larder, &format!("v{number}")).await);
    }
    // They have it once larder has read what came.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let put = larder.call("PUT", "/v2/a/manifests/other").line("Content-Type", OCI_MANIFEST).body(large.clone());
    let (pushed, listed, fresh, stored, short) = tokio::join!(
        put.send(),
        larder.get("/v2/a/tags/list?n=60000"),
        larder.get("/v2/b/manifests/large"),
        larder.get(&digest),
        larder.get("/v2/a/manifests/short"),
    );
    assert_eq!(short.status, 200, "{short:?}");
    for (what, refused) in [("a push", pushed), ("a list", listed), ("a pull", fresh), ("a stored one", stored)] {
        let (status, code, message) = refused.error();
        assert_eq!((status, code.as_str()), (429, "TOOMANYREQUESTS"), "{what}: {message}");
        assert!(message.contains("document_memory"), "{what}: {message}");
        assert_eq!(refused.header("retry-after"), Some("5"), "{what}");
    }
    drop(stopped_ones);
    for (target, length) in [(tag, large.len()), (&digest, large.len()), ("/v2/a/tags/list?n=60000", 60_000 * 102)] {
        let got = larder.get(target).await;
        assert!(got.status == 200 && got.body.len() >= length, "{target}: {} {}", got.status, got.body.len());
    }
    let put = larder.call("PUT", "/v2/a/manifests/other").line("Content-Type", OCI_MANIFEST).body(large);
    assert_eq!(put.send().await.status, 201);
}
