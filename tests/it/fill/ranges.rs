//! Ranges of a blob that is not stored, by the rule for them: follow what is there soon, wait for a small blob's digest, else ask
//! upstream for just the range.

use super::harness::simulator::{Damage, DamageKind};
use super::harness::{Answer, Client, until};
use super::{MIB, Scene};
use std::time::Duration;
use tokio::time::Instant;

const SLOW: usize = 4 * MIB;

/// A large blob behind a slow link, and one reader of all of it on the way.
async fn slow_and_large() -> (Scene, super::harness::Streaming) {
    let scene = Scene::of(16 * MIB).await;
    scene.rate(Some(SLOW));
    let mut reader = scene.larder.call("GET", &scene.target).open().await;
    reader.at_least(MIB / 2).await;
    (scene, reader)
}

async fn range(scene: &Scene, range: &str) -> Answer {
    scene.larder.call("GET", &scene.target).range(range).send().await
}

/// A right 206 of these bytes.
fn is_part(scene: &Scene, answer: &Answer, start: usize, end: usize) {
    assert_eq!(answer.status, 206, "{}", String::from_utf8_lossy(&answer.body));
    let total = scene.content.len();
    assert_eq!(answer.header("content-range"), Some(&*format!("bytes {start}-{}/{total}", end - 1)));
    assert_eq!(answer.header("content-length"), Some(&*(end - start).to_string()));
    assert_eq!(answer.header("docker-content-digest"), Some(&*scene.digest));
    assert!(answer.body == scene.content[start..end], "{} bytes", answer.body.len());
}

#[tokio::test]
async fn a_range_that_is_there_already_comes_from_the_fill() {
    let (scene, reader) = slow_and_large().await;
    let answer = range(&scene, "bytes=1000-1999").await;
    is_part(&scene, &answer, 1000, 2000);
    assert_eq!(answer.cache_status(), "larder; fwd=miss; collapsed; stored; detail=unverified");
    assert_eq!(scene.ranges(), [None]);
    scene.rate(None);
    assert_eq!(reader.hashed().await.1, scene.digest);
}

#[tokio::test]
async fn a_range_far_ahead_is_a_request_of_its_own_beside_the_one_fill() {
    let (scene, reader) = slow_and_large().await;
    let start = 12 * MIB;
    let answer = range(&scene, &format!("bytes={start}-{}", start + 999)).await;
    is_part(&scene, &answer, start, start + 1000);
    assert_eq!(answer.cache_status(), "larder; fwd=bypass; detail=unverified");
    let asked = format!("bytes={start}-{}", start + 999);
    assert_eq!(scene.ranges(), [None, Some(asked)]);
    scene.rate(None);
    assert_eq!(reader.hashed().await.1, scene.digest);
    scene.stored().await;
    assert_eq!(scene.bodies().len(), 2, "and the fill went on");
}

/// What lazy snapshotters do hundreds of times for one start. By hand with the figures of `docs/performance.md`:
/// `LARDER_RANGE_MIB=256 LARDER_RANGE_RATE_MIB=64 cargo test --release --test it a_range_at_the_end -- --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_at_the_end_costs_no_more_than_asking_upstream() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (size, rate) = (number("LARDER_RANGE_MIB", 32) * MIB, number("LARDER_RANGE_RATE_MIB", 8) * MIB);
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for round in 0..5 {
        let scene = Scene::of(size).await;
        // Of each connection, so that the fill takes nothing away from the range.
        scene.acr.knobs().turn(|knobs| knobs.connection_rate = Some(rate as u64));
        let registry = Client::new(scene.acr.host().parse().unwrap());
        let token = "/oauth2/token?service=myacr.azurecr.io&scope=repository:app:pull";
        let token = registry.call("GET", token).send().await.json()["access_token"].as_str().unwrap().to_owned();
        // The first range begins the fill; the others find it under way.
        for at in 0..4 {
            let start = size - (at + 1) * 64 * 1024 - round;
            let asked = format!("bytes={start}-{}", start + 9999);
            let begun = Instant::now();
            let authorized = registry.call("GET", &scene.target).line("Authorization", &format!("Bearer {token}"));
            let location = authorized.send().await;
            let (host, path) =
                location.header("location").unwrap().split_once("://").unwrap().1.split_once('/').unwrap();
            let storage = Client::new(host.parse().unwrap());
            let part = storage.call("GET", &format!("/{path}")).range(&asked).send().await;
            assert_eq!(part.status, 206);
            direct.push(begun.elapsed());
            let begun = Instant::now();
            let answer = range(&scene, &asked).await;
            through.push(begun.elapsed());
            is_part(&scene, &answer, start, start + 10_000);
        }
    }
    direct.sort_unstable();
    through.sort_unstable();
    let (direct, through) = (direct[direct.len() / 2], through[through.len() / 2]);
    println!(
        "a range at the end of {} MiB at {} MiB/s: {direct:?} direct, {through:?} through",
        size / MIB,
        rate / MIB
    );
    assert!(through < direct + Duration::from_millis(60), "{through:?} through, {direct:?} direct");
}

