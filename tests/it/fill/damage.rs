use super::harness::simulator::{Damage, DamageKind, Redirect};
use super::{MIB, Scene};

const READERS: usize = 4;
const HELD_BACK: u64 = 64 << 10;

/// Every reader of a damaged download gets a broken body, nothing is kept, and the next request fetches anew.
async fn every_body_is_broken(redirect: Redirect, chunked: bool, damage: Damage) {
    let what = format!("{damage:?} {redirect:?} chunked={chunked}");
    let scene = Scene::with(4 * MIB, redirect, |setup| setup).await;
    scene.acr.knobs().turn(|knobs| {
        knobs.chunked = chunked;
        knobs.damage.push(damage);
        // Slow enough for everybody to be there before its end.
        knobs.total_rate = Some(8 * MIB as u64);
    });
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..READERS {
        let call = scene.larder.call("GET", &scene.target);
        readers.spawn(async move {
            let answer = call.open().await;
            let length: u64 = answer.headers["content-length"].to_str().unwrap().parse().unwrap();
            (answer.status, length, answer.hashed().await)
        });
    }
    while let Some(reader) = readers.join_next().await {
        let (status, length, (count, _, end)) = reader.unwrap();
        assert_eq!(status, 200, "{what}");
        assert!(end.is_err(), "{what}: {count} bytes, and a clean end");
        assert!(count <= length - HELD_BACK, "{what}: {count} of {length} bytes went out before the digest was known");
    }
    scene.settled().await;
    assert!(!scene.larder.stores(&scene.digest), "{what}: wrong bytes were kept");
    assert_eq!(scene.fills("mismatch").await, 1, "{what}");
    assert!(scene.larder.metric("larder_digest_failures_total{where=\"fill\"}").await >= 1, "{what}");
    scene.heal();
    scene.rate(None);
    scene.serves().await;
    scene.stored().await;
    let last = scene.bodies().pop().unwrap();
    assert_eq!(last.range, None, "{what}: nothing of it is gone on with");
}

#[tokio::test]
async fn a_wrong_bit_breaks_every_body() {
    for at in [0, 3 * MIB as u64, 4 * MIB as u64 - 1] {
        every_body_is_broken(Redirect::Sas, false, Damage::always(DamageKind::Flip, at)).await;
    }
}

#[tokio::test]
async fn a_wrong_bit_breaks_every_body_without_redirect_and_from_a_data_endpoint() {
    every_body_is_broken(Redirect::Direct, false, Damage::always(DamageKind::Flip, 9)).await;
    every_body_is_broken(Redirect::DataEndpoint, false, Damage::always(DamageKind::Flip, 9)).await;
}

#[tokio::test]
async fn too_few_bytes_break_every_body() {
    for at in [2 * MIB as u64, 4 * MIB as u64 - 1] {
        every_body_is_broken(Redirect::Sas, false, Damage::always(DamageKind::Short, at)).await;
    }
}

#[tokio::test]
async fn too_many_bytes_break_every_body() {
    for more in [1, MIB as u64] {
        every_body_is_broken(Redirect::Sas, false, Damage::always(DamageKind::Long, more)).await;
    }
}

#[tokio::test]
async fn wrong_bytes_without_a_length_break_every_body() {
    every_body_is_broken(Redirect::Sas, true, Damage::always(DamageKind::Flip, 9)).await;
    every_body_is_broken(Redirect::Direct, true, Damage::always(DamageKind::Long, 1)).await;
}

#[tokio::test]
async fn right_bytes_without_a_length_are_served_and_stored() {
    let scene = Scene::of(4 * MIB).await;
    scene.acr.knobs().turn(|knobs| knobs.chunked = true);
    scene.serves().await;
    scene.stored().await;
    assert_eq!(scene.bodies().len(), 1);
}

/// What fits into the held-back tail is verified before the status line.
#[tokio::test]
async fn a_small_blob_that_is_wrong_is_a_clean_502() {
    for (size, damage) in [
        (10_000, Damage::always(DamageKind::Flip, 9)),
        (10_000, Damage::always(DamageKind::Short, 9)),
        (10_000, Damage::always(DamageKind::Short, 0)),
        (10_000, Damage::always(DamageKind::Long, 9)),
        (64 << 10, Damage::always(DamageKind::Flip, (64 << 10) - 1)),
    ] {
        let scene = Scene::of(size).await;
        scene.acr.knobs().damage(damage);
        let answer = scene.larder.get(&scene.target).await;
        let (status, code, message) = answer.error();
        assert_eq!((status, &*code), (502, "UNKNOWN"), "{message}");
        assert!(message.contains("myacr.azurecr.io") && message.contains(&scene.digest), "whom to blame: {message}");
        assert!(!scene.larder.stores(&scene.digest));
        scene.heal();
        scene.serves().await;
    }
}

/// One wrong answer blames that download, not the blob: a reader that comes after it is served.
#[tokio::test]
async fn a_download_that_failed_is_joined_by_nobody() {
    let scene = Scene::of(4 * MIB).await;
    scene.acr.knobs().damage(Damage::once(DamageKind::Flip, 9));
    let broken = scene.larder.call("GET", &scene.target).try_send().await.unwrap_err();
    assert!(broken.answer.body.len() < 4 * MIB);
    let answer = scene.serves().await;
    assert_eq!(answer.cache_status(), "larder; fwd=miss; stored");
}
