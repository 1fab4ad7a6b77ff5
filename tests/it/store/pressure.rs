//! Making room while everything goes on. `docs/testing.md` says how to run these at full size.

use crate::store::common::{Bench, content, fill, link, open, repository, settings, sha256, until_async, walked};
use larder::config::StoreSettings;
use larder::oci::Digest;
use larder::store::disk::sim::SimDisk;
use larder::store::{IngestError, NoRoom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const SMALL: usize = 1024;

/// The longest that 99 of 100 took.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[(times.len() * 99).div_ceil(100) - 1]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_hit_waits_for_an_eviction() {
    let count: usize = std::env::var("LARDER_TEST_EVICT").map_or(3000, |count| count.parse().unwrap());
    let digests: Vec<Digest> = (0..count).map(|seed| sha256(&content(seed as u64, SMALL))).collect();
    let mut bench = Bench::new().await;
    let limit = (count * SMALL + 3_200_000) as u64;
    bench.set(|settings| settings.max_size = Some(limit));
    bench
        .reopen(|folder| {
            for (seed, digest) in digests.iter().enumerate() {
                let path = folder.join("blobs/sha256").join(digest.hex());
                std::fs::write(path, content(seed as u64, SMALL)).unwrap();
            }
        })
        .await;
    while !bench.store.usage().exact {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let hot = &digests[..50];
    let hit = async |number: usize| {
        let begun = Instant::now();
        let blob = bench.store.blob(&hot[number % hot.len()]).await.unwrap().unwrap();
        assert_eq!(blob.file().read(0, SMALL).await.unwrap().len(), SMALL);
        begun.elapsed()
    };
    let mut alone = Vec::new();
    for number in 0..2000 {
        alone.push(hit(number).await);
    }

    // The index takes half a megabyte as soon as it is written, and is counted twice: what is left beside the large one has room for it.
    let (store, large) = (bench.store.clone(), content(0, usize::try_from(limit).unwrap() / 100 * 78));
    let begun = Instant::now();
    // What is announced removes nothing: the first bytes do.
    let eviction = tokio::spawn(async move {
        let mut ingest = store.ingest(&sha256(b"large"), Some(large.len() as u64)).await.unwrap();
        ingest.write(large).await.map(drop)
    });
    let mut beside = Vec::new();
    while !eviction.is_finished() {
        beside.push(hit(beside.len()).await);
    }
    eviction.await.unwrap().unwrap();
    let took = begun.elapsed();
    let evicted = bench.metrics.store_evictions.with_label_values(&["space"]).get();
    println!("{evicted} evictions in {took:?}; {} hits beside", beside.len());
    assert!(evicted >= (count as u64) * 7 / 10, "{evicted} of {count}");
    assert!(beside.len() > 20, "{} hits in {took:?}", beside.len());
    let (alone, beside) = (p99(alone), p99(beside));
    println!("p99 of a hit: {alone:?} alone, {beside:?} beside");
    // Below some milliseconds the machine's scheduler is measured.
    assert!(beside <= (alone * 2).max(Duration::from_millis(5)), "{beside:?}, alone {alone:?}");
    for digest in hot {
        assert!(bench.store.blob(digest).await.unwrap().is_some(), "what was just used stays");
    }
}

/// More has to go than a disk removes before it counts as one that hangs: the download waits, and nothing else does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_eviction_is_no_disk_that_hangs() {
    const COUNT: usize = 300;
    let disk = SimDisk::new();
    disk.set_patience(Duration::from_millis(500));
    let limit = Some((COUNT * SMALL) as u64 + 100_000);
    let settings = StoreSettings { max_size: limit, ..settings(Path::new("sim")) };
    let (store, metrics) = open(&settings, Arc::new(disk.clone())).await;
    walked(&store).await;
    for seed in 0..COUNT as u64 {
        fill(&store, &content(seed, SMALL)).await;
    }
    // A second and a half for all of them.
    disk.set_removal(Duration::from_millis(5));
    let large = (COUNT * SMALL) as u64;
    let mut ingest = store.ingest(&sha256(b"large"), Some(large)).await.unwrap();
    let written = ingest.write(content(COUNT as u64, COUNT * SMALL)).await;
    assert!(written.is_ok(), "{written:?}");
    assert!(metrics.store_evictions.with_label_values(&["space"]).get() > 100);
    ingest.discard().await;
    let mut later = store.ingest(&sha256(b"later"), None).await.unwrap();
    later.expect_length(large).await.unwrap();
    assert!(store.trouble().is_none(), "{:?}", store.trouble());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_used_during_a_long_eviction_stays() {
    const COUNT: u64 = 300;
    let disk = SimDisk::new();
    disk.set_patience(Duration::from_millis(500));
    let limit = COUNT * SMALL as u64 + 100_000;
    let settings = StoreSettings { max_size: Some(limit), ..settings(Path::new("sim")) };
    let (store, metrics) = open(&settings, Arc::new(disk.clone())).await;
    walked(&store).await;
    for seed in 0..COUNT {
        fill(&store, &content(seed, SMALL)).await;
    }
    let some = |seeds: Range<u64>| -> Vec<Digest> { seeds.map(|seed| sha256(&content(seed, SMALL))).collect() };
    let (used, named) = (some(200..210), some(210..220));
    let manifest = link(&store, &repository("a"), &named).await;
    disk.set_removal(Duration::from_millis(5));
    let eviction = {
        let store = store.clone();
        let large = content(COUNT, usize::try_from(limit).unwrap() / 10 * 8);
        tokio::spawn(async move {
            let mut ingest = store.ingest(&sha256(b"large"), Some(large.len() as u64)).await.unwrap();
            ingest.write(large).await.map(drop)
        })
    };
    let evicted = || metrics.store_evictions.with_label_values(&["space"]).get();
    until_async("the eviction has begun", async || evicted() > 0).await;
    for digest in &used {
        assert!(store.blob(digest).await.unwrap().is_some());
    }
    store.used(&manifest);
    eviction.await.unwrap().unwrap();
    assert!(evicted() > 220, "{}", evicted());
    for digest in used.iter().chain(&named) {
        assert!(store.blob(digest).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn what_is_only_announced_removes_nothing_and_room_is_made_as_bytes_arrive() {
    let mut bench = Bench::with(|settings| settings.max_size = Some(64 << 20)).await;
    for number in 0..12 {
        fill(&bench.store, &content(number, 4 << 20)).await;
    }
    bench.reopen(|_| {}).await;
    walked(&bench.store).await;
    let bytes = content(100, 40 << 20);
    let mut ingest = bench.store.ingest(&sha256(&bytes), Some(bytes.len() as u64)).await.unwrap();
    assert_eq!(bench.store.usage().blobs, 12, "nothing has come");
    let mut least = 12;
    for start in (0..bytes.len()).step_by(1 << 20) {
        ingest.write(bytes.slice(start..start + (1 << 20))).await.unwrap();
        let left = bench.store.usage().blobs;
        if start < 16 << 20 {
            assert!(left >= 6, "{left} blobs after {start} bytes");
        }
        least = least.min(left);
    }
    assert!(least < 6, "{least}");
    ingest.verify().await.unwrap().commit().await.unwrap();
    assert!(bench.store.usage().bytes <= 64 << 20);
    let mut upload = bench.store.upload().await.unwrap();
    let before = bench.store.usage().blobs;
    upload.expect(60 << 20).await.unwrap();
    assert_eq!(bench.store.usage().blobs, before, "what a client announces does not, either");
}

/// No room that could be made is enough for it: nothing goes, not even what nobody goes on with.
#[tokio::test]
async fn what_is_larger_than_the_store_takes_nothing_from_it() {
    let bench = Bench::with(|settings| settings.max_size = Some(1_000_000)).await;
    walked(&bench.store).await;
    let left = sha256(b"left");
    bench.store.ingest(&left, Some(500_000)).await.unwrap().write(content(1, 100_000)).await.unwrap();
    let refused = bench.store.ingest(&sha256(b"larger"), Some(1_000_001)).await.map(drop);
    assert!(matches!(refused, Err(IngestError::Refused(NoRoom::TooLarge { .. }))), "{refused:?}");
    let mut unknown = bench.store.ingest(&sha256(b"unknown"), None).await.unwrap();
    unknown.expect_length(1_000_001).await.unwrap_err();
    assert!(bench.path(format!("ingest/sha256/{}", left.hex())).is_file());
}

#[tokio::test]
async fn ingests_that_nobody_goes_on_with_make_room_at_once_and_running_ones_never() {
    const PART: usize = 4_000_000;
    let bench = Bench::with(|settings| settings.max_size = Some(5 * PART as u64 + 1_500_000)).await;
    walked(&bench.store).await;
    let begin =
        async |name: &str, length: usize| bench.store.ingest(&sha256(name.as_bytes()), Some(length as u64)).await;
    let file = |name: &str| bench.path(format!("ingest/sha256/{}", sha256(name.as_bytes()).hex()));
    let mut running = begin("running", 2 * PART).await.unwrap();
    running.write(content(1, PART)).await.unwrap();
    for left in ["left", "left too"] {
        begin(left, PART).await.unwrap().write(content(2, PART / 2)).await.unwrap();
    }
    let refused = begin("large", 4 * PART).await;
    assert!(matches!(refused, Err(IngestError::Refused(NoRoom::Full { .. }))), "what runs keeps its room");
    assert!(file("running").exists());
    // Dropped a moment ago, or refused: their last job may still hold them.
    let other = async || begin("other", 3 * PART).await.ok()?.write(content(4, 3 * PART)).await.ok();
    until_async("those that were left make room", async || other().await.is_some()).await;
    assert!(!file("left").exists() && !file("left too").exists());
    running.write(content(3, PART)).await.unwrap();
    assert_eq!(running.received(), 2 * PART as u64);
}
