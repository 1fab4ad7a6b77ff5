//! A transfer that is cut goes on where it was cut, and the client sees nothing of it.

use super::harness::Setup;
use super::harness::simulator::{Damage, DamageKind, Fault, FaultAnswer, PathClass, Redirect};
use super::{MIB, Scene};
use std::time::Duration;

fn impatient(setup: Setup) -> Setup {
    setup.upstream(|upstream| upstream.stall_timeout = Duration::from_secs(1))
}

/// Offsets at which transfers began.
fn offsets(scene: &Scene) -> Vec<u64> {
    let offset =
        |range: Option<String>| range.map_or(0, |r| r["bytes=".len()..].trim_end_matches('-').parse().unwrap());
    scene.ranges().into_iter().map(offset).collect()
}

async fn goes_on(kind: DamageKind, redirect: Redirect, times: u32) {
    let scene = Scene::with(4 * MIB, redirect, impatient).await;
    scene.acr.knobs().damage(Damage::times(kind, MIB as u64 / 2, times));
    scene.serves().await;
    scene.stored().await;
    let offsets = offsets(&scene);
    assert_eq!(offsets.len(), times as usize + 1, "{kind:?}: {offsets:?}");
    assert!(offsets.is_sorted() && offsets[1] > 0, "{kind:?}: {offsets:?}");
    assert!(
        scene.bodies().iter().skip(1).all(|seen| !seen.headers.contains_key("if-range")),
        "the digest is the validator"
    );
    let received = scene.larder.metric("larder_upstream_received_bytes_total{upstream=\"myacr.azurecr.io\"}").await;
    assert!(received < 4 * MIB as u64 + 200_000, "{kind:?}: {received} bytes for {} times {} bytes", times, 4 * MIB);
}

#[tokio::test]
async fn a_transfer_that_is_cut_once_goes_on() {
    goes_on(DamageKind::Cut, Redirect::Sas, 1).await;
    goes_on(DamageKind::Reset, Redirect::Sas, 1).await;
    goes_on(DamageKind::Cut, Redirect::Direct, 1).await;
    goes_on(DamageKind::Reset, Redirect::DataEndpoint, 1).await;
}

#[tokio::test]
async fn a_transfer_that_is_cut_each_time_goes_on_as_long_as_it_gains_ground() {
    goes_on(DamageKind::Cut, Redirect::Sas, 7).await;
}

#[tokio::test]
async fn a_transfer_that_stands_still_goes_on_after_the_stall_time() {
    goes_on(DamageKind::Stall, Redirect::Sas, 1).await;
}

#[tokio::test]
async fn a_cut_without_a_length_is_no_end() {
    let scene = Scene::of(4 * MIB).await;
    scene.acr.knobs().turn(|knobs| knobs.chunked = true);
    scene.acr.knobs().damage(Damage::once(DamageKind::Cut, MIB as u64));
    scene.serves().await;
    assert_eq!(scene.bodies().len(), 2);
}

/// All bytes are there and have the digest: what else the body might say is waited for for half a second.
#[tokio::test]
async fn a_body_that_has_brought_everything_and_does_not_end_holds_nobody_up() {
    let scene = Scene::of(4 * MIB).await;
    scene.acr.knobs().turn(|knobs| knobs.chunked = true);
    scene.acr.knobs().damage(Damage::once(DamageKind::Stall, 4 * MIB as u64));
    let begun = tokio::time::Instant::now();
    scene.serves().await;
    scene.stored().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(scene.bodies().len(), 1);
}

#[tokio::test]
async fn storage_that_ignores_the_range_is_read_up_to_the_offset() {
    for redirect in [Redirect::Sas, Redirect::Direct] {
        let scene = Scene::with(4 * MIB, redirect, |setup| setup).await;
        scene.acr.knobs().turn(|knobs| knobs.ranges = false);
        scene.acr.knobs().damage(Damage::once(DamageKind::Cut, MIB as u64));
        scene.serves().await;
        scene.stored().await;
        let asked: Vec<_> = scene.ranges().iter().map(Option::is_some).collect();
        assert_eq!(asked, [false, true]);
    }
}

