//! Where the store takes no download, it passes through: a disk with no room is never a failed pull.

use super::disk::TroubledDisk;
use super::harness::simulator::{Damage, DamageKind, Options, Redirect, samples};
use super::harness::{Acr, Larder, Setup, until, until_async};
use super::{MIB, Scene};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const BYPASS: &str = "larder; fwd=bypass";

fn small_store(setup: Setup) -> Setup {
    setup.with(|settings| settings.store.max_size = Some(4 * MIB as u64))
}

fn full_disk(setup: Setup) -> Setup {
    setup.with(|settings| settings.store.min_free = u64::MAX / 4)
}

#[tokio::test]
async fn a_blob_larger_than_the_store_passes_through() {
    let scene = Scene::with(8 * MIB, Redirect::Sas, small_store).await;
    for downloads in 1..=2 {
        let answer = scene.serves().await;
        assert_eq!(answer.cache_status(), BYPASS);
        assert_eq!(scene.ranges(), vec![None; downloads], "one download for one reader");
    }
    assert!(!scene.larder.stores(&scene.digest));
    assert_eq!(scene.fills("bypassed").await, 2);
    let kept = std::fs::read_dir(scene.larder.setup.store().join("ingest/sha256")).unwrap().count();
    assert_eq!(kept, 0, "nothing is left of it");
}

#[tokio::test]
async fn several_readers_at_once_each_get_all_of_it() {
    let scene = Scene::with(8 * MIB, Redirect::Sas, small_store).await;
    scene.acr.knobs().turn(|knobs| knobs.storage.delay_ms = 100);
    let (a, b, c) = tokio::join!(scene.serves(), scene.serves(), scene.serves());
    for answer in [a, b, c] {
        assert_eq!(answer.cache_status(), BYPASS);
    }
}

#[tokio::test]
async fn a_full_disk_fails_no_pull() {
    let acr = Acr::start(Options::public()).await;
    let layer = samples::incompressible(1, MIB);
    let artifact = acr.push_artifact("app", "v1", &[("layer", "application/octet-stream", layer.clone())]);
    let larder = full_disk(Setup::of(&acr)).start().await;
    for _ in 0..2 {
        let manifest = larder.get("/v2/app/manifests/v1").await;
        assert_eq!(
            (manifest.status.as_u16(), manifest.cache_status().starts_with(BYPASS)),
            (200, true),
            "{manifest:?}"
        );
        let config = larder.get(&format!("/v2/app/blobs/{}", super::harness::sha256(b"{}"))).await;
        assert_eq!((config.status.as_u16(), config.cache_status()), (200, BYPASS));
        let blob = larder.get(&format!("/v2/app/blobs/{}", artifact.layers[0])).await;
        assert_eq!((blob.status.as_u16(), blob.cache_status()), (200, BYPASS));
        assert!(blob.body == layer);
        let part = larder.call("GET", &format!("/v2/app/blobs/{}", artifact.layers[0])).range("bytes=-10").send().await;
        assert_eq!((part.status.as_u16(), part.cache_status()), (206, "larder; fwd=bypass; detail=unverified"));
        assert!(part.body == layer[MIB - 10..]);
    }
}

#[tokio::test]
async fn wrong_bytes_that_pass_through_are_broken_as_ever() {
    for damage in [
        Damage::always(DamageKind::Flip, 0),
        Damage::always(DamageKind::Flip, 8 * MIB as u64 - 1),
        Damage::always(DamageKind::Short, MIB as u64),
        Damage::always(DamageKind::Long, 1),
    ] {
        let what = format!("{damage:?}");
        let scene = Scene::with(8 * MIB, Redirect::Sas, small_store).await;
        scene.acr.knobs().damage(damage);
        let answer = scene.larder.call("GET", &scene.target).open().await;
        let (count, _, end) = answer.hashed().await;
        assert!(end.is_err(), "{what}: {count} bytes and a clean end");
        scene.heal();
        scene.serves().await;
    }
    let scene = Scene::with(10_000, Redirect::Sas, full_disk).await;
    scene.acr.knobs().damage(Damage::always(DamageKind::Flip, 0));
    assert_eq!(scene.larder.get(&scene.target).await.error().0, 502);
}

