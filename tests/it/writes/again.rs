//! An upstream that has lost what it had.

use crate::harness::simulator::{Fault, FaultAnswer, Options, PathClass};
use crate::harness::{Acr, Answer, OTHER_ALIAS, Setup, until};
use crate::writes::common::{Scene, content, pushing_in, uploads};
use larder::oci::Registry;

const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

async fn put_manifest(scene: &Scene, repository: &str, layer: &str) -> Answer {
    let config = scene.push(repository, &bytes::Bytes::from_static(b"{}")).await;
    let put = scene.call("PUT", &format!("/v2/{repository}/manifests/v1")).line("Content-Type", TYPE);
    put.body(manifest(&config, layer)).send().await
}

fn manifest(config: &str, layer: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{TYPE}","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{config}","size":2}},"layers":[{{"mediaType":"application/octet-stream","digest":"{layer}","size":100000}}]}}"#
    )
}

#[tokio::test]
async fn it_gets_back_what_the_repository_has_here_and_the_manifest_once_more() {
    let scene = Scene::new().await;
    let content = content(71, 100_000);
    let layer = scene.push("samples/config", &content).await;
    until("it is in its place", || scene.larder.stores(&layer)).await;
    scene.acr.delete_blob("samples/config", &layer);
    let put = put_manifest(&scene, "samples/config", &layer).await;
    assert_eq!(put.status, 201, "{put:?}");
    assert_eq!(scene.acr.blob("samples/config", &layer), Some(content));
    assert_eq!(uploads(&scene.larder, "again").await, 1);
}

#[tokio::test]
async fn it_does_not_get_what_another_repository_has() {
    let scene = Scene::new().await;
    let secret = scene.push("samples/secret", &content(73, 100_000)).await;
    until("it is in its place", || scene.larder.stores(&secret)).await;
    let (status, code, _) = put_manifest(&scene, "samples/config", &secret).await.error();
    assert_eq!((status, code.as_str()), (400, "MANIFEST_BLOB_UNKNOWN"));
    assert_eq!(scene.acr.blob("samples/config", &secret), None);
}

#[tokio::test]
async fn an_outage_that_giving_back_meets_is_noted() {
    let scene = Scene::new().await;
    let layer = scene.push("samples/config", &content(79, 100_000)).await;
    until("it is in its place", || scene.larder.stores(&layer)).await;
    let config = scene.push("samples/config", &bytes::Bytes::from_static(b"{}")).await;
    scene.acr.delete_blob("samples/config", &layer);
    let condition = || scene.larder.cache.condition(&Registry::new("myacr.azurecr.io"));
    assert!(!condition().away && condition().problem.is_none());
    scene.acr.knobs().turn(|knobs| knobs.faults = vec![Fault::always(PathClass::Uploads, FaultAnswer::empty(503))]);
    let put = scene.call("PUT", "/v2/samples/config/manifests/v1").line("Content-Type", TYPE);
    let (status, code, _) = put.body(manifest(&config, &layer)).send().await.error();
    assert_eq!((status, code.as_str()), (400, "MANIFEST_BLOB_UNKNOWN"));
    let condition = condition();
    assert!(
        condition.away && condition.problem.is_some_and(|problem| problem.contains("503")),
        "an upload met it last"
    );
}

/// Nor does another registry, under the same name.
#[tokio::test]
async fn it_does_not_get_what_another_registry_has() {
    let (acr, other) =
        (Acr::start(Options::private("ci", "secret")).await, Acr::start(Options::private("ci", "secret")).await);
    let setup = pushing_in(Setup::of(&acr).and(&other)).with(|settings| {
        settings.upstreams[1].credential = settings.upstreams[0].credential.clone();
    });
    let scene = Scene { acr, larder: setup.start().await };
    let layer = scene.push("samples/config", &content(74, 100_000)).await;
    until("it is in its place", || scene.larder.stores(&layer)).await;
    let theirs = format!("{OTHER_ALIAS}/samples/config");
    let (status, code, _) = put_manifest(&scene, &theirs, &layer).await.error();
    assert_eq!((status, code.as_str()), (400, "MANIFEST_BLOB_UNKNOWN"));
    assert_eq!(other.blob("samples/config", &layer), None);
}
