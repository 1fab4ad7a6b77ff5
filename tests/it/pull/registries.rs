//! Registries other than ACR, each played as it answers: `docs/registries.md` has the table that this holds to.

use crate::harness::scripted::{Scripted, answer};
use crate::harness::simulator::OCI_MANIFEST;
use crate::harness::{Larder, Setup, sha256, until_async};
use larder::config::UpstreamSettings;
use larder::oci::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const API: &str = "Docker-Distribution-Api-Version: registry/2.0";
const JSON: &str = "Content-Type: application/json";
const DOCUMENT: &str = "{\"schemaVersion\":2,\"layers\":[]}";
const LAYER: &str = "a layer";

fn document() -> Vec<u8> {
    let digest = format!("Docker-Content-Digest: {}", sha256(DOCUMENT.as_bytes()));
    answer("200 OK", &[API, &format!("Content-Type: {OCI_MANIFEST}"), &digest], DOCUMENT)
}

fn redirect(status: &str, to: &str) -> Vec<u8> {
    answer(status, &[&format!("Location: {to}")], "")
}

fn error(status: &str, lines: &[&str], code: &str) -> Vec<u8> {
    let body = format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"no\"}}]}}");
    answer(status, &[lines, &[JSON][..]].concat(), body)
}

/// Method and target of a request.
fn asked(head: &str) -> (&str, &str) {
    let mut words = head.split(' ');
    (words.next().unwrap(), words.next().unwrap())
}

/// A header's value.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|it| it.1))
}

/// A challenge whose realm is `path` of the same host.
fn challenge(head: &str, path: &str, service: &str, scope: &str) -> Vec<u8> {
    let host = header(head, "host").unwrap();
    let line =
        format!("WWW-Authenticate: Bearer realm=\"http://{host}{path}\",service=\"{service}\",scope=\"{scope}\"");
    error("401 Unauthorized", &[API, &line], "UNAUTHORIZED")
}

async fn larder_for(name: &str, upstream: &Scripted, change: impl FnOnce(&mut UpstreamSettings)) -> Larder {
    let setup = Setup::at(&upstream.url()).upstream(|upstream| {
        upstream.name = Registry::new(name);
        change(upstream);
    });
    setup.start().await
}

