//! What ACR's own API says: kept for seconds, given out when upstream is away, and never what was so before a write.

use crate::harness::scripted::{Scripted, answer};
use crate::harness::simulator::{FaultAnswer, PathClass};
use crate::harness::{Answer, Setup, UPSTREAM, until_async};
use crate::writes::common::{Scene, manifest_of};
use bytes::Bytes;
use std::time::Duration;

const KIND: &str = "application/vnd.oci.image.manifest.v1+json";

/// Answers are good for no longer than a moment, unless a test has them be; upstream is waited for, however busy the machine.
async fn scene(ttl: Duration) -> Scene {
    let scene = Scene::with(|setup| {
        setup.tag_ttl(ttl).upstream(|upstream| upstream.freshness.revalidate_wait = Duration::from_secs(3600))
    })
    .await;
    for (name, tag) in [("a/b", "v1"), ("a/b", "v2"), ("c", "v1")] {
        scene.acr.push_artifact(name, tag, &[("f", "text/plain", Bytes::from(format!("{name}{tag}")))]);
    }
    scene
}

const LONG: Duration = Duration::from_secs(3600);

fn asked(scene: &Scene) -> usize {
    scene.acr.count(|seen| seen.status == 200 && seen.target.starts_with("/acr/v1/"))
}

async fn ok(scene: &Scene, target: &str) -> Answer {
    let answer = scene.larder.get(target).await;
    assert_eq!(answer.status, 200, "{target}: {answer:?}");
    answer
}

/// Names of tags, or of repositories.
fn names(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let text = |value: &serde_json::Value| value.as_str().or_else(|| value["name"].as_str()).unwrap().to_owned();
    let list = json["tags"].as_array().or_else(|| json["repositories"].as_array());
    list.unwrap_or_else(|| panic!("{json}")).iter().map(text).collect()
}

#[tokio::test]
async fn a_question_is_asked_once_in_seconds_and_each_page_is_its_own() {
    let scene = scene(LONG).await;
    let first = ok(&scene, "/acr/v1/a/b/_tags").await;
    assert_eq!(first.cache_status(), "larder; fwd=miss; stored; ttl=10", "not for as long as a tag");
    // In whatever way it is named, it is the same question.
    for target in ["/acr/v1/a/b/_tags", "/acr/v1/a%2Fb/_tags", "/acr/v1/acr/a/b/_tags", "/acr/acr/v1/a/b/_tags?ns=acr"]
    {
        let again = ok(&scene, target).await;
        assert!(again.cache_status().starts_with("larder; hit; ttl="), "{target}: {again:?}");
        assert_eq!((&again.body, again.header("content-type")), (&first.body, first.header("content-type")));
    }
    assert_eq!(asked(&scene), 1);
    for (target, listed) in [
        ("/acr/v1/a/b/_tags?n=1", vec!["v1"]),
        ("/acr/v1/a/b/_tags?n=1&last=v1", vec!["v2"]),
        ("/acr/v1/_catalog", vec!["a/b", "c"]),
        ("/acr/v1/_catalog?n=1", vec!["a/b"]),
    ] {
        let (one, two) = (ok(&scene, target).await, ok(&scene, target).await);
        assert_eq!((names(&one), &one.body), (listed.into_iter().map(str::to_owned).collect(), &two.body), "{target}");
        assert_eq!(one.header("link"), two.header("link"), "{target}");
        assert!(two.cache_status().starts_with("larder; hit"), "{two:?}");
    }
    assert_eq!(asked(&scene), 5);
    let call = scene.call("GET", "/acr/v1/_catalog").line("Cache-Control", "no-cache");
    assert!(call.send().await.cache_status().starts_with("larder; fwd=miss"));
    assert_eq!(asked(&scene), 6);
    let hits = format!("larder_cache_requests_total{{kind=\"acr\",result=\"hit\",upstream=\"{UPSTREAM}\"}}");
    until_async("the hits are counted", async || scene.larder.metric(&hits).await == 8).await;
}