/// Storage that calls the rest of what it has begun to send outside is asked for all of it.
#[tokio::test]
async fn storage_that_refuses_the_range_is_read_from_the_beginning() {
    for redirect in [Redirect::Sas, Redirect::Direct] {
        let scene = Scene::with(4 * MIB, redirect, |setup| setup).await;
        scene.rate(Some(4 * MIB));
        scene.acr.knobs().damage(Damage::once(DamageKind::Cut, MIB as u64));
        let mut reader = scene.larder.call("GET", &scene.target).open().await;
        reader.at_least(1).await;
        let class = if redirect == Redirect::Sas { PathClass::Storage } else { PathClass::Blobs };
        scene.acr.knobs().turn(|knobs| knobs.faults.push(Fault::times(class, FaultAnswer::empty(416), 1)));
        assert!(reader.rest().await.unwrap().body == scene.content);
        scene.stored().await;
        assert_eq!(scene.ranges(), [None, None], "the refused one is no body");
    }
}

/// The address of the first answer is good no longer when the transfer is cut: it is asked for again, at the login server.
#[tokio::test]
async fn an_address_that_has_expired_in_the_middle_is_resolved_again() {
    let scene = Scene::of(4 * MIB).await;
    scene.acr.knobs().turn(|knobs| {
        knobs.sas_life_s = 1;
        knobs.total_rate = Some(MIB as u64);
    });
    scene.acr.knobs().damage(Damage::once(DamageKind::Cut, 5 * MIB as u64 / 2));
    scene.serves().await;
    let expired = scene.acr.count(|seen| seen.is_blob_body() || seen.status == 403);
    assert_eq!(expired, 2, "no expired address is tried: {:?}", scene.bodies());
}

#[tokio::test]
async fn an_address_that_has_expired_on_arrival_is_resolved_once_more() {
    let scene = Scene::of(4 * MIB).await;
    scene.acr.knobs().turn(|knobs| {
        knobs.faults.push(Fault::times(PathClass::Storage, FaultAnswer::empty(403), 1));
    });
    scene.serves().await;
    assert_eq!(scene.bodies().len(), 1);
}

#[tokio::test]
async fn a_token_that_has_expired_in_the_middle_is_renewed() {
    let scene = Scene::of(4 * MIB).await;
    scene.acr.knobs().turn(|knobs| {
        knobs.anonymous_life_s = 1;
        knobs.access_life_s = 1;
        knobs.total_rate = Some(2 * MIB as u64);
    });
    scene.acr.knobs().damage(Damage::once(DamageKind::Cut, 3 * MIB as u64));
    scene.serves().await;
    scene.stored().await;
    assert_eq!(offsets(&scene).len(), 2);
}

#[tokio::test]
async fn login_server_errors_in_the_middle_are_waited_out() {
    let scene = Scene::of(4 * MIB).await;
    scene.rate(Some(4 * MIB));
    scene.acr.knobs().damage(Damage::once(DamageKind::Cut, MIB as u64));
    let mut reader = scene.larder.call("GET", &scene.target).open().await;
    reader.at_least(1).await;
    scene.acr.knobs().turn(|knobs| {
        knobs.faults.push(Fault::times(PathClass::Blobs, FaultAnswer::empty(503), 2));
    });
    assert!(reader.rest().await.unwrap().body == scene.content);
}

/// No byte for `resume_timeout`: the body breaks, what came is kept, and a later request goes on with it.
#[tokio::test]
async fn a_transfer_that_gains_nothing_is_given_up_and_gone_on_with_later() {
    let scene = Scene::of(4 * MIB).await;
    scene.acr.knobs().damage(Damage::once(DamageKind::Cut, MIB as u64));
    scene.acr.knobs().damage(Damage::always(DamageKind::Cut, 0));
    let broken = scene.larder.call("GET", &scene.target).try_send().await.unwrap_err();
    assert!(broken.answer.body.len() <= MIB);
    scene.settled().await;
    assert_eq!(scene.fills("failed").await, 1);
    assert!(!scene.larder.stores(&scene.digest));
    let attempts = scene.bodies().len();
    assert!((3..=8).contains(&attempts), "{attempts} attempts");
    scene.heal();
    scene.serves().await;
    assert!(*offsets(&scene).last().unwrap() > 0, "{:?}", scene.ranges());
}

