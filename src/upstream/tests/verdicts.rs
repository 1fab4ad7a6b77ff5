use super::*;
use crate::config::CredentialSettings;
use crate::upstream::BlobHead;
use crate::upstream::testing::{ReceivedRequest, Reply, Server, bare, errors, reply, settings, upstream};
use http::Method;
use std::time::Duration;

/// What `get_manifest` makes of this answer.
async fn verdict(answer: impl Fn() -> Reply + Send + Sync + 'static) -> UpstreamError {
    let server = Server::start(move |_| answer()).await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    manifest(&upstream, "a").await.unwrap_err()
}

#[tokio::test]
async fn a_manifest_comes_as_it_is_and_every_type_is_asked_for() {
    let digest = blob(MANIFEST.as_bytes()).to_string();
    let kind = format!("{OCI}; charset=utf-8");
    let server = Server::start({
        let digest = digest.clone();
        move |_| reply(200, &[("content-type", &kind), ("docker-content-digest", &digest)], MANIFEST)
    })
    .await;
    let (upstream, metrics) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let fetched = manifest(&upstream, "a/b").await.unwrap();
    assert_eq!((fetched.content.as_ref(), fetched.media_type.as_str()), (MANIFEST.as_bytes(), OCI));
    assert_eq!(fetched.digest.unwrap().to_string(), digest);
    let head = upstream.head_manifest(&name("a/b"), &digest.parse().unwrap()).await.unwrap();
    assert_eq!(head.length, Some(MANIFEST.len() as u64));
    assert_eq!(head.media_type.unwrap().as_str(), OCI);
    let narrow = Accept::from_lines(["text/plain"]);
    upstream.get_manifest(&name("a/b"), &tag("v1"), &narrow).await.unwrap();
    let asked = server.asked();
    assert!(asked[0].header("accept").unwrap().starts_with("application/vnd.oci.image.index.v1+json, "));
    assert!(asked[0].header("accept").unwrap().ends_with(", */*"));
    assert_eq!(asked[1].target, format!("/v2/a/b/manifests/{digest}"));
    assert_eq!(asked[2].header("accept"), Some("text/plain"));
    assert_eq!(asked[0].header("accept-encoding"), Some("identity"));
    assert_eq!(asked[0].header("user-agent"), Some(concat!("larder/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(asked[0].header("x-meta-source-client"), Some("on-prem/larder"));
    assert_eq!(asked[0].header("cookie"), None);
    let received = metrics.upstream_received_bytes.with_label_values(&["test.registry"]).get();
    assert_eq!(received, 2 * MANIFEST.len() as u64);
    assert_eq!(metrics.upstream_requests.with_label_values(&["test.registry", "manifest_get", "200"]).get(), 2);
    assert_eq!(metrics.upstream_requests.with_label_values(&["test.registry", "manifest_head", "200"]).get(), 1);
}

#[tokio::test]
async fn not_found_is_believed_from_a_speaker_only() {
    let unknown = || errors("MANIFEST_UNKNOWN", "manifest tagged by v1 is not found");
    for speaker in [
        verdict(move || bare(404, &[("content-type", "application/json")], unknown())).await,
        verdict(move || reply(404, &[], unknown())).await,
        verdict(|| reply(404, &[], "")).await,
    ] {
        let ErrorKind::NotFound { code, .. } = speaker.kind() else { panic!("{speaker:?}") };
        assert_eq!(code, "MANIFEST_UNKNOWN");
        assert!(!speaker.is_outage());
    }
    for portal in [
        verdict(|| bare(404, &[("content-type", "text/html")], "<html>")).await,
        verdict(|| bare(404, &[("content-type", "text/plain")], "404 page not found\n")).await,
        verdict(|| bare(404, &[], "")).await,
        verdict(|| bare(403, &[("content-type", "text/html")], "blocked")).await,
        verdict(|| bare(401, &[], "log in")).await,
        verdict(|| bare(200, &[("content-type", "text/html; charset=utf-8")], "<html>")).await,
        verdict(|| reply(200, &[("content-type", "text/html")], "<html>")).await,
        verdict(|| bare(200, &[("content-type", "text/plain")], "welcome")).await,
        verdict(|| reply(200, &[("content-type", OCI), ("content-encoding", "gzip")], "x")).await,
        verdict(|| reply(204, &[], "")).await,
        verdict(|| reply(302, &[], "")).await,
    ] {
        assert_eq!(portal.kind(), &ErrorKind::Foreign, "{portal}");
        assert!(portal.is_outage());
    }
}

#[tokio::test]
async fn every_other_refusal_has_its_kind() {
    let throttled = verdict(|| reply(429, &[("retry-after", "50")], "Ref A: x")).await;
    assert_eq!(throttled.kind(), &ErrorKind::Throttled { retry_after: Some(Duration::from_secs(50)) });
    let broken = verdict(|| bare(503, &[], "")).await;
    assert_eq!(broken.kind(), &ErrorKind::ServerError(503));
    assert!(throttled.is_outage() && broken.is_outage());
    let firewall = verdict(|| {
        let body = errors(
            "DENIED",
            "client with IP \\u00271.2.3.4\\u0027 is not allowed access. Refer https://aka.ms/acr/firewall",
        );
        reply(403, &[("x-ms-correlation-request-id", "c-7")], body)
    })
    .await;
    assert!(matches!(firewall.kind(), ErrorKind::Firewall { message } if message.contains("1.2.3.4")));
    assert!(firewall.is_outage() && firewall.to_string().contains("c-7"), "{firewall}");
    let denied = verdict(|| bare(403, &[], errors("DENIED", "requested access to the resource is denied"))).await;
    assert!(matches!(denied.kind(), ErrorKind::RepositoryRefused { .. }), "{denied:?}");
    let rejected = verdict(|| reply(424, &[], errors("UNKNOWN", "source"))).await;
    assert!(matches!(rejected.kind(), ErrorKind::Rejected { status: 424, .. }) && !rejected.is_outage());
    let login = verdict(|| reply(401, &[], errors("UNAUTHORIZED", "x"))).await;
    assert!(matches!(login.kind(), ErrorKind::CredentialRefused { .. }), "{login:?}");
}

#[tokio::test]
async fn a_portal_that_asks_for_a_login_withdraws_nothing() {
    let portal = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let up = std::sync::Arc::clone(&portal);
    let server = Server::start(move |asked| {
        let host = asked.header("host").unwrap();
        if up.load(std::sync::atomic::Ordering::SeqCst) {
            return bare(401, &[("content-type", "text/html")], "log in");
        }
        match (asked.target.split('?').next().unwrap(), asked.header("authorization")) {
            ("/token", _) => reply(200, &[], r#"{"token":"t"}"#),
            (_, Some(_)) => reply(200, &[("content-type", OCI)], MANIFEST),
            _ => reply(401, &[("www-authenticate", &challenge(&format!("http://{host}/token"), None))], ""),
        }
    })
    .await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    manifest(&upstream, "a").await.unwrap();
    portal.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(manifest(&upstream, "a").await.unwrap_err().kind(), &ErrorKind::Foreign);
}

#[tokio::test]
async fn a_manifest_is_bounded_whether_it_says_its_size_or_not() {
    let size = crate::oci::MAX_MANIFEST + 1;
    let error = verdict(move || reply(200, &[("content-type", OCI)], vec![b' '; size])).await;
    assert_eq!(error.kind(), &ErrorKind::TooLarge);
}

#[tokio::test]
async fn a_manifest_without_a_type_has_its_own() {
    let server = Server::start(|_| reply(200, &[], MANIFEST)).await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    assert_eq!(manifest(&upstream, "a").await.unwrap().media_type.as_str(), OCI);
    assert_eq!(verdict(|| reply(200, &[], "{}")).await.kind(), &ErrorKind::Foreign);
}

/// What HEAD of a manifest and a blob make of `script`, and how often it was asked for each.
async fn heads(script: impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static) -> (Vec<ErrorKind>, usize, usize) {
    let server = Server::start(script).await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let manifest = upstream.head_manifest(&name("a"), &tag("v1")).await.unwrap_err();
    let blob = upstream.head_blob(&name("a"), &blob(b"x")).await.unwrap_err();
    (vec![manifest.kind().clone(), blob.kind().clone()], server.count("/manifests/"), server.count("/blobs/"))
}

#[tokio::test]
async fn a_head_that_does_not_say_who_speaks_is_confirmed_by_a_get() {
    let (kinds, manifests, blobs) = heads(|_| reply(404, &[], "")).await;
    let codes: Vec<_> = kinds.iter().map(|kind| matches!(kind, ErrorKind::NotFound { .. })).collect();
    assert_eq!((codes, manifests, blobs), (vec![true, true], 2, 1), "a tag is never gone on a HEAD's word alone");

    let silent = |asked: &ReceivedRequest| {
        bare(404, &[], if asked.method == Method::GET { errors("MANIFEST_UNKNOWN", "") } else { String::new() })
    };
    let (kinds, manifests, blobs) = heads(silent).await;
    assert!(kinds.iter().all(|kind| matches!(kind, ErrorKind::NotFound { .. })), "{kinds:?}");
    assert_eq!((manifests, blobs), (2, 2));

    let (kinds, ..) = heads(|_| bare(404, &[("content-type", "text/html")], "")).await;
    assert_eq!(kinds, [ErrorKind::Foreign, ErrorKind::Foreign]);

    let firewall = |_: &ReceivedRequest| reply(403, &[], errors("DENIED", "client with IP '1' is not allowed access"));
    let (kinds, ..) = heads(firewall).await;
    assert!(kinds.iter().all(|kind| matches!(kind, ErrorKind::Firewall { .. })), "{kinds:?}");

    let (kinds, manifests, _) = heads(|_| reply(503, &[], "")).await;
    assert_eq!((kinds, manifests), (vec![ErrorKind::ServerError(503), ErrorKind::ServerError(503)], 2));
}

#[tokio::test]
async fn a_blob_head_says_the_length_and_whether_a_registry_speaks() {
    let server = Server::start(|asked| {
        if asked.method == Method::HEAD && asked.target.contains("redirected") {
            return reply(307, &[("location", "/storage")], "");
        }
        for (name, headers) in [
            ("named", vec![("docker-content-digest", blob(b"x").to_string())]),
            (
                "other",
                vec![
                    ("docker-distribution-api-version", "registry/2.0".to_owned()),
                    ("docker-content-digest", blob(b"y").to_string()),
                ],
            ),
            ("portal", vec![]),
        ] {
            if asked.target.contains(name) {
                let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
                return bare(200, &headers, vec![0; 512]);
            }
        }
        match asked.target.as_str() {
            "/storage" if asked.method == Method::HEAD => bare(403, &[], ""),
            _ if asked.header("range").is_some() => bare(206, &[("content-range", "bytes 0-0/1024")], "x"),
            _ => reply(200, &[], vec![0; 512]),
        }
    })
    .await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let head = async |repository: &str| upstream.head_blob(&name(repository), &blob(b"x")).await.unwrap();
    assert_eq!(head("a").await, BlobHead { length: Some(512), speaks: true });
    assert_eq!(head("redirected").await.length, Some(1024));
    assert!(
        head("named").await.speaks && head("named").await.vouches_for(512) && !head("named").await.vouches_for(511)
    );
    assert!(!head("other").await.speaks && !head("portal").await.speaks);
}

#[tokio::test]
async fn a_ping_takes_the_login() {
    let server = Server::start(|asked| {
        let host = asked.header("host").unwrap();
        match asked.target.split('?').next().unwrap() {
            "/token" => reply(200, &[], r#"{"token":"t"}"#),
            _ if asked.header("authorization") == Some("Bearer t") => reply(200, &[], "{}"),
            _ => reply(401, &[("www-authenticate", &challenge(&format!("http://{host}/token"), None))], ""),
        }
    })
    .await;
    let (upstream, metrics) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    upstream.ping().await.unwrap();
    assert_eq!(paths(&server), ["GET /v2/", "GET /token", "GET /v2/"]);
    assert_eq!(metrics.upstream_requests.with_label_values(&["test.registry", "ping", "200"]).get(), 1);
    assert_eq!(metrics.upstream_requests.with_label_values(&["test.registry", "token", "200"]).get(), 1);
}
