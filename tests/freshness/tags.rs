use super::harness::simulator::OCI_MANIFEST;
use super::{LONG, NEVER, Scene, TAG, digest, push};

#[tokio::test]
async fn a_tag_is_served_for_its_time_without_asking() {
    let scene = Scene::of(LONG).await;
    push(&scene.acr, "v1", "two");
    for _ in 0..5 {
        let answer = scene.tag().await;
        assert_eq!(digest(&answer), scene.artifact.digest);
        assert!(answer.cache_status().starts_with("larder; hit; ttl="), "{}", answer.cache_status());
    }
    assert_eq!(scene.asked(), (0, 0));
}

#[tokio::test]
async fn an_expired_tag_is_confirmed_by_head_alone() {
    let scene = Scene::of(NEVER).await;
    let answer = scene.tag().await;
    assert_eq!(digest(&answer), scene.artifact.digest);
    assert!(answer.cache_status().ends_with("detail=revalidated"), "{}", answer.cache_status());
    assert_eq!(scene.asked(), (1, 0));
}

#[tokio::test]
async fn a_hundred_requests_are_one_revalidation() {
    let scene = Scene::of(NEVER).await;
    scene.acr.knobs().turn(|knobs| knobs.login.hang = true);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let call = scene.larder.call("GET", TAG);
        clients.spawn(async move { call.send().await });
    }
    let waiting = || scene.larder.metrics.http_inflight.with_label_values(&[] as &[&str]).get();
    super::harness::until("all of them wait", || waiting() == 100).await;
    scene.acr.knobs().turn(|knobs| knobs.login.hang = false);
    while let Some(answer) = clients.join_next().await {
        assert_eq!(digest(&answer.unwrap()), scene.artifact.digest);
    }
    assert_eq!(scene.asked(), (1, 0));
}

#[tokio::test]
async fn a_tag_that_moved_is_followed() {
    let scene = Scene::of(NEVER).await;
    let moved = push(&scene.acr, "v1", "two");
    let answer = scene.tag().await;
    assert_eq!(digest(&answer), moved.digest);
    assert!(answer.body == moved.manifest);
    let old = scene.larder.get(&format!("/v2/app/manifests/{}", scene.artifact.digest)).await;
    assert_eq!(old.cache_status(), "larder; hit", "what it named before stays");
    let head = scene.larder.head(TAG).await;
    assert_eq!(digest(&head), moved.digest);
}

#[tokio::test]
async fn no_cache_asks_at_once() {
    let scene = Scene::of(LONG).await;
    let moved = push(&scene.acr, "v1", "two");
    let answer = scene.larder.call("GET", TAG).line("Cache-Control", "no-cache").send().await;
    assert_eq!(digest(&answer), moved.digest);
    assert_eq!(digest(&scene.tag().await), moved.digest, "and everybody gets it from then on");
}

#[tokio::test]
async fn an_immutable_tag_is_never_asked_about() {
    let scene =
        Scene::with(NEVER, |setup| setup.upstream(|upstream| upstream.freshness.immutable_tags = vec!["v*".into()]))
            .await;
    push(&scene.acr, "v1", "two");
    assert_eq!(digest(&scene.tag().await), scene.artifact.digest);
    assert_eq!(scene.asked(), (0, 0));
    let moving = push(&scene.acr, "latest", "one");
    for _ in 0..2 {
        assert_eq!(digest(&scene.larder.get("/v2/app/manifests/latest").await), moving.digest);
    }
    assert_eq!(scene.asked(), (1, 1), "another one is");
}

/// A tag that is deleted is gone once its time is over; what it named stays, and a new one shows within seconds.
#[tokio::test]
async fn a_deleted_tag_is_404_and_its_manifest_stays() {
    let scene = Scene::of(NEVER).await;
    scene.acr.delete_tag("app", "v1");
    for _ in 0..3 {
        assert_eq!(scene.tag().await.error().1, "MANIFEST_UNKNOWN");
    }
    let (_, gets) = scene.asked();
    assert!(gets <= 1, "remembered for seconds: {gets}");
    assert_eq!(scene.larder.get(&format!("/v2/app/manifests/{}", scene.artifact.digest)).await.status, 200);
    push(&scene.acr, "v1", "three");
    let began = tokio::time::Instant::now();
    while scene.tag().await.status != 200 {
        assert!(began.elapsed().as_secs() < 10, "a new tag does not show");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// Within its time a tag is not asked about, whatever has become of it.
#[tokio::test]
async fn a_deleted_tag_is_served_for_its_time() {
    let scene = Scene::of(LONG).await;
    scene.acr.delete_manifest("app", &scene.artifact.digest);
    assert_eq!(digest(&scene.tag().await), scene.artifact.digest);
    assert_eq!(scene.asked(), (0, 0));
}

/// A registry that does not say the digest in its headers is asked for the document.
#[tokio::test]
async fn an_upstream_without_digest_headers_is_revalidated_all_the_same() {
    let scene = Scene::of(NEVER).await;
    scene.acr.knobs().turn(|knobs| knobs.manifest_digest = false);
    assert_eq!(digest(&scene.tag().await), scene.artifact.digest);
    let moved = scene.acr.push_manifest("app", Some("v1"), OCI_MANIFEST, r#"{"schemaVersion":2,"layers":[]}"#);
    assert_eq!(digest(&scene.tag().await), moved);
}
