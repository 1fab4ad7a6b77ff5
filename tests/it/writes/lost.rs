//! Writes of which nobody knows how they ended: the client is told so, and nothing is claimed that may not be so any more.

use crate::harness::simulator::{Fault, FaultAnswer, PathClass};
use crate::harness::until_async;
use crate::writes::common::{Scene, manifest_of};
use bytes::Bytes;
use std::time::Duration;

const KIND: &str = "application/vnd.oci.image.manifest.v1+json";
const TAG: &str = "/v2/app/manifests/v1";

/// `app:v1`, pulled and good for an hour.
async fn scene(immutable: bool) -> (Scene, Bytes) {
    let scene = Scene::with(|setup| {
        setup.tag_ttl(Duration::from_secs(3600)).upstream(|upstream| {
            if immutable {
                upstream.freshness.immutable_tags = vec!["v*".into()];
            }
        })
    })
    .await;
    let content = manifest_of(&scene.acr, "app", "one");
    scene.acr.push_manifest("app", Some("v1"), KIND, content.clone());
    assert_eq!(scene.larder.get(TAG).await.body, content);
    (scene, content)
}

#[tokio::test]
async fn a_push_whose_answer_is_lost_leaves_the_tag_in_doubt() {
    for immutable in [false, true] {
        let (scene, one) = scene(immutable).await;
        let two = manifest_of(&scene.acr, "app", "two");
        // A gateway gives up although the registry has done it.
        let lost = FaultAnswer::empty(502);
        scene.acr.knobs().turn(|knobs| knobs.faults = vec![Fault::always(PathClass::Manifests, lost).of("PUT")]);
        let put = scene.call("PUT", TAG).line("Content-Type", KIND).body(two.clone()).send().await;
        assert_eq!(put.status, 502, "{put:?}");
        assert_eq!(scene.acr.count(|seen| seen.method == "PUT"), 1, "it is not tried again");
        scene.acr.push_manifest("app", Some("v1"), KIND, two.clone());
        assert_eq!(scene.larder.get(TAG).await.body, two, "the next who asks has upstream asked");
        assert_ne!(one, two);
    }
}

#[tokio::test]
async fn a_deletion_whose_answer_is_lost_leaves_every_tag_of_it_in_doubt() {
    let (scene, one) = scene(false).await;
    scene.acr.knobs().turn(|knobs| {
        knobs.faults = vec![Fault::always(PathClass::Manifests, FaultAnswer::empty(504)).of("DELETE")];
    });
    let digest = crate::harness::sha256(&one);
    assert_eq!(scene.call("DELETE", &format!("/v2/app/manifests/{digest}")).send().await.status, 502);
    scene.acr.delete_manifest("app", &digest);
    assert_eq!(scene.larder.get(TAG).await.status, 404);
}

#[tokio::test]
async fn an_outage_refuses_writes_at_once_and_what_is_stored_stands_in_until_it_is_over() {
    let (scene, one) = scene(false).await;
    scene.acr.stop_listening();
    let two = manifest_of(&scene.acr, "app", "two");
    for _ in 0..5 {
        let put = scene.call("PUT", TAG).line("Content-Type", KIND).body(two.clone()).send().await;
        assert_eq!(put.status, 504, "{put:?}");
        assert_eq!(scene.call("DELETE", TAG).send().await.status, 504);
    }
    let pulled = scene.larder.get(TAG).await;
    assert_eq!((pulled.status.as_u16(), &pulled.body), (200, &one));
    scene.acr.resume_listening();
    until_async("writes go through again", async || {
        let put = scene.call("PUT", TAG).line("Content-Type", KIND).body(two.clone()).send().await;
        put.status == 201
    })
    .await;
    assert_eq!(scene.larder.get(TAG).await.body, two);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_has_pushed_all_the_same() {
    let (scene, _) = scene(false).await;
    let two = manifest_of(&scene.acr, "app", "two");
    scene.acr.knobs().turn(|knobs| knobs.login.delay_ms = 500);
    let call = scene.call("PUT", TAG).line("Content-Type", KIND).body(two.clone());
    let left = tokio::time::timeout(Duration::from_millis(200), call.send()).await;
    assert!(left.is_err(), "the client did not wait");
    until_async("the tag has moved here as it has upstream", async || scene.larder.get(TAG).await.body == two).await;
    let pulled = scene.larder.get(TAG).await;
    assert!(pulled.cache_status().starts_with("larder; hit"), "{}", pulled.cache_status());
}

#[tokio::test]
async fn lists_say_what_was_written_when_the_link_goes_down_right_after() {
    let (scene, one) = scene(false).await;
    for tag in ["v3", "v2"] {
        scene.acr.push_manifest("app", Some(tag), KIND, one.clone());
    }
    assert_eq!(scene.larder.get("/v2/app/tags/list").await.json()["tags"], serde_json::json!(["v1", "v2", "v3"]));
    assert_eq!(scene.larder.get("/v2/_catalog").await.json()["repositories"], serde_json::json!(["app"]));
    let put = |target: &'static str| scene.call("PUT", target).line("Content-Type", KIND).body(one.clone()).send();
    scene.acr.knobs().turn(|knobs| knobs.sparse = true);
    assert_eq!(put("/v2/app/manifests/v22").await.status, 201);
    assert_eq!(put("/v2/a/new/manifests/v1").await.status, 201);
    assert_eq!(scene.call("DELETE", "/acr/v1/app/_tags/v2").send().await.status, 202);
    let Scene { acr, larder } = scene;
    acr.stop_listening();
    let seen = async |larder: &crate::harness::Larder, stale: bool| {
        let tags = larder.get("/v2/app/tags/list").await;
        assert_eq!(tags.json()["tags"], serde_json::json!(["v1", "v22", "v3"]));
        assert_eq!(tags.cache_status().contains("stale"), stale, "{}", tags.cache_status());
        let catalogue = larder.get("/v2/_catalog").await;
        assert_eq!(catalogue.json()["repositories"], serde_json::json!(["a/new", "app"]));
    };
    seen(&larder, true).await;
    let larder = larder.stop().await.start().await;
    seen(&larder, true).await;
    let sealed = larder.stop().await.upstream(|upstream| upstream.sealed = true).start().await;
    seen(&sealed, false).await;
}