#[tokio::test]
async fn a_cut_on_the_way_through_is_resumed() {
    let scene = Scene::with(8 * MIB, Redirect::Sas, small_store).await;
    scene.acr.knobs().damage(Damage::times(DamageKind::Cut, MIB as u64, 3));
    scene.serves().await;
    assert_eq!(scene.bodies().len(), 4);
}

/// What passes through is read at the reader's pace, through a window.
#[tokio::test]
async fn a_reader_that_stands_still_stops_what_passes_through() {
    let scene = Scene::with(64 * MIB, Redirect::Sas, small_store).await;
    let mut still = scene.larder.call("GET", &scene.target).open().await;
    still.at_least(1).await;
    let sent = || scene.bodies().iter().map(|seen| seen.sent).sum::<u64>();
    let mut before = 0;
    while sent() != before {
        before = sent();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // The buffers of four sockets, and the window.
    assert!(before < 40 * MIB as u64, "{before} bytes were read for a reader that takes none");
    assert_eq!(still.hashed().await.1, scene.digest);
}

/// Larder over a disk that does something before each write to an ingest.
async fn troubled(acr: &Acr, before_write: impl Fn(u64) -> io::Result<()> + Send + Sync + 'static) -> Larder {
    let setup = Setup::of(acr);
    let disk = TroubledDisk::new(setup.store(), Arc::new(before_write));
    Larder::start_on(setup, Arc::new(disk)).await
}

/// The disk fills up under a download: its readers go on without it, each at its own offset.
#[tokio::test]
async fn a_disk_that_fails_in_the_middle_fails_no_pull() {
    let acr = Acr::start(Options::public()).await;
    acr.knobs().turn(|knobs| knobs.total_rate = Some(16 * MIB as u64));
    let content = samples::incompressible(5, 8 * MIB);
    let target = format!("/v2/app/blobs/{}", acr.push_blob("app", content.clone()));
    let failing = Arc::new(AtomicBool::new(true));
    let fails = Arc::clone(&failing);
    let larder = troubled(&acr, move |offset| {
        let full = offset > 3 * MIB as u64 && fails.load(Ordering::SeqCst);
        if full { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
    })
    .await;
    let part = larder.call("GET", &target).range(&format!("bytes={MIB}-"));
    let (a, b, part) = tokio::join!(larder.get(&target), larder.get(&target), part.send());
    for answer in [a, b] {
        assert!(answer.body == content, "{} bytes", answer.body.len());
    }
    assert!(part.body == content[MIB..], "{} bytes", part.body.len());
    failing.store(false, Ordering::SeqCst);
    assert!(larder.get(&target).await.body == content);
    until("it is stored once the disk works", || larder.stores(&target["/v2/app/blobs/".len()..])).await;
}

/// And wrong bytes do not get a clean end that way: neither if the rest is wrong, too, nor if only what came before was.
#[tokio::test]
async fn a_disk_that_fails_in_the_middle_of_wrong_bytes_is_no_excuse_for_them() {
    for damage in [Damage::always(DamageKind::Flip, 9), Damage::once(DamageKind::Flip, 9)] {
        let what = format!("{damage:?}");
        let acr = Acr::start(Options::public()).await;
        acr.knobs().damage(damage);
        acr.knobs().turn(|knobs| knobs.total_rate = Some(16 * MIB as u64));
        let target = format!("/v2/app/blobs/{}", acr.push_blob("app", samples::incompressible(5, 8 * MIB)));
        let larder = troubled(&acr, |offset| {
            if offset > 3 * MIB as u64 { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
        })
        .await;
        let (count, _, end) = larder.call("GET", &target).open().await.hashed().await;
        assert!(end.is_err(), "{what}: {count} bytes and a clean end");
    }
}

/// Upstream is read no faster than the disk takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_stands_still_stops_the_download() {
    let acr = Acr::start(Options::public()).await;
    let content = samples::incompressible(5, 64 * MIB);
    let digest = acr.push_blob("app", content);
    let target = format!("/v2/app/blobs/{digest}");
    let stuck = Arc::new(AtomicBool::new(true));
    let waits = Arc::clone(&stuck);
    let larder = troubled(&acr, move |offset| {
        while offset > MIB as u64 && waits.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    })
    .await;
    let mut reader = larder.call("GET", &target).open().await;
    reader.at_least(1).await;
    let sent = || acr.log().iter().filter(|seen| seen.is_blob_body()).map(|seen| seen.sent).sum::<u64>();
    let mut before = 0;
    while sent() != before {
        before = sent();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(before < 24 * MIB as u64, "{before} bytes were read for a disk that takes none");
    stuck.store(false, Ordering::SeqCst);
    assert_eq!(reader.hashed().await.1, digest);
}

#[tokio::test]
async fn a_range_is_refused_for_a_length_that_the_registry_confirms_and_for_no_other() {
    let scene = Scene::with(8 * MIB, Redirect::Sas, small_store).await;
    let range = format!("bytes={}-{}", 5 * MIB, 5 * MIB + 9);
    // Storage says that the blob is shorter than it is.
    scene.acr.knobs().damage(Damage::once(DamageKind::Short, MIB as u64));
    let answer = scene.larder.call("GET", &scene.target).range(&range).send().await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    let answer = scene.larder.call("GET", &scene.target).range(&range).send().await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (206, &scene.content[5 * MIB..5 * MIB + 10]));
    let answer = scene.larder.call("GET", &scene.target).range(&format!("bytes={}-", 8 * MIB)).send().await;
    assert_eq!(answer.status, 416);
    assert_eq!(answer.header("content-range"), Some(&*format!("bytes */{}", 8 * MIB)));
}

/// A thread of the store that panics under a download takes nobody with it: the readers get all of the content, or a broken answer, and
/// the next one gets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_the_middle_of_a_download_leaves_nobody_waiting() {
    let acr = Acr::start(Options::public()).await;
    acr.knobs().turn(|knobs| knobs.total_rate = Some(16 * MIB as u64));
    let content = samples::incompressible(6, 4 * MIB);
    let digest = acr.push_blob("app", content.clone());
    let target = format!("/v2/app/blobs/{digest}");
    let armed = Arc::new(AtomicBool::new(true));
    let fuse = Arc::clone(&armed);
    let larder = troubled(&acr, move |offset| {
        assert!(offset < MIB as u64 || !fuse.swap(false, Ordering::SeqCst), "a panic on purpose");
        Ok(())
    })
    .await;
    let part = larder.call("GET", &target).range(&format!("bytes={}-", 2 * MIB));
    let (first, second) = (larder.call("GET", &target).try_send(), larder.call("GET", &target).try_send());
    let readers = async { tokio::join!(first, second, part.try_send()) };
    let (first, second, part) = tokio::time::timeout(Duration::from_secs(60), readers).await.unwrap();
    assert!(!armed.load(Ordering::SeqCst), "it has panicked");
    for answer in [first, second] {
        let (whole, body) = match answer {
            Ok(answer) => (answer.status == 200, answer.body),
            Err(broken) => (false, broken.answer.body),
        };
        assert!(if whole { body == content } else { body.len() < content.len() && content.starts_with(&body) });
    }
    if let Ok(part) = part {
        assert!(part.status == 206 && part.body == content[2 * MIB..], "{}", part.status);
    }
    assert!(larder.get(&target).await.body == content);
    until("it is stored", || larder.stores(&digest)).await;
    until_async("no download is under way", async || larder.metric("larder_fills_inflight").await == 0).await;
}