#[tokio::test]
async fn what_is_out_of_date_stands_in_while_upstream_is_away() {
    let scene = scene(Duration::ZERO).await;
    let digest = scene.acr.push_artifact("c", "v1", &[("f", "text/plain", Bytes::from_static(b"x"))]).digest;
    let targets = [
        "/acr/v1/_catalog".to_owned(),
        "/acr/v1/_catalog?n=1".to_owned(),
        "/acr/v1/c".to_owned(),
        "/acr/v1/c/_tags?orderby=timedesc".to_owned(),
        "/acr/v1/c/_tags/v1".to_owned(),
        "/acr/v1/c/_manifests".to_owned(),
        format!("/acr/v1/c/_manifests/{digest}"),
    ];
    let mut before = Vec::new();
    for target in &targets {
        before.push(ok(&scene, target).await);
    }
    scene.acr.stop_listening();
    for (target, before) in targets.iter().zip(&before) {
        let stale = ok(&scene, target).await;
        assert_eq!((&stale.body, stale.header("link")), (&before.body, before.header("link")), "{target}");
        assert!(stale.cache_status().ends_with("detail=stale"), "{stale:?}");
        assert!(stale.header("warning").unwrap().contains(UPSTREAM), "{stale:?}");
    }
    assert_eq!(scene.larder.get("/acr/v1/c/_tags").await.status, 504, "another question");
    scene.acr.push_artifact("c", "v9", &[("f", "text/plain", Bytes::from_static(b"new"))]);
    scene.acr.resume_listening();
    until_async("upstream's word counts again", async || {
        names(&ok(&scene, "/acr/v1/c/_tags?orderby=timedesc").await).contains(&"v9".to_owned())
    })
    .await;
    // What is there no more is not made up, now or later.
    assert_eq!(scene.larder.get("/acr/v1/c/_tags/v1").await.status, 200);
    scene.acr.delete_tag("c", "v1");
    assert_eq!(scene.larder.get("/acr/v1/c/_tags/v1").await.status, 404);
    scene.acr.stop_listening();
    assert_eq!(scene.larder.get("/acr/v1/c/_tags/v1").await.status, 504);
}

#[tokio::test]
async fn what_a_write_has_changed_is_asked_for_anew_and_never_given_out_as_it_was() {
    let scene = scene(LONG).await;
    let tags = "/acr/v1/a/b/_tags";
    assert_eq!(names(&ok(&scene, tags).await), ["v1", "v2"]);
    let other = ok(&scene, "/acr/v1/c/_tags").await;

    let manifest = manifest_of(&scene.acr, "a/b", "three");
    let put = scene.call("PUT", "/v2/a/b/manifests/v3").line("Content-Type", KIND).body(manifest).send().await;
    assert_eq!(put.status, 201);
    assert_eq!(names(&ok(&scene, tags).await), ["v1", "v2", "v3"]);
    assert_eq!(scene.call("DELETE", "/acr/v1/a/b/_tags/v1").send().await.status, 202);
    assert_eq!(names(&ok(&scene, tags).await), ["v2", "v3"]);
    assert_eq!(scene.larder.get("/acr/v1/a/b/_tags/v1").await.status, 404);

    let lock = "/acr/v1/a/b/_tags/v2";
    let locked =
        async |scene: &Scene| ok(scene, lock).await.json()["tag"]["changeableAttributes"]["writeEnabled"].clone();
    assert_eq!(locked(&scene).await, true);
    let change = r#"{"writeEnabled":false}"#;
    let patched = scene.call("PATCH", lock).line("Content-Type", "application/json").body(change).send().await;
    assert_eq!((patched.status.as_u16(), patched.cache_status()), (200, "larder; fwd=bypass"));
    assert_eq!(locked(&scene).await, false);

    let again = ok(&scene, "/acr/v1/c/_tags").await;
    assert!(
        again.body == other.body && again.cache_status().starts_with("larder; hit"),
        "another repository's: {again:?}"
    );
    ok(&scene, tags).await;
    assert_eq!(scene.call("DELETE", "/acr/v1/a/b/_tags/v3").send().await.status, 202);
    scene.acr.stop_listening();
    assert_eq!(scene.larder.get(tags).await.status, 504, "nobody knows it, and the old one is wrong");
}

