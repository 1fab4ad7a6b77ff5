use crate::common::{Bench, content, fill, link, open, read, repository, settings, sha256, until, walked};
use larder::oci::Tag;
use larder::store::disk::sim::SimDisk;
use larder::store::{IngestError, ListKey, Refusal, Store, StoreError, StoredList, TagLink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const SIZE: usize = 2_000_000;

/// A store for ten blobs, some links and the half MiB of an empty index.
async fn bench() -> Bench {
    Bench::with(|settings| settings.max_size = Some(10 * SIZE as u64 + 1_500_000)).await
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
    until("enough is removed", || bench.store.usage().bytes <= bench.store.usage().limit).await;
    assert!(bench.store.usage().blobs >= 3, "{:?}", bench.store.usage());
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
    assert!(matches!(refused, Some(StoreError::Refused(Refusal::Full { .. }))));
}

/// One of several tasks that do everything at once, with contents that they have in common.
async fn load(store: Store, task: u64) {
    for round in 0..60_u64 {
        let n = (task * 7 + round * 5) % 23;
        let bytes = content(n, 1000 + usize::try_from(n).unwrap() * 100);
        let digest = sha256(&bytes);
        let repository = repository(&format!("r{}", n % 3));
        match (task + round) % 6 {
            0 => drop(store.blob(&digest).await.unwrap()),
            1 => {
                link(&store, &repository, &[digest]).await;
            }
            2 => {
                let tag: Tag = format!("v{n}").parse().unwrap();
                store.set_tag(&repository, &tag, TagLink { digest, seen: SystemTime::now() }).await.unwrap();
                store.remove_tag(&repository, &format!("v{}", n / 2).parse().unwrap()).await.unwrap();
            }
            3 => {
                let list = StoredList { fetched: SystemTime::now(), content: bytes };
                store.set_list(&ListKey::Tags(repository), &list).await.unwrap();
            }
            how => {
                let Ok(mut ingest) = store.ingest(&digest, (how == 4).then_some(bytes.len() as u64)).await else {
                    continue;
                };
                let kept = usize::try_from(ingest.received()).unwrap();
                let stop = if round % 4 == 0 { kept.max(500) } else { bytes.len() };
                match ingest.write(bytes.slice(kept..stop)).await {
                    // Three that reserve 16 MiB at the same moment are one too many.
                    Err(StoreError::Refused(Refusal::Full { .. })) => continue,
                    written => written.unwrap(),
                };
                match round % 5 {
                    0 => ingest.discard().await,
                    1 => drop(ingest),
                    _ if stop < bytes.len() => drop(ingest),
                    _ => drop(ingest.verify().await.unwrap().commit().await.unwrap()),
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_account_agrees_with_the_disk_after_everything_at_once() {
    let disk = SimDisk::new();
    // Ingests of unknown length reserve 16 MiB each, so that there is much to evict for and some to refuse.
    let limited = larder::config::StoreSettings { max_size: Some(34 << 20), ..settings(Path::new("sim")) };
    for start in 0..3 {
        let (store, metrics) = open(&limited, Arc::new(disk.clone())).await;
        let tasks: Vec<_> = (0..6).map(|task| tokio::spawn(load(store.clone(), task + start))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        walked(&store).await;
        let parts = ["blobs", "pieces", "ingest", "lists", "repositories", "quarantine"];
        let files: Vec<_> = parts.iter().flat_map(|part| disk.files_below(Path::new(part))).collect();
        let count = |part: &str| files.iter().filter(|(path, _)| path.to_str().unwrap().contains(part)).count() as u64;
        let usage = store.usage();
        assert_eq!(usage.bytes, files.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>(), "start {start}");
        assert_eq!((usage.blobs, usage.ingests), (count("blobs/"), count("ingest/")), "start {start}");
        let objects = |kind: &str| u64::try_from(metrics.store_objects.with_label_values(&[kind]).get()).unwrap();
        assert_eq!((objects("tag"), objects("blob")), (count("/_tags/"), count("blobs/")), "start {start}");
        assert!(usage.blobs > 0 && count("/_tags/") > 0);
        store.close().await;
    }
}