#[tokio::test]
async fn a_suffix_far_ahead_is_asked_for_by_its_place() {
    let (scene, _reader) = slow_and_large().await;
    let answer = range(&scene, "bytes=-1000").await;
    is_part(&scene, &answer, 16 * MIB - 1000, 16 * MIB);
    assert_eq!(answer.cache_status(), "larder; fwd=bypass; detail=unverified");
    // Storage accounts ignore suffixes.
    let asked = format!("bytes={}-{}", 16 * MIB - 1000, 16 * MIB - 1);
    assert_eq!(scene.ranges(), [None, Some(asked)]);
}

/// The first request may be one for a range: the fill begins all the same, and is whole.
#[tokio::test]
async fn a_range_that_nobody_fills_yet_begins_the_fill() {
    let scene = Scene::of(16 * MIB).await;
    scene.rate(Some(SLOW));
    let start = 8 * MIB;
    let answer = range(&scene, &format!("bytes={start}-{}", start + 9)).await;
    is_part(&scene, &answer, start, start + 10);
    scene.rate(None);
    scene.stored().await;
    assert_eq!(scene.acr.downloads(), 1);
    let answer = range(&scene, &format!("bytes={start}-{}", start + 9)).await;
    is_part(&scene, &answer, start, start + 10);
    assert_eq!(answer.cache_status(), "larder; hit");
}

#[tokio::test]
async fn a_range_of_a_small_blob_waits_for_the_digest() {
    let scene = Scene::of(2 * MIB).await;
    scene.rate(Some(8 * MIB));
    for (asked, start, end) in [("bytes=1000000-1000009", 1_000_000, 1_000_010), ("bytes=-5", 2 * MIB - 5, 2 * MIB)] {
        let answer = range(&scene, asked).await;
        is_part(&scene, &answer, start, end);
        assert!(!answer.cache_status().contains("unverified"), "{}", answer.cache_status());
    }
    assert_eq!(scene.ranges(), [None]);
}

#[tokio::test]
async fn a_range_of_a_small_blob_on_a_slow_link_waits_no_longer_than_a_second() {
    let scene = Scene::of(2 * MIB).await;
    scene.rate(Some(MIB / 4));
    let began = Instant::now();
    let answer = range(&scene, "bytes=0-9").await;
    is_part(&scene, &answer, 0, 10);
    assert!(answer.cache_status().contains("unverified"), "{}", answer.cache_status());
    assert!(began.elapsed() >= Duration::from_millis(900), "the digest had a second");
    assert!(began.elapsed() < Duration::from_secs(4), "and no more: the whole takes eight");
}

/// Wrong bytes that are known to be wrong are not sent, not even as a part.
#[tokio::test]
async fn a_range_of_a_small_blob_that_is_wrong_is_a_clean_502() {
    for asked in ["bytes=0-9", "bytes=1000000-1000009", "bytes=-5", "bytes=1-"] {
        let scene = Scene::of(2 * MIB).await;
        scene.acr.knobs().damage(Damage::always(DamageKind::Flip, 2_000_000));
        let answer = range(&scene, asked).await;
        let (status, _, message) = answer.error();
        assert_eq!(status, 502, "{asked}: {message}");
        assert!(message.contains(&scene.digest), "{message}");
    }
}

