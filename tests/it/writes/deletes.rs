//! What has been deleted through larder is gone at once, in an outage and for a sealed larder too; what could not be is still there.

use crate::harness::simulator::Artifact;
use crate::harness::{Larder, until};
use crate::writes::common::Scene;
use bytes::Bytes;
use std::time::Duration;

const TAG: &str = "/v2/app/manifests/v1";
const KIND: &str = "application/vnd.oci.image.manifest.v1+json";

/// `app:v1` and `app:again`, which are the same, pulled with the layer; tags and referrers have been listed.
async fn scene() -> (Scene, Artifact) {
    let scene = Scene::with(|setup| setup.tag_ttl(Duration::from_secs(3600))).await;
    let artifact = scene.acr.push_artifact("app", "v1", &[("f", "text/plain", Bytes::from_static(b"content"))]);
    scene.acr.push_manifest("app", Some("again"), KIND, artifact.manifest.clone());
    let (digest, layer) = (&artifact.digest, &artifact.layers[0]);
    for target in [
        TAG.to_owned(),
        "/v2/app/manifests/again".to_owned(),
        format!("/v2/app/manifests/{digest}"),
        format!("/v2/app/blobs/{layer}"),
        "/v2/app/tags/list".to_owned(),
        format!("/v2/app/referrers/{digest}"),
    ] {
        assert_eq!(scene.larder.get(&target).await.status, 200, "{target}");
    }
    until("the layer is stored", || scene.larder.stores(layer)).await;
    (scene, artifact)
}

async fn gone(larder: &Larder, target: &str) {
    for answer in [larder.get(target).await, larder.head(target).await] {
        assert_eq!(answer.status, 404, "{target}: {answer:?}");
    }
}

/// Whatever happens to upstream, what is gone stays gone, and what is there stays there.
async fn for_good(scene: Scene, absent: &[&str], present: &[&str]) {
    let Scene { acr, larder } = scene;
    let seen = async |larder: &Larder| {
        for target in absent {
            gone(larder, target).await;
        }
        for target in present {
            assert_eq!(larder.get(target).await.status, 200, "{target}");
        }
    };
    seen(&larder).await;
    acr.stop_listening();
    seen(&larder).await;
    let setup = larder.stop().await.upstream(|upstream| upstream.sealed = true);
    seen(&setup.start().await).await;
}

#[tokio::test]
async fn a_manifest_goes_with_all_its_tags() {
    let (scene, artifact) = scene().await;
    let by_digest = format!("/v2/app/manifests/{}", artifact.digest);
    let deleted = scene.call("DELETE", &by_digest).send().await;
    assert_eq!((deleted.status.as_u16(), deleted.header("content-length")), (202, Some("0")), "{deleted:?}");
    assert_eq!(deleted.cache_status(), "larder; fwd=bypass");
    assert_eq!(scene.larder.get("/v2/app/tags/list").await.json()["tags"].as_array().map_or(0, Vec::len), 0);
    for_good(scene, &[TAG, "/v2/app/manifests/again", &by_digest], &[]).await;
}

#[tokio::test]
async fn a_tag_goes_alone_by_either_api() {
    for target in [TAG, "/acr/v1/app/_tags/v1"] {
        let (scene, artifact) = scene().await;
        assert_eq!(scene.call("DELETE", target).send().await.status, 202);
        assert_eq!(scene.larder.get("/v2/app/tags/list").await.json()["tags"], serde_json::json!(["again"]));
        let by_digest = format!("/v2/app/manifests/{}", artifact.digest);
        for_good(scene, &[TAG], &["/v2/app/manifests/again", &by_digest]).await;
    }
}

