//! Answers that upstream gave before a write and that arrive after it: who asked before gets them, who asks after never does.

use crate::harness::{Answer, sha256, until};
use crate::writes::common::{Scene, manifest_of};
use bytes::Bytes;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const KIND: &str = "application/vnd.oci.image.manifest.v1+json";
const READERS: usize = 4;
/// No question is asked again earlier than this.
const SOONEST_AGAIN: Duration = Duration::from_secs(1);

/// Tags and lists are never good for longer than a moment, so that every reader has upstream asked.
async fn scene() -> Scene {
    Scene::with(|setup| {
        setup.tag_ttl(Duration::ZERO).upstream(|upstream| {
            upstream.freshness.revalidate_wait = Duration::from_secs(3600);
            upstream.freshness.negative_ttl = Duration::from_secs(3600);
        })
    })
    .await
}

/// Readers that have had upstream asked and wait for its answer, which is made already.
async fn readers(scene: &Scene, target: &str, method: &'static str) -> JoinSet<Answer> {
    scene.acr.clear_log();
    scene.acr.knobs().turn(|knobs| knobs.hold_reads = true);
    let readers = begin(scene, target, method);
    made(scene, 1).await;
    readers
}

fn begin(scene: &Scene, target: &str, method: &'static str) -> JoinSet<Answer> {
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        readers.spawn(scene.larder.call(method, target).send());
    }
    readers
}

/// Waits for upstream to have made so many answers to GET and HEAD.
async fn made(scene: &Scene, count: usize) {
    let read =
        |seen: &crate::harness::simulator::Seen| seen.method != "PUT" && seen.method != "DELETE" && seen.status != 0;
    until("upstream has made its answer", || scene.acr.count(read) >= count).await;
}

async fn let_go(scene: &Scene, readers: JoinSet<Answer>) -> Vec<Answer> {
    scene.acr.knobs().turn(|knobs| knobs.hold_reads = false);
    readers.join_all().await
}

async fn put(scene: &Scene, target: &str, content: &Bytes) {
    let put = scene.call("PUT", target).line("Content-Type", KIND).body(content.clone()).send().await;
    assert_eq!(put.status, 201, "{put:?}");
}

#[tokio::test]
async fn a_revalidation_that_began_before_a_push_does_not_bring_the_old_tag_back() {
    for method in ["GET", "HEAD"] {
        let scene = scene().await;
        let (one, two) = (manifest_of(&scene.acr, "app", "one"), manifest_of(&scene.acr, "app", "two"));
        scene.acr.push_manifest("app", Some("v1"), KIND, one.clone());
        assert_eq!(scene.larder.get("/v2/app/manifests/v1").await.body, one);
        let before = readers(&scene, "/v2/app/manifests/v1", method).await;
        put(&scene, "/v2/app/manifests/v1", &two).await;
        let after = begin(&scene, "/v2/app/manifests/v1", method);
        made(&scene, 2).await;
        for answer in let_go(&scene, before).await {
            assert_eq!(answer.status, 200, "who asked before has an answer");
        }
        for answer in after.join_all().await {
            assert_eq!(answer.header("docker-content-digest"), Some(&*sha256(&two)), "{method}: {answer:?}");
        }
        scene.acr.stop_listening();
        assert_eq!(scene.larder.get("/v2/app/manifests/v1").await.body, two, "what is kept is what was pushed");
    }
}

#[tokio::test]
async fn a_fetch_and_an_absence_that_began_before_a_push_are_not_kept() {
    let scene = scene().await;
    let (one, two) = (manifest_of(&scene.acr, "app", "one"), manifest_of(&scene.acr, "app", "two"));
    scene.acr.push_manifest("app", Some("other"), KIND, one.clone());
    assert_eq!(scene.larder.get("/v2/app/manifests/other").await.status, 200);
    let before = readers(&scene, "/v2/app/manifests/new", "GET").await;
    put(&scene, "/v2/app/manifests/new", &two).await;
    assert!(let_go(&scene, before).await.iter().all(|answer| answer.status == 404), "it was not there then");
    assert_eq!(scene.larder.get("/v2/app/manifests/new").await.body, two);

    scene.acr.push_manifest("app", Some("cold"), KIND, one);
    let before = readers(&scene, "/v2/app/manifests/cold", "GET").await;
    put(&scene, "/v2/app/manifests/cold", &two).await;
    assert!(let_go(&scene, before).await.iter().all(|answer| answer.status == 200));
    scene.acr.stop_listening();
    assert_eq!(scene.larder.get("/v2/app/manifests/cold").await.body, two);
}

