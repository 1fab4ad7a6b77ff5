//! ACR's own API, asked with larder's login: as upstream says it, in the client's way of naming.

use crate::harness::simulator::Options;
use crate::harness::{Acr, Setup};
use crate::writes::common::{Scene, allow_everything, pushing};
use bytes::Bytes;
use larder::config::{AccessRule, Right};
use larder::oci::RepositoryPattern;

async fn scene() -> Scene {
    let scene = Scene::new().await;
    for (name, tag) in [("a/b", "v1"), ("a/b", "v2"), ("c", "v1"), ("d", "v1")] {
        scene.acr.push_artifact(name, tag, &[("f", "text/plain", Bytes::from(format!("{name}{tag}")))]);
    }
    scene
}

#[tokio::test]
async fn everything_that_can_be_looked_at_comes_as_upstream_says_it() {
    let scene = scene().await;
    let digest = scene.larder.get("/v2/a/b/manifests/v1").await.header("docker-content-digest").unwrap().to_owned();
    for path in [
        "_catalog".to_owned(),
        "a/b".to_owned(),
        "a%2Fb".to_owned(),
        "a/b/_tags".to_owned(),
        "a/b/_tags/v1".to_owned(),
        "a/b/_manifests".to_owned(),
        format!("a/b/_manifests/{digest}"),
        format!("a%2Fb/_manifests/{}", digest.replace(':', "%3A")),
    ] {
        for target in
            [format!("/acr/v1/{path}"), format!("/acr/acr/v1/{path}"), format!("/acr/v1/{path}?ns=myacr.azurecr.io")]
        {
            let answer = scene.larder.get(&target).await;
            assert_eq!(answer.status, 200, "{target}: {answer:?}");
            assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"), "{target}");
            let json = answer.json();
            assert!(json["imageName"] == "a/b" || json["repositories"].is_array(), "{target}: {json}");
        }
    }
    let by_component = scene.larder.get("/acr/v1/acr/a/b/_tags").await;
    assert_eq!(by_component.json()["tags"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn pages_are_linked_in_the_client_s_way_of_naming() {
    let scene = scene().await;
    for (target, link) in [
        ("/acr/v1/_catalog?n=1", "</acr/v1/_catalog?last=a%2Fb&n=1&orderby=>; rel=\"next\""),
        ("/acr/acr/v1/_catalog?n=1", "</acr/acr/v1/_catalog?last=a%2Fb&n=1&orderby=>; rel=\"next\""),
        ("/acr/v1/acr/a/b/_tags?n=1", "</acr/v1/acr/a/b/_tags?last=v1&n=1&orderby=>; rel=\"next\""),
        (
            "/acr/v1/a/b/_tags?ns=myacr.azurecr.io&n=1",
            "</acr/v1/a/b/_tags?last=v1&n=1&orderby=&ns=myacr%2Eazurecr%2Eio>; rel=\"next\"",
        ),
    ] {
        let answer = scene.larder.get(target).await;
        assert_eq!(answer.header("link"), Some(link), "{target}");
        let next = link.split(['<', '>']).nth(1).unwrap();
        assert_eq!(scene.larder.get(next).await.status, 200, "{next}");
    }
    scene.larder.get("/acr/v1/a/b/_tags?orderby=timedesc&n=1&ns=myacr.azurecr.io").await;
    let last = scene.acr.log().pop().unwrap();
    assert_eq!(
        last.target, "/acr/v1/a/b/_tags?orderby=timedesc&n=1",
        "the query reaches upstream, but for what is larder's own"
    );
}

#[tokio::test]
async fn what_is_not_there_is_said_in_upstream_s_words() {
    let scene = scene().await;
    let (status, code, message) = scene.larder.get("/acr/v1/none").await.error();
    assert_eq!((status, &*code), (404, "NAME_UNKNOWN"));
    assert!(message.contains("none"), "{message}");
    let (status, code, message) = scene.call("DELETE", "/acr/v1/c/_tags/v9").send().await.error();
    assert_eq!((status, &*code, &*message), (404, "TAG_UNKNOWN", "the specified tag does not exist"));
}

#[tokio::test]
async fn a_lock_is_set_and_one_that_hides_is_respected_at_once() {
    let scene = scene().await;
    assert_eq!(scene.larder.get("/v2/c/manifests/v1").await.status, 200);
    let patch = async |target: &str, change: &'static str| {
        let call = scene.call("PATCH", target).line("Content-Type", "application/json");
        let answer = call.body(change).send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let locked = patch("/acr/v1/c/_tags/v1", r#"{"writeEnabled":false}"#).await;
    assert_eq!(locked["tag"]["changeableAttributes"]["writeEnabled"], false);
    let asked = scene.acr.manifest_requests("GET");
    assert!(scene.larder.get("/v2/c/manifests/v1").await.cache_status().starts_with("larder; hit"));
    assert_eq!(scene.acr.manifest_requests("GET"), asked, "what may be read stays here");
    patch("/acr/v1/c/_tags/v1", r#"{"readEnabled":false}"#).await;
    let hidden = scene.larder.get("/v2/c/manifests/v1").await;
    assert!(hidden.status.is_client_error(), "{hidden:?}");
}

#[tokio::test]
async fn who_may_not_pull_a_repository_sees_nothing_of_it() {
    let acr = Acr::start(Options::private("ci", "secret")).await;
    for name in ["open/x", "secret/y"] {
        acr.push_artifact(name, "v1", &[("f", "text/plain", Bytes::from_static(b"x"))]);
    }
    let setup = pushing(&acr).with(|settings| {
        settings.access.rules = vec![AccessRule {
            users: None,
            networks: Some(vec!["203.0.113.0/24".parse().unwrap()]),
            repositories: vec![RepositoryPattern::new("myacr.azurecr.io/secret/**")],
            allow: vec![Right::Pull],
        }];
    });
    let larder = setup.start().await;
    assert_eq!(larder.get("/acr/v1/_catalog").await.json(), serde_json::json!({"repositories": ["open/x"]}));
    assert_eq!(larder.get("/acr/v1/open/x/_tags").await.status, 200);
    for target in ["/acr/v1/secret/y", "/acr/v1/secret/y/_tags", "/acr/v1/secret/y/_tags/v1", "/acr/v1/acr/secret/y"] {
        let (status, code, _) = larder.get(target).await.error();
        assert_eq!((status, &*code), (403, "DENIED"), "{target}");
    }
    // Without a rule for it, nothing is changed either.
    for (method, target) in
        [("DELETE", "/acr/v1/open/x"), ("PATCH", "/acr/v1/open/x"), ("DELETE", "/acr/v1/open/x/_tags/v1")]
    {
        let (status, code, _) = larder.call(method, target).send().await.error();
        assert_eq!((status, &*code), (403, "DENIED"), "{method} {target}");
    }
    assert_eq!(acr.count(|seen| seen.method == "DELETE" || seen.method == "PATCH"), 0);
}

#[tokio::test]
async fn a_registry_without_this_api_and_a_sealed_one_say_so() {
    let acr = Acr::start(Options::private("ci", "secret")).await;
    let sealed = pushing(&acr).upstream(|upstream| upstream.sealed = true).start().await;
    let (status, _, message) = sealed.get("/acr/v1/_catalog").await.error();
    assert_eq!(status, 404);
    assert!(message.contains("sealed"), "{message}");
    for (method, target) in [
        ("DELETE", "/acr/v1/a"),
        ("PATCH", "/acr/v1/a"),
        ("DELETE", "/v2/a/manifests/v1"),
        ("PUT", "/v2/a/manifests/v1"),
    ] {
        let (status, code, message) = sealed.call(method, target).send().await.error();
        assert_eq!((status, &*code), (403, "DENIED"), "{method} {target}");
        assert!(message.contains("is sealed here"), "{message}");
    }
    assert_eq!(acr.log().len(), 0);
    let away = Setup::at("http://127.0.0.1:9").with(allow_everything).start().await;
    for (method, target) in [
        ("GET", "/acr/v1/_catalog"),
        ("DELETE", "/acr/v1/a"),
        ("DELETE", "/v2/a/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("PUT", "/v2/a/manifests/v1"),
    ] {
        assert_eq!(away.call(method, target).send().await.status, 504, "{method} {target}");
    }
}