#[tokio::test]
async fn a_blob_goes_although_a_manifest_names_it_and_comes_back_when_upstream_has_it_again() {
    let (scene, artifact) = scene().await;
    let blob = format!("/v2/app/blobs/{}", artifact.layers[0]);
    assert_eq!(scene.call("DELETE", &blob).send().await.status, 202);
    gone(&scene.larder, &blob).await;
    // Pulling the manifest anew vouches for nothing that is gone.
    let moved = scene.acr.push_manifest(
        "app",
        Some("other"),
        KIND,
        format!("{} ", artifact.manifest.escape_ascii()).replace("\\\"", "\""),
    );
    assert_eq!(scene.larder.get(&format!("/v2/app/manifests/{moved}")).await.status, 200);
    for_good(scene, &[&blob], &[TAG]).await;

    let (scene, artifact) = self::scene().await;
    let setup =
        |setup: crate::harness::Setup| setup.upstream(|upstream| upstream.freshness.negative_ttl = Duration::ZERO);
    let setup = setup(scene.larder.stop().await);
    let larder = setup.start().await;
    assert_eq!(larder.call("DELETE", &blob).send().await.status, 202);
    gone(&larder, &blob).await;
    scene.acr.push_blob("app", Bytes::from_static(b"content"));
    let answer = larder.get(&blob).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "content"));
    assert!(larder.get(&blob).await.cache_status().starts_with("larder; hit"));
    drop(artifact);
}

#[tokio::test]
async fn a_repository_goes_with_all_that_is_in_it() {
    let (scene, artifact) = scene().await;
    let deleted = scene.call("DELETE", "/acr/v1/app").send().await;
    assert_eq!(deleted.status, 202);
    assert_eq!(deleted.json()["tagsDeleted"], serde_json::json!(["again", "v1"]), "upstream's own words");
    let by_digest = format!("/v2/app/manifests/{}", artifact.digest);
    for_good(scene, &[TAG, "/v2/app/manifests/again", &by_digest], &[]).await;
}

#[tokio::test]
async fn what_was_attached_and_is_deleted_is_no_referrer_any_more() {
    for pulled in [true, false] {
        let (scene, artifact) = scene().await;
        let content = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{KIND}\",\"artifactType\":\"sbom\",\"layers\":[],\
             \"subject\":{{\"mediaType\":\"{KIND}\",\"digest\":\"{}\",\"size\":1}}}}",
            artifact.digest
        );
        let attached = format!("/v2/app/manifests/{}", scene.acr.push_manifest("app", None, KIND, content));
        let list = format!("/v2/app/referrers/{}", artifact.digest);
        let listed = async || scene.larder.call("GET", &list).line("Cache-Control", "no-cache").send().await;
        assert_eq!(listed().await.json()["manifests"].as_array().unwrap().len(), 1);
        if pulled {
            assert_eq!(scene.larder.get(&attached).await.status, 200);
        }
        assert_eq!(scene.call("DELETE", &attached).send().await.status, 202);
        let left = scene.larder.get(&list).await;
        assert_eq!(left.json()["manifests"].as_array().unwrap().len(), 0, "pulled before: {pulled}");
    }
}

#[tokio::test]
async fn what_upstream_does_not_have_is_forgotten_and_said() {
    let (scene, artifact) = scene().await;
    scene.acr.delete_manifest("app", &artifact.digest);
    let by_digest = format!("/v2/app/manifests/{}", artifact.digest);
    assert_eq!(scene.larder.get(&by_digest).await.status, 200, "nobody has told larder");
    let (status, code, _) = scene.call("DELETE", &by_digest).send().await.error();
    assert_eq!((status, &*code), (404, "MANIFEST_UNKNOWN"));
    gone(&scene.larder, &by_digest).await;
    gone(&scene.larder, TAG).await;
}

#[tokio::test]
async fn a_deleted_tag_can_be_pushed_again_at_once() {
    let (scene, artifact) = scene().await;
    assert_eq!(scene.call("DELETE", TAG).send().await.status, 202);
    gone(&scene.larder, TAG).await;
    let put = scene.call("PUT", TAG).line("Content-Type", KIND).body(artifact.manifest.clone()).send().await;
    assert_eq!(put.status, 201);
    assert_eq!(scene.larder.get(TAG).await.body, artifact.manifest);
}
