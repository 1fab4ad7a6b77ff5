//! What a disk does to stored content is found before it is handed out, and heals.

use crate::store::common::{Bench, content, fill, open, read, settings, sha256, until, walked};
use bytes::Bytes;
use larder::oci::Digest;
use larder::store::disk::sim::SimDisk;
use larder::store::{Blob, Store, StoreError};
use larder::telemetry::Metrics;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

fn blob_path(digest: &Digest) -> PathBuf {
    format!("blobs/sha256/{}", digest.hex()).into()
}

fn pieces_path(digest: &Digest) -> PathBuf {
    format!("pieces/sha256/{}", digest.hex()).into()
}

/// Changes a file as a disk does, whatever its mode.
fn alter(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn flip(at: u64) -> impl FnOnce(&mut Vec<u8>) {
    move |bytes| bytes[usize::try_from(at).unwrap()] ^= 4
}

fn failures(metrics: &Metrics) -> u64 {
    metrics.digest_failures.with_label_values(&["read"]).get()
}

fn quarantined(metrics: &Metrics) -> i64 {
    metrics.quarantined.with_label_values(&[] as &[&str]).get()
}

async fn blob(store: &Store, digest: &Digest) -> Blob {
    store.blob(digest).await.unwrap().unwrap()
}

/// What a server sends: nothing that is not checked.
async fn send(blob: &Blob, range: Range<u64>) -> Result<Bytes, StoreError> {
    blob.file().check(range.clone()).await?;
    Ok(blob.file().read(range.start, usize::try_from(range.end - range.start).unwrap()).await.unwrap())
}

#[tokio::test]
async fn a_flipped_bit_never_leaves_and_the_blob_is_absent_afterwards() {
    let mut bench = Bench::new().await;
    let bytes = content(1, 8 << 20);
    let digest = fill(&bench.store, &bytes).await;
    assert!(blob(&bench.store, &digest).await.file().is_checked(&(0..8 * MIB)), "what was just written");
    let at = 4 * MIB + 77;
    bench.reopen(|folder| alter(&folder.join(blob_path(&digest)), flip(at))).await;
    let found = blob(&bench.store, &digest).await;
    assert!(!found.file().is_checked(&(0..1)));
    for good in [0..10, 3 * MIB..4 * MIB, 5 * MIB..8 * MIB] {
        let expected = bytes.slice(usize::try_from(good.start).unwrap()..usize::try_from(good.end).unwrap());
        assert_eq!(send(&found, good.clone()).await.unwrap(), expected);
        assert!(found.file().is_checked(&good), "nothing is checked twice");
    }
    assert_eq!(failures(&bench.metrics), 0);
    for bad in [at..at + 1, 0..8 * MIB, 4 * MIB - 1..4 * MIB + 1] {
        assert!(matches!(send(&found, bad).await, Err(StoreError::Damaged { .. })));
    }
    assert_eq!((failures(&bench.metrics), quarantined(&bench.metrics)), (1, 1), "counted once");
    assert!(bench.store.blob(&digest).await.unwrap().is_none());
    assert_eq!(fs::read_dir(bench.path("quarantine")).unwrap().count(), 1);
    assert!(!bench.path(pieces_path(&digest)).exists());
    fill(&bench.store, &bytes).await;
    assert_eq!(
        send(&found, 0..10).await.unwrap(),
        bytes.slice(..10),
        "a reader of the old file may finish its good part"
    );
    assert_eq!(read(&bench.store, &digest).await.unwrap(), bytes);
    assert!(matches!(send(&found, at..at + 1).await, Err(StoreError::Damaged { .. })));
    assert!(bench.store.blob(&digest).await.unwrap().is_some(), "the new one is not blamed for the old one");
}

#[tokio::test]
async fn what_was_checked_is_remembered_when_the_file_is_closed() {
    let mut bench = Bench::new().await;
    let digest = fill(&bench.store, &content(1, 3 << 20)).await;
    bench.reopen(|_| {}).await;
    blob(&bench.store, &digest).await.file().check(0..2 * MIB).await.unwrap();
    for n in 0..300_u64 {
        let bytes = Bytes::copy_from_slice(&n.to_le_bytes());
        bench.store.put_small(&sha256(&bytes), bytes).await.unwrap();
    }
    let again = blob(&bench.store, &digest).await;
    assert!(again.file().is_checked(&(0..2 * MIB)) && !again.file().is_checked(&(0..2 * MIB + 1)));
}

#[tokio::test]
async fn small_blobs_are_checked_when_they_are_opened() {
    let mut bench = Bench::new().await;
    let bytes = content(1, 1 << 20);
    let digest = fill(&bench.store, &bytes).await;
    assert!(!bench.path(pieces_path(&digest)).exists());
    bench.reopen(|folder| alter(&folder.join(blob_path(&digest)), flip(5))).await;
    assert!(bench.store.blob(&digest).await.unwrap().is_none());
    assert_eq!((failures(&bench.metrics), quarantined(&bench.metrics)), (1, 1));
}

type Change = (&'static str, fn(&mut Vec<u8>));

#[tokio::test]
async fn missing_or_damaged_checksums_are_made_anew_from_content_that_holds() {
    let changes: [Change; 4] = [
        ("empty", |bytes| bytes.clear()),
        ("cut", |bytes| bytes.truncate(bytes.len() - 1)),
        ("a bit flipped", |bytes| bytes[90] ^= 1),
        ("garbage", |bytes| *bytes = vec![0xff; 300]),
    ];
    let mut bench = Bench::new().await;
    let bytes = content(1, 3 << 20);
    let digest = fill(&bench.store, &bytes).await;
    let whole = fs::read(bench.path(pieces_path(&digest))).unwrap();
    for (what, change) in changes {
        bench.reopen(|folder| alter(&folder.join(pieces_path(&digest)), change)).await;
        let found = blob(&bench.store, &digest).await;
        assert_eq!(send(&found, 7..9).await.unwrap(), bytes.slice(7..9), "{what}");
        assert!(found.file().is_checked(&(0..3 * MIB)), "{what}: all of it was hashed");
        assert_eq!(fs::read(bench.path(pieces_path(&digest))).unwrap(), whole, "{what}");
    }
    let other = fill(&bench.store, &content(2, 3 << 20)).await;
    bench
        .reopen(|folder| {
            fs::copy(folder.join(pieces_path(&other)), folder.join(pieces_path(&digest))).unwrap();
            fs::remove_file(folder.join(pieces_path(&other))).unwrap();
            alter(&folder.join(blob_path(&other)), flip(MIB));
        })
        .await;
    assert_eq!(send(&blob(&bench.store, &digest).await, 0..1).await.unwrap(), bytes.slice(..1), "another blob's");
    let damaged = send(&blob(&bench.store, &other).await, 0..1).await;
    assert!(matches!(damaged, Err(StoreError::Damaged { .. })), "without checksums the digest decides");
    assert_eq!(failures(&bench.metrics), 1);
}

#[tokio::test]
async fn readers_who_leave_do_not_stop_the_hash_of_a_blob_without_checksums() {
    let mut bench = Bench::new().await;
    let digest = fill(&bench.store, &content(1, 3 << 20)).await;
    bench.reopen(|folder| fs::remove_file(folder.join(pieces_path(&digest))).unwrap()).await;
    let found = blob(&bench.store, &digest).await;
    while !found.file().is_checked(&(0..3 * MIB)) {
        let check = found.file().check(0..1);
        let _ = tokio::time::timeout(std::time::Duration::from_millis(1), check).await;
    }
    send(&found, 0..3 * MIB).await.unwrap();
}

#[tokio::test]
async fn a_file_that_became_shorter_is_absent() {
    let mut bench = Bench::new().await;
    let digest = fill(&bench.store, &content(1, 5 << 20)).await;
    for (lost, len) in [("an end", 3 << 20), ("nearly all", 1000), ("all", 0)] {
        bench.reopen(|folder| alter(&folder.join(blob_path(&digest)), |bytes| bytes.truncate(len))).await;
        assert!(bench.store.blob(&digest).await.unwrap().is_none(), "{lost}");
        walked(&bench.store).await;
        fill(&bench.store, &content(1, 5 << 20)).await;
    }
    let open = blob(&bench.store, &digest).await;
    let path = bench.path(blob_path(&digest));
    let mut mode = fs::metadata(&path).unwrap().permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "a test's folder")]
    mode.set_readonly(false);
    fs::set_permissions(&path, mode).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
    // Whoever sends it meets the end too early, and says so.
    open.file().distrust();
    assert!(matches!(open.file().check(0..1).await, Err(StoreError::Damaged { .. })));
    assert!(bench.store.blob(&digest).await.unwrap().is_none());
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_absent_and_is_replaced() {
    let disk = SimDisk::new();
    let (large, small) = (content(1, 3 << 20), content(2, 100));
    let (store, _) = open(&settings(Path::new("sim")), Arc::new(disk.clone())).await;
    let digests = [fill(&store, &large).await, fill(&store, &small).await];
    store.close().await;
    for digest in &digests {
        disk.set_unreadable(&blob_path(digest));
    }
    let (store, metrics) = open(&settings(Path::new("sim")), Arc::new(disk.clone())).await;
    let found = blob(&store, &digests[0]).await;
    assert!(matches!(send(&found, 0..1).await, Err(StoreError::Damaged { .. })));
    assert!(store.blob(&digests[0]).await.unwrap().is_none());
    assert!(store.read_small(&digests[1]).await.unwrap().is_none());
    assert_eq!((failures(&metrics), quarantined(&metrics)), (2, 2));
    store.put_small(&digests[1], small.clone()).await.unwrap();
    assert_eq!(store.read_small(&digests[1]).await.unwrap(), Some(small));
    walked(&store).await;
    let files = disk.files_below(Path::new("")).into_iter();
    let counted = files.filter(|(path, _)| ["blobs", "quarantine", "pieces"].iter().any(|part| path.starts_with(part)));
    assert_eq!(store.usage().bytes, counted.map(|(_, bytes)| bytes.len() as u64).sum::<u64>());
}

#[tokio::test]
async fn checksums_go_with_their_blob_and_orphans_at_the_next_start() {
    let mut bench = Bench::with(|settings| settings.max_size = Some(12 << 20)).await;
    walked(&bench.store).await;
    let first = fill(&bench.store, &content(1, 5 << 20)).await;
    let second = fill(&bench.store, &content(2, 5 << 20)).await;
    fill(&bench.store, &content(3, 5 << 20)).await;
    assert!(bench.store.blob(&first).await.unwrap().is_none());
    assert!(!bench.path(pieces_path(&first)).exists());
    bench.reopen(|folder| fs::remove_file(folder.join(blob_path(&second))).unwrap_or_default()).await;
    walked(&bench.store).await;
    let path = bench.path(pieces_path(&second));
    until("the orphan is gone", || !path.exists()).await;
}

/// The same steps as every small file, so that a crash leaves checksums that hold or none.
#[tokio::test]
async fn a_crash_at_any_moment_leaves_a_blob_that_can_be_checked_or_none() {
    let bytes = content(1, (1 << 20) + 9);
    let load = async |disk: &SimDisk| -> Result<(), Box<dyn std::error::Error>> {
        let settings = settings(Path::new("sim"));
        let store = Store::open(&settings, Arc::new(disk.clone()), Arc::new(Metrics::new())).await?;
        let mut ingest = store.ingest(&sha256(&bytes), Some(bytes.len() as u64)).await?;
        ingest.write(bytes.clone()).await?;
        ingest.verify().await?.commit().await?;
        store.close().await;
        Ok(())
    };
    let whole = SimDisk::new();
    load(&whole).await.unwrap();
    for step in 0..=whole.steps() {
        let disk = SimDisk::new();
        disk.stop_at(step);
        let promised = load(&disk).await.is_ok();
        for seed in 0..3 {
            let crashed = disk.crash(step * 3 + seed);
            let (store, metrics) = open(&settings(Path::new("sim")), Arc::new(crashed.clone())).await;
            match store.blob(&sha256(&bytes)).await.unwrap() {
                Some(found) => assert_eq!(send(&found, 0..bytes.len() as u64).await.unwrap(), bytes),
                None => assert!(!promised, "step {step}, seed {seed}: what was promised is gone"),
            }
            assert_eq!(failures(&metrics), 0, "step {step}, seed {seed}");
            if promised {
                assert!(!crashed.files_below(Path::new("pieces")).is_empty(), "step {step}, seed {seed}");
            }
            store.close().await;
        }
    }
}