#[tokio::test]
async fn lists_that_were_begun_before_a_write_are_joined_and_kept_by_nobody() {
    let scene = scene().await;
    let subject = scene.acr.push_artifact("app", "v1", &[("f", "text/plain", Bytes::from_static(b"x"))]).digest;
    let attached: Bytes = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{KIND}\",\"artifactType\":\"sbom\",\"layers\":[],\
         \"subject\":{{\"mediaType\":\"{KIND}\",\"digest\":\"{subject}\",\"size\":1}}}}"
    )
    .into();
    let (tags, referrers) = ("/v2/app/tags/list".to_owned(), format!("/v2/app/referrers/{subject}"));
    let catalogue = "/v2/_catalog".to_owned();
    for (list, target, content) in [
        (tags, "/v2/app/manifests/v2".to_owned(), manifest_of(&scene.acr, "app", "two")),
        (referrers, format!("/v2/app/manifests/{}", sha256(&attached)), attached),
        (catalogue, "/v2/fresh/manifests/v1".to_owned(), format!("{{\"mediaType\":\"{KIND}\",\"layers\":[]}}").into()),
        ("/acr/v1/app/_tags".to_owned(), "/v2/app/manifests/v3".to_owned(), manifest_of(&scene.acr, "app", "three")),
        (
            "/acr/v1/_catalog".to_owned(),
            "/v2/fresher/manifests/v1".to_owned(),
            format!("{{\"mediaType\":\"{KIND}\",\"layers\":[]}}").into(),
        ),
    ] {
        let old = scene.larder.get(&list).await.body;
        let before = readers(&scene, &list, "GET").await;
        put(&scene, &target, &content).await;
        let after = begin(&scene, &list, "GET");
        made(&scene, 2).await;
        for answer in let_go(&scene, before).await {
            assert_eq!((answer.status.as_u16(), &answer.body), (200, &old), "{list}: who asked before");
        }
        let mut new = None;
        for answer in after.join_all().await {
            assert_eq!(answer.status, 200);
            assert_ne!(answer.body, old, "{list}: who asked after");
            new = Some(answer.body);
        }
        assert_eq!(Some(scene.larder.get(&list).await.body), new, "{list}");
    }
    let tags = scene.larder.get("/v2/app/tags/list").await;
    scene.acr.stop_listening();
    let kept = scene.larder.get("/v2/app/tags/list").await;
    assert_eq!((kept.status.as_u16(), kept.body), (200, tags.body), "the new one is kept");
}

#[tokio::test]
async fn a_pull_that_began_before_a_deletion_brings_nothing_back() {
    let scene = scene().await;
    let artifact = scene.acr.push_artifact("app", "v1", &[("f", "text/plain", Bytes::from_static(b"x"))]);
    let (digest, layer) = (&artifact.digest, &artifact.layers[0]);
    let list = scene.larder.get("/v2/app/tags/list").await;
    assert_eq!(list.status, 200);
    let by_digest = format!("/v2/app/manifests/{digest}");
    let blob = format!("/v2/app/blobs/{layer}");
    for target in [&by_digest, &blob] {
        let begun = Instant::now();
        let before = readers(&scene, target, "HEAD").await;
        let deleted = scene.call("DELETE", target).send().await;
        assert_eq!(deleted.status, 202, "{deleted:?}");
        // A question that has waited for longer is asked again when the registry answers another one: then they hear the news.
        let at_once = begun.elapsed() < SOONEST_AGAIN;
        let heard = let_go(&scene, before).await;
        let before_it = heard.iter().filter(|answer| answer.status == 200).count();
        let after_it = heard.iter().filter(|answer| answer.status == 404).count();
        assert_eq!(before_it + if at_once { 0 } else { after_it }, heard.len(), "{target}: {heard:?}");
        for method in ["GET", "HEAD"] {
            assert_eq!(scene.call(method, target).send().await.status, 404, "{method} {target}");
        }
    }
}

#[tokio::test]
async fn pushes_of_the_same_tag_at_the_same_time_leave_what_upstream_has() {
    let scene = scene().await;
    let contents: Vec<Bytes> =
        (0..8).map(|number| manifest_of(&scene.acr, "app", &format!("content {number}"))).collect();
    for _ in 0..5 {
        let mut pushes = JoinSet::new();
        for content in &contents {
            let call = scene.call("PUT", "/v2/app/manifests/v1").line("Content-Type", KIND);
            pushes.spawn(call.body(content.clone()).send());
        }
        assert!(pushes.join_all().await.iter().all(|answer| answer.status == 201));
        let here = scene.larder.head("/v2/app/manifests/v1").await;
        let listed = scene.larder.get("/acr/v1/app/_tags/v1").await.json();
        assert_eq!(here.header("docker-content-digest"), listed["tag"]["digest"].as_str());
    }
}