/// What follows the fill to its end is held back like a whole answer.
#[tokio::test]
async fn a_range_to_the_end_of_wrong_bytes_is_broken() {
    let scene = Scene::of(16 * MIB).await;
    scene.acr.knobs().damage(Damage::always(DamageKind::Flip, 9));
    scene.rate(Some(16 * MIB));
    let broken = scene.larder.call("GET", &scene.target).range("bytes=1-").try_send().await.unwrap_err();
    assert_eq!(broken.answer.status, 206);
    assert!(broken.answer.body.len() <= 16 * MIB - (64 << 10), "the last bytes wait for the digest");
}

#[tokio::test]
async fn a_range_past_the_end_is_clamped_and_one_outside_is_416() {
    let (scene, _reader) = slow_and_large().await;
    let length = scene.content.len();
    let answer = range(&scene, &format!("bytes=16000000-{length}")).await;
    is_part(&scene, &answer, 16_000_000, length);
    for outside in [format!("bytes={length}-"), format!("bytes={length}-{}", length + 5), "bytes=-0".to_owned()] {
        let answer = range(&scene, &outside).await;
        assert_eq!(answer.status, 416, "{outside}");
        assert_eq!(answer.header("content-range"), Some(&*format!("bytes */{length}")));
    }
    scene.rate(None);
    scene.stored().await;
    for outside in [format!("bytes={length}-"), "bytes=-0".to_owned()] {
        assert_eq!(range(&scene, &outside).await.status, 416, "{outside}, stored");
    }
}

/// Many own ranges of one blob are bounded; who finds no place follows the fill.
#[tokio::test]
async fn the_ranged_requests_beside_a_fill_are_few() {
    let (scene, reader) = slow_and_large().await;
    scene.rate(Some(64 * 1024));
    let mut open = Vec::new();
    for part in 0..20 {
        let start = 4 * MIB + part * (MIB / 2);
        let call = scene.larder.call("GET", &scene.target).range(&format!("bytes={start}-{}", start + MIB / 2 - 1));
        open.push(call.open().await);
    }
    let ranged = scene.ranges().into_iter().flatten().count();
    assert!((1..=8).contains(&ranged), "{ranged} ranged requests at once");
    scene.rate(None);
    for (part, answer) in open.into_iter().enumerate() {
        let start = 4 * MIB + part * (MIB / 2);
        assert!(answer.rest().await.unwrap().body == scene.content[start..start + MIB / 2]);
    }
    assert_eq!(reader.hashed().await.1, scene.digest);
}

/// containerd opens `bytes=N-` and closes it early; the others are not touched by it.
#[tokio::test]
async fn an_open_range_that_is_closed_early_changes_nothing() {
    let (scene, reader) = slow_and_large().await;
    let mut leaving = scene.larder.call("GET", &scene.target).range("bytes=0-").open().await;
    assert_eq!(leaving.status, 206);
    leaving.at_least(100).await;
    drop(leaving);
    scene.rate(None);
    assert_eq!(reader.hashed().await.1, scene.digest);
    until("the blob is stored", || scene.larder.stores(&scene.digest)).await;
    assert_eq!(scene.bodies().len(), 1);
}

#[tokio::test]
async fn a_length_that_nobody_has_verified_refuses_no_range() {
    let scene = Scene::of(4 * MIB).await;
    // Upstream says that the blob is shorter than it is, and takes its time.
    scene.acr.knobs().damage(Damage::once(DamageKind::Short, MIB as u64));
    scene.rate(Some(SLOW));
    let mut reader = scene.larder.call("GET", &scene.target).open().await;
    reader.at_least(1000).await;
    let answer = range(&scene, &format!("bytes={}-{}", 2 * MIB, 2 * MIB + 9)).await;
    assert_ne!(answer.status, 416, "{}", String::from_utf8_lossy(&answer.body));
    assert!(reader.rest().await.is_err(), "it is not the blob");
    scene.rate(None);
    is_part(&scene, &range(&scene, &format!("bytes={}-{}", 2 * MIB, 2 * MIB + 9)).await, 2 * MIB, 2 * MIB + 10);
}