#[tokio::test]
async fn the_repositories_are_those_that_there_are_after_a_write() {
    let scene = scene(LONG).await;
    let listed = async |scene: &Scene| names(&ok(scene, "/acr/v1/_catalog").await);
    let push = async |name: &str| {
        let manifest = manifest_of(&scene.acr, name, "content");
        let target = format!("/v2/{name}/manifests/v1");
        let put = scene.call("PUT", &target).line("Content-Type", KIND).body(manifest).send().await;
        assert_eq!(put.status, 201);
    };
    assert_eq!(listed(&scene).await, ["a/b", "c"]);
    push("b").await;
    assert_eq!(listed(&scene).await, ["a/b", "b", "c"]);
    // A push to what is listed already changes no list of names, and both lists are good still.
    assert_eq!(names(&ok(&scene, "/v2/_catalog").await), ["a/b", "b", "c"]);
    assert_eq!(scene.call("DELETE", "/acr/v1/b").send().await.status, 202);
    assert_eq!(listed(&scene).await, ["a/b", "c"]);

    // One that was deleted behind larder's back, which lists it still, and is pushed again.
    assert_eq!(names(&ok(&scene, "/v2/_catalog").await), ["a/b", "c"]);
    scene.acr.delete_repository("c");
    let call = scene.call("GET", "/acr/v1/_catalog").line("Cache-Control", "no-cache");
    assert_eq!(names(&call.send().await), ["a/b"]);
    push("c").await;
    assert_eq!(listed(&scene).await, ["a/b", "c"]);
}

#[tokio::test]
async fn what_was_hidden_is_there_again_as_soon_as_it_is_shown() {
    let scene = scene(LONG).await;
    let tag = "/v2/c/manifests/v1";
    assert_eq!(scene.larder.get(tag).await.status, 200);
    for target in ["/acr/v1/c/_tags/v1", "/acr/v1/c"] {
        for (change, status) in [("false", None), ("true", Some(200))] {
            let change = format!(r#"{{"readEnabled":{change}}}"#);
            let call = scene.call("PATCH", target).line("Content-Type", "application/json");
            assert_eq!(call.body(change).send().await.status, 200);
            let answer = scene.larder.get(tag).await;
            assert_eq!((answer.status == 200).then_some(200), status, "{target}: {answer:?}");
        }
    }
}

/// Who may not read metadata may pull all the same.
#[tokio::test]
async fn a_refusal_is_about_nothing_else() {
    let scene = scene(Duration::ZERO).await;
    let (question, tag) = ("/acr/v1/c/_tags", "/v2/c/manifests/v1");
    ok(&scene, question).await;
    ok(&scene, tag).await;
    let refused = FaultAnswer::Oci { status: 403, code: "DENIED".into(), message: "no metadata for you".into() };
    scene.acr.knobs().fail(PathClass::Acr, refused);
    let (status, code, message) = scene.larder.get(question).await.error();
    assert_eq!((status, &*code), (403, "DENIED"));
    assert!(message.contains("no metadata for you"), "{message}");
    ok(&scene, tag).await;
    scene.acr.stop_listening();
    assert_eq!(scene.larder.get(question).await.status, 504, "what was refused is not given out");
    assert!(ok(&scene, tag).await.cache_status().ends_with("stale"));
}

#[tokio::test]
async fn an_answer_of_a_stand_in_that_names_no_protocol_is_one_and_a_page_for_people_is_none() {
    let registry = Scripted::start(|line| match line {
        "GET /acr/v1/a HTTP/1.1" => answer("200 OK", &["Content-Type: application/json"], r#"{"imageName":"a"}"#),
        _ => answer("200 OK", &["Content-Type: text/html"], "<p>log in"),
    })
    .await;
    let larder = Setup::at(&registry.url()).start().await;
    assert_eq!(larder.get("/acr/v1/a").await.json()["imageName"], "a");
    let (status, _, message) = larder.get("/acr/v1/b").await.error();
    assert_eq!(status, 502, "{message}");
}