/// Docker Hub: official images without `library/`, a token of its own for each repository, HEAD before GET, and its 429s.
#[tokio::test(flavor = "multi_thread")]
async fn docker_hub() {
    let limited = Arc::new(AtomicBool::new(false));
    let refuses = Arc::clone(&limited);
    let hub = Scripted::start_with_heads(move |head| match asked(head) {
        (_, target) if target.starts_with("/token?") => {
            assert!(target.contains("service=registry.docker.io"), "{target}");
            let scope = target.split("scope=").nth(1).unwrap().split('&').next().unwrap();
            answer("200 OK", &[JSON], format!("{{\"token\":\"for {scope}\",\"expires_in\":300}}"))
        }
        (_, "/v2/_catalog?n=1000") => challenge(head, "/token", "registry.docker.io", "registry:catalog:*"),
        _ if refuses.load(Ordering::Relaxed) => {
            let lines = ["Content-Type: text/plain", "ratelimit-limit: 100;w=21600", "ratelimit-remaining: 0;w=21600"];
            answer("429 Too Many Requests", &lines, "You have reached your unauthenticated pull rate limit.")
        }
        (_, target)
            if header(head, "authorization")
                .is_none_or(|it| !it.contains("library%2Falpine") && !it.contains("library/alpine")) =>
        {
            assert!(target.starts_with("/v2/library/alpine/"), "{target}");
            challenge(head, "/token", "registry.docker.io", "repository:library/alpine:pull")
        }
        (_, "/v2/library/alpine/manifests/latest") => document(),
        (_, target) if target.starts_with("/v2/library/alpine/tags/list") => {
            answer("200 OK", &[API, JSON], r#"{"name":"library/alpine","tags":["latest"]}"#)
        }
        _ => error("404 Not Found", &[API], "MANIFEST_UNKNOWN"),
    })
    .await;
    let larder = larder_for("docker.io", &hub, |upstream| upstream.freshness.tag_ttl = Duration::ZERO).await;
    for (prefix, tail) in [
        ("/v2/alpine", ""),
        ("/v2/library/alpine", ""),
        ("/v2/docker.io/alpine", ""),
        ("/v2/docker.io/library/alpine", ""),
        ("/v2/acr/alpine", ""),
        ("/docker.io/v2/alpine", ""),
        ("/v2/alpine", "?ns=docker.io"),
        ("/v2/library/alpine", "?ns=docker.io"),
        ("/v2/alpine", "?ns=index.docker.io"),
    ] {
        let got = larder.get(&format!("{prefix}/manifests/latest{tail}")).await;
        assert_eq!((got.status.as_u16(), got.text()), (200, DOCUMENT), "{prefix}{tail}");
        let tags = larder.get(&format!("{prefix}/tags/list{tail}")).await;
        let named = prefix.split_once("/v2/").unwrap().1;
        assert_eq!(tags.json(), serde_json::json!({"name": named, "tags": ["latest"]}), "{prefix}{tail}");
    }
    let gets = hub.asked().iter().filter(|line| line.starts_with("GET /v2/library/alpine/manifests")).count();
    assert!(gets <= 2, "a tag is asked for with HEAD, which Docker Hub does not count: {:?}", hub.asked());
    limited.store(true, Ordering::Relaxed);
    let stale = larder.get("/v2/alpine/manifests/latest").await;
    assert_eq!((stale.status.as_u16(), stale.text()), (200, DOCUMENT));
    assert!(stale.header("warning").is_some(), "{stale:?}");
    let answer = larder.get("/v2/busybox/manifests/latest").await;
    let (status, code, message) = answer.error();
    assert_eq!((status, &*code), (429, "TOOMANYREQUESTS"), "{message}");
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
}

/// ghcr.io: an anonymous token from its own host, no catalogue.
#[tokio::test(flavor = "multi_thread")]
async fn ghcr() {
    let ghcr = Scripted::start_with_heads(|head| match asked(head) {
        (_, target) if target.starts_with("/token?") => answer("200 OK", &[JSON], "{\"token\":\"anonymous\"}"),
        (_, target) if target.starts_with("/v2/_catalog") => error("403 Forbidden", &[API], "DENIED"),
        _ if header(head, "authorization") != Some("Bearer anonymous") => {
            challenge(head, "/token", "ghcr.io", "repository:owner/image:pull")
        }
        (_, "/v2/owner/image/manifests/v1") => document(),
        _ => error("404 Not Found", &[API], "MANIFEST_UNKNOWN"),
    })
    .await;
    let plain = Scripted::start(|line| {
        let page = if line.contains("_catalog") { r#"{"repositories":["a"]}"# } else { "{}" };
        answer("200 OK", &[API, JSON], page)
    })
    .await;
    let url = plain.url();
    let setup = Setup::at(&ghcr.url()).upstream(|upstream| upstream.name = Registry::new("ghcr.io")).with(|settings| {
        settings.upstreams.push(UpstreamSettings::new(Registry::new("plain.lan"), url.parse().unwrap()));
    });
    let larder = setup.start().await;
    assert_eq!(larder.get("/v2/owner/image/manifests/v1").await.text(), DOCUMENT);
    let all = larder.get("/v2/_catalog").await;
    assert_eq!(all.json(), serde_json::json!({"repositories": ["plain.lan/a"]}));
    assert!(all.header("warning").unwrap().contains("ghcr.io left out"), "{:?}", all.header("warning"));
    assert_eq!(larder.get("/v2/ghcr.io/_catalog").await.status, 403);
}

/// quay.io: the token service at `/v2/auth`, and pages of tags named by `next_page`.
#[tokio::test(flavor = "multi_thread")]
async fn quay() {
    let quay = Scripted::start_with_heads(|head| match asked(head) {
        (_, target) if target.starts_with("/v2/auth?") => answer("200 OK", &[JSON], "{\"token\":\"quay\"}"),
        _ if header(head, "authorization") != Some("Bearer quay") => {
            challenge(head, "/v2/auth", "quay.io", "repository:org/image:pull")
        }
        (_, target) if target.starts_with("/v2/org/image/tags/list") => {
            let (tags, next) = match target.split("next_page=").nth(1) {
                None => (r#"["b","a"]"#, Some("gAAAAAB-1%3D%3D")),
                Some("gAAAAAB-1%3D%3D") => (r#"["d"]"#, Some("gAAAAAB-2%3D%3D")),
                Some(_) => (r#"["c"]"#, None),
            };
            let link = next.map_or_else(
                || "X-Last: yes".to_owned(),
                |next| format!("Link: </v2/org/image/tags/list?n=2&next_page={next}>; rel=\"next\""),
            );
            answer("200 OK", &[API, JSON, &link], format!("{{\"name\":\"org/image\",\"tags\":{tags}}}"))
        }
        _ => error("404 Not Found", &[API], "MANIFEST_UNKNOWN"),
    })
    .await;
    let larder = larder_for("quay.io", &quay, |_| {}).await;
    let tags = larder.get("/v2/quay.io/org/image/tags/list").await;
    assert_eq!(tags.json(), serde_json::json!({"name": "quay.io/org/image", "tags": ["b", "a", "d", "c"]}));
    let page = larder.get("/v2/org/image/tags/list?n=2").await;
    assert_eq!(page.json()["tags"], serde_json::json!(["b", "a"]));
    let link = page.header("link").unwrap();
    assert!(link.starts_with("</v2/org/image/tags/list?last=a&n=2"), "pages are larder's own: {link}");
    let rest = larder.get("/v2/org/image/tags/list?n=2&last=a").await;
    assert_eq!(rest.json()["tags"], serde_json::json!(["d", "c"]));
}

/// MCR: no login at all, and blobs from a data host of another name.
#[tokio::test(flavor = "multi_thread")]
async fn mcr() {
    let data = Scripted::start_with_heads(|head| {
        assert_eq!(header(head, "authorization"), None, "{head}");
        answer("200 OK", &["Content-Type: application/octet-stream", "x-ms-request-id: 1"], LAYER)
    })
    .await;
    let port = data.address.port();
    let digest = sha256(LAYER.as_bytes());
    let path = format!("/v2/dotnet/runtime/blobs/{digest}");
    let blob = path.clone();
    let mcr = Scripted::start_with_heads(move |head| match asked(head) {
        (_, target) if target == blob => redirect(
            "307 Temporary Redirect",
            &format!("http://localhost:{port}/id//docker/registry/v2/data?se=1&sig=x"),
        ),
        (_, "/v2/dotnet/runtime/manifests/8.0") => document(),
        _ => error("404 Not Found", &[API], "MANIFEST_UNKNOWN"),
    })
    .await;
    let larder = larder_for("mcr.microsoft.com", &mcr, |_| {}).await;
    assert_eq!(larder.get("/v2/mcr.microsoft.com/dotnet/runtime/manifests/8.0").await.text(), DOCUMENT);
    assert_eq!(larder.get(&path).await.text(), LAYER);
}

/// Google's Artifact Registry: a token from `/v2/token`, and blobs behind a redirect that stays on its host.
#[tokio::test(flavor = "multi_thread")]
async fn artifact_registry() {
    let digest = sha256(LAYER.as_bytes());
    let path = format!("/v2/project/repo/image/blobs/{digest}");
    let blob = path.clone();
    let google = Scripted::start_with_heads(move |head| match asked(head) {
        (_, target) if target.starts_with("/v2/token?") => answer("200 OK", &[JSON], "{\"token\":\"google\"}"),
        (_, target) if target.starts_with("/artifacts-downloads/") => {
            answer("200 OK", &["Content-Type: application/octet-stream"], LAYER)
        }
        _ if header(head, "authorization") != Some("Bearer google") => {
            challenge(head, "/v2/token", "us-docker.pkg.dev", "repository:project/repo/image:pull")
        }
        (_, target) if target == blob => {
            redirect("302 Found", "/artifacts-downloads/namespaces/project/repositories/repo/downloads/AB12==")
        }
        _ => error("404 Not Found", &[API], "MANIFEST_UNKNOWN"),
    })
    .await;
    let larder = larder_for("us-docker.pkg.dev", &google, |_| {}).await;
    assert_eq!(larder.get(&path).await.text(), LAYER);
}

/// ECR: Basic on every request with a password that is good for twelve hours, so that it must be read anew.
#[tokio::test(flavor = "multi_thread")]
async fn ecr() {
    let second = Arc::new(AtomicBool::new(false));
    let renewed = Arc::clone(&second);
    let ecr = Scripted::start_with_heads(move |head| {
        let host = header(head, "host").unwrap();
        // AWS:first and AWS:second
        let good = if renewed.load(Ordering::Relaxed) { "Basic QVdTOnNlY29uZA==" } else { "Basic QVdTOmZpcnN0" };
        if header(head, "authorization") != Some(good) {
            let line = format!("Www-Authenticate: Basic realm=\"http://{host}/\",service=\"ecr.amazonaws.com\"");
            return answer("401 Unauthorized", &[API, &line, "Content-Type: text/plain"], "Not Authorized\n");
        }
        match asked(head) {
            (_, target) if target.ends_with("/manifests/v1") => document(),
            (_, target) if target.starts_with("/v2/_catalog") => answer("405 Method Not Allowed", &[API], ""),
            _ => error("404 Not Found", &[API], "MANIFEST_UNKNOWN"),
        }
    })
    .await;
    let setup = Setup::at(&ecr.url()).password("AWS", "first").upstream(|upstream| {
        upstream.name = Registry::new("123456789012.dkr.ecr.eu-central-1.amazonaws.com");
    });
    let larder = setup.start().await;
    assert_eq!(larder.get("/v2/app/manifests/v1").await.text(), DOCUMENT);
    second.store(true, Ordering::Relaxed);
    setup.file("password", "second");
    until_async("the new password is used", async || larder.get("/v2/other/manifests/v1").await.status == 200).await;
}

/// No client believes one, and it has no digest by which it could be judged: what would be kept may be a part of the list.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_under_another_success_than_200_is_none() {
    for status in ["201 Created", "202 Accepted", "203 Other"] {
        let registry = Scripted::start_with_heads(move |head| match asked(head) {
            (_, "/v2/") => answer("200 OK", &[API, JSON], "{}"),
            _ => answer(status, &[API, JSON], r#"{"name":"org/image","tags":["a"]}"#),
        })
        .await;
        let larder = larder_for("plain.lan", &registry, |_| {}).await;
        assert_eq!(larder.get("/v2/org/image/tags/list").await.status, 502, "{status}");
    }
}
