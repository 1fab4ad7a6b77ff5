//! Web pages in a local browser: they write nothing, reach neither listener under a name of their own, and are shown no content.

use crate::harness::simulator::Options;
use crate::harness::{Acr, Setup, raw};
use crate::pull::{REPOSITORY, manifest, seed};

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_pushes_and_deletes_nothing() {
    use larder::config::{AccessRule, Right};
    let acr = Acr::start(Options::private("ci", "pw")).await;
    let rule = AccessRule {
        users: None,
        networks: None,
        repositories: vec![larder::oci::RepositoryPattern::new("**")],
        allow: vec![Right::Push, Right::Delete],
    };
    let larder = Setup::of(&acr).password("ci", "pw").with(|settings| settings.access.rules = vec![rule]).start().await;
    let start = format!("/v2/{REPOSITORY}/blobs/uploads/");
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        for (method, target) in
            [("POST", &start), ("PUT", &manifest(REPOSITORY, "v1")), ("DELETE", &manifest(REPOSITORY, "v1"))]
        {
            let (status, code, message) = larder.call(method, target).line(name, value).send().await.error();
            assert_eq!((status, &*code), (403, "DENIED"), "{method} {name}: {value}");
            assert!(message.contains("web page"), "{message}");
        }
    }
    assert!(acr.log().is_empty(), "upstream hears nothing of it");
    let near = larder.call("POST", &start).line("sec-fetch-site", "same-origin").send().await;
    assert_eq!(near.status, 202);
    assert_eq!(larder.call("POST", &start).send().await.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_that_its_type_is_meant() {
    let acr = Acr::start(Options::public()).await;
    seed(&acr);
    let larder = Setup::of(&acr).start().await;
    for target in ["/v2/", &*manifest(REPOSITORY, "v1"), &*manifest(REPOSITORY, "absent"), "/nowhere", "/v2/_catalog"] {
        assert_eq!(larder.get(target).await.header("x-content-type-options"), Some("nosniff"), "{target}");
    }
    let foreign = larder.call("GET", "/v2/").host("evil.example").send().await;
    assert_eq!((foreign.status.as_u16(), foreign.header("x-content-type-options")), (421, Some("nosniff")));
    for target in ["/healthz", "/metrics", "/nowhere"] {
        assert_eq!(larder.admin_get(target).await.header("x-content-type-options"), Some("nosniff"), "{target}");
    }
    // What is no request never gets as far: such an answer has no bytes whose type could be guessed.
    let many = "X-Many: x\r\n".repeat(200);
    for (request, status) in
        [("nonsense\r\n\r\n".to_owned(), "400"), (format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{many}\r\n"), "431")]
    {
        let answer = String::from_utf8(raw::talk(larder.address, request).await).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("content-length: 0\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_answers_to_names_of_this_machine_only() {
    let acr = Acr::start(Options::public()).await;
    let larder = Setup::of(&acr).start().await;
    for (host, status) in
        [("localhost:5001", "200"), ("127.0.0.1", "200"), ("evil.example", "421"), ("10.0.0.1:5001", "421")]
    {
        let answer =
            raw::talk(larder.admin, format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
                .await;
        assert!(raw::heads(&answer)[0].starts_with(&format!("HTTP/1.1 {status}")), "{host}: {:?}", raw::heads(&answer));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_of_the_request_goes_before_its_host() {
    let acr = Acr::start(Options::public()).await;
    let larder = Setup::of(&acr).start().await;
    for (authority, host, status) in [
        ("evil.example", "localhost", "421"),
        ("localhost:5000", "evil.example", "200"),
        ("LOCALHOST", "localhost", "200"),
    ] {
        let request = format!("GET http://{authority}/v2/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = raw::talk(larder.address, request).await;
        assert!(
            raw::heads(&answer)[0].starts_with(&format!("HTTP/1.1 {status}")),
            "{authority}: {:?}",
            raw::heads(&answer)
        );
    }
}
