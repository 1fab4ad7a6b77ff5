use crate::common::{Bench, content, fill, link, read, repository, sha256, walked};
use larder::store::{IngestError, Refusal};
use std::time::Duration;

const SIZE: usize = 100_000;

/// A store for ten blobs and some links, whose index is not counted yet.
async fn bench() -> Bench {
    Bench::with(|settings| settings.max_size = Some(10 * SIZE as u64 + 50_000)).await
}

async fn fill_some(bench: &Bench, seeds: std::ops::Range<u64>) -> Vec<larder::oci::Digest> {
    let mut digests = Vec::new();
    for seed in seeds {
        digests.push(fill(&bench.store, &content(seed, SIZE)).await);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    digests
}

#[tokio::test]
async fn the_least_recently_used_blobs_make_room_and_manifests_go_last() {
    let bench = bench().await;
    walked(&bench.store).await;
    let manifest = link(&bench.store, &repository("a"), &[]).await;
    let blobs = fill_some(&bench, 0..10).await;
    for used in [&blobs[0], &blobs[1]] {
        bench.store.blob(used).await.unwrap();
    }
    fill(&bench.store, &content(100, SIZE)).await;
    assert!(bench.store.usage().bytes <= bench.store.usage().limit);
    assert!(read(&bench.store, &blobs[2]).await.is_none(), "the longest unused went first");
    for kept in [&blobs[0], &blobs[1], &manifest] {
        assert!(read(&bench.store, kept).await.is_some());
    }
    let evicted = bench.metrics.store_evictions.with_label_values(&["space"]).get();
    assert_eq!(bench.metrics.store_evicted_bytes.with_label_values(&[] as &[&str]).get(), evicted * SIZE as u64);
    assert!(evicted >= 1);
}

#[tokio::test]
async fn a_blob_with_a_reader_stays_and_without_anything_to_remove_the_ingest_is_refused() {
    let bench = bench().await;
    walked(&bench.store).await;
    let mut readers = Vec::new();
    for digest in fill_some(&bench, 0..10).await {
        readers.push(bench.store.blob(&digest).await.unwrap().unwrap());
    }
    let (digest, length) = (sha256(&content(100, SIZE)), Some(SIZE as u64));
    let refused = bench.store.ingest(&digest, length).await;
    assert!(matches!(refused, Err(IngestError::Refused(Refusal::Full { .. }))));
    let file = readers.remove(3).file().clone();
    assert!(bench.store.ingest(&digest, length).await.is_err(), "a file is a reader as well");
    let gone = *readers.remove(0).digest();
    drop(file);
    assert!(bench.store.ingest(&digest, length).await.is_ok());
    assert!(bench.store.blob(&gone).await.unwrap().is_none());
    for reader in readers {
        assert!(read(&bench.store, reader.digest()).await.is_some());
    }
}

#[tokio::test]
async fn last_use_survives_a_restart() {
    let mut bench = bench().await;
    let blobs = fill_some(&bench, 0..10).await;
    bench.store.blob(&blobs[0]).await.unwrap();
    bench.reopen(|_| {}).await;
    walked(&bench.store).await;
    fill(&bench.store, &content(100, SIZE)).await;
    assert!(read(&bench.store, &blobs[0]).await.is_some());
    assert!(read(&bench.store, &blobs[1]).await.is_none());
}

#[tokio::test]
async fn what_running_ingests_reserve_is_promised_to_nobody_else() {
    let bench = bench().await;
    walked(&bench.store).await;
    let large = bench.store.ingest(&sha256(b"large"), Some(9 * SIZE as u64)).await.unwrap();
    let second = bench.store.ingest(&sha256(b"second"), Some(2 * SIZE as u64)).await;
    assert!(matches!(second, Err(IngestError::Refused(Refusal::Full { .. }))));
    drop(large);
    assert!(bench.store.ingest(&sha256(b"second"), Some(2 * SIZE as u64)).await.is_ok());
}

#[tokio::test]
async fn min_free_is_kept_free() {
    let bench = Bench::with(|settings| settings.min_free = u64::MAX / 2).await;
    let refused = bench.store.ingest(&sha256(b"x"), Some(10)).await;
    assert!(matches!(refused, Err(IngestError::Refused(Refusal::Disk { .. }))));
}

#[tokio::test]
async fn a_start_with_a_smaller_limit_removes_what_is_over_it() {
    let mut bench = Bench::with(|settings| settings.max_size = Some(100 * SIZE as u64)).await;
    fill_some(&bench, 0..10).await;
    bench.reopen_with_limit(5 * SIZE as u64).await;
    walked(&bench.store).await;
    let usage = bench.store.usage();
    assert!(usage.bytes <= usage.limit && usage.blobs >= 3, "{usage:?}");
}

#[tokio::test]
async fn content_of_unknown_length_grows_its_reservation() {
    let bench = Bench::with(|settings| settings.max_size = Some(40 << 20)).await;
    let bytes = content(1, 20 << 20);
    let mut ingest = bench.store.ingest(&sha256(&bytes), None).await.unwrap();
    for start in (0..bytes.len()).step_by(1 << 20) {
        ingest.write(bytes.slice(start..start + (1 << 20))).await.unwrap();
    }
    ingest.verify().await.unwrap().commit().await.unwrap();
    let mut endless = bench.store.ingest(&sha256(b"endless"), None).await.unwrap();
    let _reader = bench.store.blob(&sha256(&bytes)).await.unwrap().unwrap();
    let mut refused = None;
    for _ in 0..40 {
        refused = endless.write(content(2, 1 << 20)).await.err();
        if refused.is_some() {
            break;
        }
    }
    assert!(matches!(refused, Some(larder::store::StoreError::Refused(Refusal::Full { .. }))));
}
