//! Whatever keeps upstream from answering, what is stored goes out, soon and marked.

use super::harness::simulator::{Damage, DamageKind, FaultAnswer, Options, PathClass};
use super::harness::{Acr, Setup, until};
use super::{NEVER, Scene, TAG, digest, is_stale, push};
use std::time::Duration;
use tokio::time::Instant;

/// Stale answers, and after the outage, without anything else, the truth.
async fn stands_in(scene: &Scene, what: &str, end: impl FnOnce(&Acr)) {
    for _ in 0..3 {
        let answer = scene.tag().await;
        assert_eq!(digest(&answer), scene.artifact.digest, "{what}");
        assert!(is_stale(&answer), "{what}: {}", answer.cache_status());
    }
    assert_eq!(digest(&scene.larder.head(TAG).await), scene.artifact.digest, "{what}");
    end(&scene.acr);
    let moved = push(&scene.acr, "v1", "two");
    let began = Instant::now();
    while digest(&scene.tag().await) != moved.digest {
        assert!(began.elapsed() < Duration::from_secs(10), "{what}: it does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!is_stale(&scene.tag().await), "{what}");
}

#[tokio::test]
async fn refused_connections() {
    let scene = Scene::of(NEVER).await;
    scene.acr.stop_listening();
    stands_in(&scene, "refused", |acr| acr.resume_listening()).await;
}

#[tokio::test]
async fn reset_connections() {
    let scene = Scene::of(NEVER).await;
    scene.acr.knobs().turn(|knobs| knobs.login.reset = true);
    stands_in(&scene, "reset", |acr| acr.knobs().reset()).await;
}

#[tokio::test]
async fn errors_of_every_kind() {
    for answer in [
        FaultAnswer::empty(500),
        FaultAnswer::empty(503),
        FaultAnswer::TooManyRequests { retry_after_s: Some(1), counts_down: false, front_door: false },
        FaultAnswer::TooManyRequests { retry_after_s: Some(1), counts_down: false, front_door: true },
        FaultAnswer::Firewall,
        FaultAnswer::Portal { status: 200 },
        FaultAnswer::Portal { status: 404 },
        FaultAnswer::ForeignRedirect { location: "http://portal.example/".into() },
    ] {
        let scene = Scene::of(NEVER).await;
        let what = format!("{answer:?}");
        scene.acr.knobs().fail(PathClass::Login, answer);
        stands_in(&scene, &what, |acr| acr.knobs().reset()).await;
    }
}

/// The firewall closes the token endpoints, too.
#[tokio::test]
async fn a_firewall_on_everything() {
    let scene = Scene::of(NEVER).await;
    scene.acr.revoke_tokens();
    scene.acr.knobs().turn(|knobs| knobs.firewall = true);
    stands_in(&scene, "firewall", |acr| acr.knobs().reset()).await;
}

/// The first request waits for `revalidate_wait`; then nobody waits until upstream answers again.
#[tokio::test]
async fn silence() {
    let wait = Duration::from_millis(700);
    let scene = Scene::with(NEVER, |setup| setup.upstream(|upstream| upstream.freshness.revalidate_wait = wait)).await;
    scene.acr.knobs().turn(|knobs| knobs.login.hang = true);
    let began = Instant::now();
    assert!(is_stale(&scene.tag().await));
    assert!(began.elapsed() >= wait, "it was waited for");
    let began = Instant::now();
    for _ in 0..20 {
        assert!(is_stale(&scene.tag().await));
    }
    assert!(began.elapsed() < wait * 5, "twenty answers took {:?}: somebody waited", began.elapsed());
    stands_in(&scene, "silence", |acr| acr.knobs().turn(|knobs| knobs.login.hang = false)).await;
}

/// Other tags and lists of a silent upstream do not wait either.
#[tokio::test]
async fn one_who_waited_in_vain_is_enough() {
    let wait = Duration::from_secs(2);
    let scene = Scene::with(NEVER, |setup| setup.upstream(|upstream| upstream.freshness.revalidate_wait = wait)).await;
    push(&scene.acr, "v2", "two");
    for target in ["/v2/app/manifests/v2", "/v2/app/tags/list"] {
        assert_eq!(scene.larder.get(target).await.status, 200);
    }
    scene.acr.knobs().turn(|knobs| knobs.login.hang = true);
    assert!(is_stale(&scene.tag().await));
    let began = Instant::now();
    for target in ["/v2/app/manifests/v2", "/v2/app/tags/list"] {
        assert!(is_stale(&scene.larder.get(target).await), "{target}");
    }
    assert!(began.elapsed() < wait, "{:?}", began.elapsed());
    scene.acr.knobs().turn(|knobs| knobs.login.hang = false);
}

/// The request that was not waited for goes on: its news is there for the next one.
#[tokio::test]
async fn the_answer_that_came_too_late_is_kept() {
    let wait = Duration::from_millis(200);
    let scene = Scene::with(NEVER, |setup| setup.upstream(|upstream| upstream.freshness.revalidate_wait = wait)).await;
    let moved = push(&scene.acr, "v1", "two");
    scene.acr.knobs().turn(|knobs| knobs.login.delay_ms = 800);
    assert_eq!(digest(&scene.tag().await), scene.artifact.digest);
    until("upstream has given the new one", || scene.asked().1 == 1).await;
    scene.acr.knobs().turn(|knobs| knobs.login.delay_ms = 0);
    let began = Instant::now();
    while digest(&scene.tag().await) != moved.digest {
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Our own secret refused is an outage for what is stored and a clear word for what is not; a mended one works without a restart.
#[tokio::test]
async fn a_secret_that_is_refused() {
    let acr = Acr::start(Options::private("ci", "right")).await;
    let artifact = push(&acr, "v1", "one");
    let setup = Setup::of(&acr).password("ci", "right").tag_ttl(NEVER);
    let larder = setup.start().await;
    assert_eq!(digest(&larder.get(TAG).await), artifact.digest);
    larder.setup.file("password", "wrong\n");
    // A login is remembered for seconds.
    let began = Instant::now();
    loop {
        acr.revoke_tokens();
        let stored = larder.get(TAG).await;
        assert_eq!(digest(&stored), artifact.digest);
        if is_stale(&stored) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(15), "the wrong password is not used: {stored:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (status, code, message) = larder.get("/v2/app/manifests/other").await.error();
    assert_eq!((status, &*code), (403, "DENIED"), "{message}");
    larder.setup.file("password", "right\n");
    let began = Instant::now();
    while is_stale(&larder.get(TAG).await) {
        assert!(began.elapsed() < Duration::from_secs(15), "the right password is not used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What is not stored is not pretended to be absent.
#[tokio::test]
async fn what_is_not_stored_is_504_and_not_404() {
    let scene = Scene::of(NEVER).await;
    scene.acr.stop_listening();
    let absent = format!("sha256:{}", "0".repeat(64));
    for target in
        ["manifests/other".to_owned(), format!("manifests/{absent}"), format!("blobs/{absent}"), "tags/list".to_owned()]
    {
        let (status, _, message) = scene.larder.get(&format!("/v2/app/{target}")).await.error();
        assert!(matches!(status, 502 | 504), "{target}: {status} {message}");
        assert!(message.contains("myacr.azurecr.io"), "{message}");
    }
}

/// Blobs and digests never age: an outage does not show in them.
#[tokio::test]
async fn what_never_changes_is_a_hit_during_an_outage() {
    let scene = Scene::of(NEVER).await;
    let blob = format!("/v2/app/blobs/{}", scene.artifact.layers[0]);
    assert_eq!(scene.larder.get(&blob).await.status, 200);
    until("it is stored", || scene.larder.stores(&scene.artifact.layers[0])).await;
    scene.acr.stop_listening();
    for target in [blob, format!("/v2/app/manifests/{}", scene.artifact.digest)] {
        let answer = scene.larder.get(&target).await;
        assert_eq!(
            (answer.status.as_u16(), answer.cache_status(), answer.header("warning")),
            (200, "larder; hit", None)
        );
    }
}

/// Damage of blob bodies has nothing to do with tags.
#[tokio::test]
async fn storage_away_and_login_server_there() {
    let scene = Scene::of(NEVER).await;
    scene.acr.knobs().turn(|knobs| knobs.storage.reset = true);
    scene.acr.knobs().damage(Damage::always(DamageKind::Cut, 0));
    assert!(!is_stale(&scene.tag().await));
    let blob = format!("/v2/app/blobs/{}", scene.artifact.layers[0]);
    let (status, _, message) = scene.larder.get(&blob).await.error();
    assert!(matches!(status, 502 | 504), "{status} {message}");
    scene.acr.knobs().reset();
    assert_eq!(scene.larder.get(&blob).await.status, 200);
}
