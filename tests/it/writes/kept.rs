//! What stays here of an upload, and what happens where nothing can.

use crate::harness::{sha256, sha512, until};
use crate::writes::common::{MIB, Scene, content, created, ending, location, uploads};
use bytes::Bytes;

async fn pulls(scene: &Scene, digest: &str, content: &Bytes) {
    let pulled = scene.larder.get(&format!("/v2/samples/config/blobs/{digest}")).await;
    assert_eq!((pulled.status.as_u16(), &pulled.body), (200, content));
}

#[tokio::test]
async fn a_store_without_room_keeps_nothing_and_fails_nothing() {
    let scene = Scene::with(|setup| setup.with(|settings| settings.store.max_size = Some(2 << 20))).await;
    let content = content(41, 3 * MIB);
    let digest = scene.push("samples/config", &content).await;
    // Without a length it is noticed when the room is used up.
    let begun = scene.begin("samples/config").await;
    let (sender, pieces) = tokio::sync::mpsc::channel(64);
    for piece in content.chunks(100_000) {
        sender.send(Ok(Bytes::copy_from_slice(piece))).await.unwrap();
    }
    drop(sender);
    let patched = scene.call("PATCH", &begun).pieces(pieces).send().await;
    created(&scene.call("PUT", &ending(&location(&patched), &digest)).send().await, "samples/config", &digest);
    assert_eq!(uploads(&scene.larder, "unkept").await, 2);
    pulls(&scene, &digest, &content).await;
    assert_eq!(scene.downloads(), 1);
}

#[tokio::test]
async fn more_uploads_than_are_kept_go_through_all_the_same() {
    let scene = Scene::with(|setup| setup.with(|settings| settings.server.limits.uploads = 1)).await;
    let (first, second) = (content(42, 200_000), content(44, 1000));
    let begun = scene.begin("samples/config").await;
    let at = location(&scene.call("PATCH", &begun).body(first.slice(..100_000)).send().await);
    scene.push("samples/config", &second).await;
    assert_eq!(uploads(&scene.larder, "unkept").await, 1);
    let digest = sha256(&first);
    let put = scene.call("PUT", &ending(&at, &digest)).body(first.slice(100_000..)).send().await;
    created(&put, "samples/config", &digest);
    assert_eq!(uploads(&scene.larder, "stored").await, 1);
    // The place is free again.
    scene.push("samples/config", &content(46, 1000)).await;
    assert_eq!(uploads(&scene.larder, "stored").await, 2);
}

#[tokio::test]
async fn a_copy_that_is_not_what_upstream_took_is_never_a_blob() {
    let scene = Scene::new().await;
    let content = content(48, 300_000);
    let digest = sha512(&content);
    let begun = scene.begin("samples/config").await;
    let at = location(&scene.call("PATCH", &begun).body(content.clone()).send().await);
    // A disk that returns other bytes than it was given.
    let folder = scene.larder.setup.store().join("ingest/tmp");
    let file = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    created(&scene.call("PUT", &ending(&at, &digest)).send().await, "samples/config", &digest);
    assert_eq!(uploads(&scene.larder, "mismatch").await, 1);
    assert!(!scene.larder.stores(&digest));
    pulls(&scene, &digest, &content).await;
}

#[tokio::test]
async fn what_upstream_refuses_is_not_kept() {
    let scene = Scene::new().await;
    let content = content(50, 100_000);
    let begun = scene.begin("samples/config").await;
    let wrong = sha256(b"something else");
    let (status, code, _) = scene.call("PUT", &ending(&begun, &wrong)).body(content.clone()).send().await.error();
    assert_eq!((status, code.as_str()), (400, "DIGEST_INVALID"));
    let folder = scene.larder.setup.store().join("ingest/tmp");
    until("nothing is left of it", || std::fs::read_dir(&folder).unwrap().count() == 0).await;
    assert!(!scene.larder.stores(&wrong) && !scene.larder.stores(&sha256(&content)));
    assert_eq!(scene.larder.head(&format!("/v2/samples/config/blobs/{}", sha256(&content))).await.status, 404);
}

#[tokio::test]
async fn a_token_that_dies_under_the_body_costs_the_client_nothing() {
    let scene = Scene::new().await;
    let content = content(52, 2 * MIB);
    let digest = sha256(&content);
    let begun = scene.begin("samples/config").await;
    scene.acr.revoke_tokens();
    let patched = scene.call("PATCH", &begun).body(content.clone()).send().await;
    assert_eq!(patched.status, 202, "{patched:?}");
    let seen: Vec<u16> = scene.acr.log().iter().filter(|seen| seen.method == "PATCH").map(|seen| seen.status).collect();
    assert_eq!(seen, [401, 202], "the body went twice, the second time from the copy");
    created(&scene.call("PUT", &ending(&location(&patched), &digest)).send().await, "samples/config", &digest);
    assert_eq!(scene.acr.blob("samples/config", &digest), Some(content.clone()));
    pulls(&scene, &digest, &content).await;
    assert_eq!(scene.downloads(), 0);
}

#[tokio::test]
async fn without_a_copy_the_client_is_told_to_send_it_again() {
    let scene = Scene::with(|setup| setup.with(|settings| settings.server.limits.uploads = 0)).await;
    let content = content(54, 2 * MIB);
    let digest = sha256(&content);
    let begun = scene.begin("samples/config").await;
    scene.acr.revoke_tokens();
    let (status, _, message) = scene.call("PUT", &ending(&begun, &digest)).body(content.clone()).send().await.error();
    assert_eq!(status, 502);
    assert!(message.contains("sent again"), "{message}");
    // The session is as it was, and the new token is there.
    created(&scene.call("PUT", &ending(&begun, &digest)).body(content).send().await, "samples/config", &digest);
}

#[tokio::test]
async fn what_is_there_already_is_linked() {
    let scene = Scene::new().await;
    let content = content(56, 100_000);
    scene.push("samples/config", &content).await;
    let digest = sha256(&content);
    until("it is in its place", || scene.larder.stores(&digest)).await;
    scene.push("samples/other", &content).await;
    assert_eq!(uploads(&scene.larder, "present").await, 1);
    let asked = scene.acr.log().len();
    assert_eq!(scene.larder.get(&format!("/v2/samples/other/blobs/{digest}")).await.cache_status(), "larder; hit");
    assert_eq!(scene.acr.log().len(), asked);
}
