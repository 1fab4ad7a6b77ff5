//! A start with the upstream gone serves what is on disk.

use super::harness::{until, until_async};
use super::{LONG, NEVER, Scene, TAG, digest, is_stale, push};
use std::time::Duration;

async fn serves_from_disk(ttl: Duration) {
    let mut scene = Scene::of(ttl).await;
    let layer = scene.artifact.layers[0].clone();
    let others = [
        format!("/v2/app/manifests/{}", scene.artifact.digest),
        format!("/v2/app/blobs/{layer}"),
        "/v2/app/tags/list".to_owned(),
        "/v2/_catalog".to_owned(),
        format!("/v2/app/referrers/{}", scene.artifact.digest),
    ];
    let mut before = Vec::new();
    for target in &others {
        let answer = scene.larder.get(target).await;
        // An anonymous caller of ACR has no catalogue.
        before.push((target, answer.status, answer.body));
    }
    until("the blob is stored", || scene.larder.stores(&layer)).await;
    let setup = scene.larder.stop().await;
    scene.acr.stop_listening();
    scene.larder = setup.start().await;
    let tag = scene.larder.get(TAG).await;
    assert_eq!(digest(&tag), scene.artifact.digest);
    assert_eq!(is_stale(&tag), ttl == NEVER, "{}", tag.cache_status());
    assert_eq!(digest(&scene.larder.head(TAG).await), scene.artifact.digest);
    for (target, status, body) in before.iter().filter(|(_, status, _)| *status == 200) {
        let answer = scene.larder.get(target).await;
        assert_eq!(answer.status, *status, "{target}: {}", String::from_utf8_lossy(&answer.body));
        assert!(answer.body == *body, "{target}");
    }
    assert!(before.iter().filter(|(_, status, _)| *status == 200).count() >= 4, "{before:?}");
    // A part of a stored blob, too.
    let part = scene.larder.call("GET", &format!("/v2/app/blobs/{layer}")).range("bytes=1-").send().await;
    assert_eq!((part.status.as_u16(), &*part.body), (206, &b"ne"[..]));

    scene.acr.resume_listening();
    let moved = push(&scene.acr, "v2", "two");
    until_async("it goes on without a restart", async || {
        let answer = scene.larder.get("/v2/app/manifests/v2").await;
        answer.status == 200 && digest(&answer) == moved.digest
    })
    .await;
}

#[tokio::test]
async fn with_tags_whose_time_is_over() {
    serves_from_disk(NEVER).await;
}

/// When a tag was last confirmed is kept on disk: a restart does not make it older or younger.
#[tokio::test]
async fn with_tags_whose_time_is_not_over() {
    serves_from_disk(LONG).await;
}
