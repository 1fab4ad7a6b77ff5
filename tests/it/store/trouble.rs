//! A disk that fails or does not answer: the store says so, refuses what is of no use, and finds out by itself when it is over.

use crate::store::common::{content, fill, open, read, settings, sha256, until, walked};
use bytes::Bytes;
use larder::store::disk::sim::{Fault, SimDisk};
use larder::store::{IngestError, NoRoom, OpenError, RealDisk, Store, StoreError, TroubleKind};
use larder::telemetry::Metrics;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test]
async fn a_disk_that_does_not_answer_is_asked_no_more_until_it_does() {
    let disk = SimDisk::new();
    disk.set_patience(Duration::from_millis(300));
    let (store, metrics) = open(&settings(Path::new("sim")), Arc::new(disk.clone())).await;
    walked(&store).await;
    let there = fill(&store, &content(9, 3000)).await;
    let bytes = content(1, 1000);
    let mut ingest = store.ingest(&sha256(&bytes), None).await.unwrap();
    disk.set_stuck(true);
    let hung = ingest.write(bytes.clone()).await;
    assert!(matches!(hung, Err(StoreError::Hung { .. })), "{hung:?}");
    until("the trouble is known", || store.trouble().is_some_and(|trouble| trouble.kind == TroubleKind::Hung)).await;
    let began = Instant::now();
    for attempt in 0..100 {
        let refused = store.ingest(&sha256(&[attempt]), Some(10)).await;
        assert!(matches!(refused, Err(IngestError::Refused(NoRoom::Slow))), "{refused:?}");
        let small = Bytes::from(vec![attempt]);
        let refused = store.put_small(&sha256(&small), small).await;
        assert!(matches!(refused, Err(StoreError::Refused(NoRoom::Slow))), "{refused:?}");
    }
    assert!(began.elapsed() < Duration::from_millis(300), "nobody waits any more: {:?}", began.elapsed());
    assert_eq!(read(&store, &there).await.unwrap(), content(9, 3000), "what is there is read");
    disk.set_stuck(false);
    until("the store takes what it is given", || store.trouble().is_none()).await;
    assert_eq!(metrics.store_writable.with_label_values(&[] as &[&str]).get(), 1);
    // What was being written meanwhile is there, and is gone on with.
    assert_eq!(ingest.write(Bytes::new()).await.unwrap(), 1000);
    ingest.verify().await.unwrap().commit().await.unwrap();
    assert_eq!(read(&store, &sha256(&bytes)).await.unwrap(), bytes);
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_disk_that_does_not_answer() {
    let disk = SimDisk::new();
    disk.set_patience(Duration::from_millis(200));
    let (store, _) = open(&settings(Path::new("sim")), Arc::new(disk.clone())).await;
    walked(&store).await;
    disk.set_stuck(true);
    let small = Bytes::from_static(b"{}");
    assert!(store.put_small(&sha256(&small), small).await.is_err());
    until("the trouble is known", || store.trouble().is_some()).await;
    tokio::time::timeout(Duration::from_secs(2), store.close()).await.expect("closed");
    disk.set_stuck(false);
}

/// What the disk says becomes the reason, and the first write that comes through ends the trouble.
#[tokio::test]
async fn a_disk_that_fails_is_tried_until_it_works() {
    for (fault, kind) in [
        (Fault::Full, TroubleKind::Full),
        (Fault::Quota, TroubleKind::Full),
        (Fault::ReadOnly, TroubleKind::ReadOnly),
        (Fault::Unmounted, TroubleKind::Gone),
        (Fault::Broken, TroubleKind::Broken),
    ] {
        let disk = SimDisk::new();
        let (store, metrics) = open(&settings(Path::new("sim")), Arc::new(disk.clone())).await;
        walked(&store).await;
        disk.set_fault(Some(fault));
        let small = Bytes::from_static(b"{}");
        store.put_small(&sha256(&small), small.clone()).await.unwrap_err();
        assert_eq!(store.trouble().unwrap().kind, kind, "{fault:?}");
        assert_eq!(metrics.store_writable.with_label_values(&[] as &[&str]).get(), 0);
        assert!(metrics.store_failures.with_label_values(&[kind.as_str()]).get() >= 1);
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert_eq!(store.trouble().unwrap().kind, kind, "{fault:?}: not over before it is");
        disk.set_fault(None);
        until("the trouble is over", || store.trouble().is_none()).await;
        store.put_small(&sha256(&small), small.clone()).await.unwrap();
        assert_eq!(store.read_small(&sha256(&small)).await.unwrap().unwrap(), small);
    }
}

/// The folder of a running store is removed by hand: it begins anew, and counts what it has from nothing.
#[tokio::test]
async fn a_store_whose_folder_is_removed_moves_into_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/store");
    let (store, _) = open(&settings(&path), Arc::new(RealDisk::new(&path))).await;
    walked(&store).await;
    let old = fill(&store, &content(1, 3 << 20)).await;
    fs::remove_dir_all(folder.path().join("deep")).unwrap();
    until("it has moved in again", || path.join("version").is_file() && store.trouble().is_none()).await;
    until("it has counted", || store.usage().exact && store.usage().blobs == 0).await;
    assert!(store.blob(&old).await.unwrap().is_none());
    let new = fill(&store, &content(2, 3 << 20)).await;
    assert_eq!(read(&store, &new).await.unwrap(), content(2, 3 << 20));
    assert!((3 << 20..4 << 20).contains(&store.usage().bytes), "{:?}", store.usage());
    let second = Store::open(&settings(&path), Arc::new(RealDisk::new(&path)), Arc::new(Metrics::new())).await;
    assert!(matches!(second, Err(OpenError::InUse { .. })), "it has the lock of the new folder: {second:?}");
}