/// The upstream goes away in the middle and comes back before the attempts are over.
#[tokio::test]
async fn a_short_outage_in_the_middle_is_not_seen() {
    let scene = Scene::of(4 * MIB).await;
    scene.rate(Some(4 * MIB));
    let mut reader = scene.larder.call("GET", &scene.target).open().await;
    reader.at_least(MIB).await;
    scene.acr.stop_listening();
    tokio::time::sleep(Duration::from_millis(500)).await;
    scene.acr.resume_listening();
    assert!(reader.rest().await.unwrap().body == scene.content);
}

fn patient(setup: Setup) -> Setup {
    setup.upstream(|upstream| upstream.resume_timeout = Duration::from_secs(30))
}

/// Longer than any number of quick attempts: the client waits, sees no error, and nothing is fetched twice.
#[tokio::test]
async fn a_longer_outage_in_the_middle_is_waited_out() {
    for redirect in [Redirect::Sas, Redirect::Direct] {
        let scene = Scene::with(4 * MIB, redirect, patient).await;
        scene.rate(Some(4 * MIB));
        let mut reader = scene.larder.call("GET", &scene.target).open().await;
        reader.at_least(MIB).await;
        scene.acr.stop_listening();
        tokio::time::sleep(Duration::from_secs(6)).await;
        scene.acr.resume_listening();
        assert!(reader.rest().await.unwrap().body == scene.content);
        scene.stored().await;
        let offsets = offsets(&scene);
        assert!(offsets.len() == 2 && offsets[1] >= MIB as u64 / 2, "{offsets:?}");
    }
}

/// Storage alone is away, behind a registry that goes on redirecting to it.
#[tokio::test]
async fn a_storage_outage_in_the_middle_is_waited_out() {
    let scene = Scene::with(4 * MIB, Redirect::Sas, patient).await;
    scene.rate(Some(4 * MIB));
    scene.acr.knobs().damage(Damage::once(DamageKind::Cut, 2 * MIB as u64));
    let mut reader = scene.larder.call("GET", &scene.target).open().await;
    reader.at_least(1).await;
    scene.acr.knobs().turn(|knobs| knobs.faults.push(Fault::always(PathClass::Storage, FaultAnswer::empty(503))));
    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.heal();
    assert!(reader.rest().await.unwrap().body == scene.content);
}

/// Nobody waits any more: the download has more time, comes to its end, and is kept.
#[tokio::test]
async fn a_download_that_nobody_waits_for_waits_longer() {
    let scene = Scene::with(4 * MIB, Redirect::Sas, |setup| {
        setup.upstream(|upstream| upstream.resume_timeout = Duration::from_secs(2))
    })
    .await;
    scene.rate(Some(2 * MIB));
    let mut reader = scene.larder.call("GET", &scene.target).open().await;
    reader.at_least(MIB / 2).await;
    drop(reader);
    scene.acr.stop_listening();
    tokio::time::sleep(Duration::from_secs(4)).await;
    scene.acr.resume_listening();
    scene.stored().await;
    assert!(offsets(&scene).last().unwrap() > &0);
}

/// After a refusal the registry's pace is kept to: clients have it first, and what nobody waits for goes on when they have had theirs.
#[tokio::test]
async fn a_download_that_nobody_waits_for_goes_on_after_the_clients_of_a_throttled_registry() {
    let scene = Scene::of(4 * MIB).await;
    for number in 0..30 {
        let layer = bytes::Bytes::from(format!("layer {number}"));
        scene.acr.push_artifact("app", &format!("v{number}"), &[("x", "text/plain", layer)]);
    }
    scene.acr.knobs().turn(|knobs| {
        knobs.faults.push(Fault::times(PathClass::Manifests, FaultAnswer::empty(429), 1));
    });
    assert_eq!(scene.larder.get("/v2/app/manifests/v0").await.status, 429);
    // As long as a 429 without a time holds back. Of the pace of ten a second, one second's worth is there then.
    tokio::time::sleep(Duration::from_millis(1100)).await;

    scene.rate(Some(4 * MIB));
    scene.acr.knobs().damage(Damage::once(DamageKind::Cut, MIB as u64));
    let mut reader = scene.larder.call("GET", &scene.target).open().await;
    reader.at_least(1).await;
    drop(reader);
    for number in 0..30 {
        assert_eq!(scene.larder.get(&format!("/v2/app/manifests/v{number}")).await.status, 200);
    }
    assert_eq!(offsets(&scene), [0], "it has not gone on yet");
    scene.stored().await;
    assert!(offsets(&scene)[1] >= MIB as u64 / 2, "{:?}", offsets(&scene));
}
