use crate::store::common::{
    Bench, content, fill, link, open, read, repository, settings, sha256, until, until_async, walked,
};
use larder::oci::{Digest, Registry, Repository, Tag};
use larder::store::disk::sim::SimDisk;
use larder::store::{AwayRegistries, IngestError, ListKey, NoRoom, Store, StoreError, StoredList, TagLink};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

const SIZE: usize = 2_000_000;

/// A store for ten blobs, some links and the half MiB of an empty index.
async fn bench() -> Bench {
    Bench::with(|settings| settings.max_size = Some(10 * SIZE as u64 + 1_500_000)).await
}

async fn fill_some(bench: &Bench, seeds: std::ops::Range<u64>) -> Vec<Digest> {
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
    let (bytes, length) = (content(100, SIZE), Some(SIZE as u64));
    let digest = sha256(&bytes);
    let refused = bench.store.ingest(&digest, length).await;
    assert!(matches!(refused, Err(IngestError::Refused(NoRoom::Full { .. }))));
    let file = readers.remove(3).file().clone();
    assert!(bench.store.ingest(&digest, length).await.is_err(), "a file is a reader as well");
    let gone = *readers.remove(0).digest();
    drop(file);
    bench.store.ingest(&digest, length).await.unwrap().write(bytes).await.unwrap();
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
    assert!(matches!(second, Err(IngestError::Refused(NoRoom::Full { .. }))));
    drop(large);
    assert!(bench.store.ingest(&sha256(b"second"), Some(2 * SIZE as u64)).await.is_ok());
}

#[tokio::test]
async fn min_free_is_kept_free() {
    let bench = Bench::with(|settings| settings.min_free = u64::MAX / 2).await;
    let refused = bench.store.ingest(&sha256(b"x"), Some(10)).await;
    assert!(matches!(refused, Err(IngestError::Refused(NoRoom::Disk { .. }))));
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
    assert!(matches!(refused, Some(StoreError::Refused(NoRoom::Full { .. }))));
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
                    Err(StoreError::Refused(NoRoom::Full { .. })) => continue,
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

/// Says in the file's time that a blob was last used so long ago.
fn age(folder: &Path, path: &str, ago: Duration) {
    let file = std::fs::File::open(folder.join(path)).unwrap();
    file.set_modified(SystemTime::now() - ago).unwrap();
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn one_pass_over_much_content_does_not_flush_what_was_used_again() {
    let mut bench = bench().await;
    let hot = fill_some(&bench, 0..3).await;
    let once = fill_some(&bench, 3..5).await;
    bench.reopen(|folder| hot.iter().chain(&once).for_each(|digest| age(folder, &blob_path(digest), HOUR))).await;
    walked(&bench.store).await;
    for digest in &hot {
        bench.store.blob(digest).await.unwrap();
    }
    // That it was used again is known after a restart, too.
    bench.reopen(|_| {}).await;
    walked(&bench.store).await;
    fill_some(&bench, 100..130).await;
    for digest in &hot {
        assert!(bench.store.blob(digest).await.unwrap().is_some(), "used again, and gone");
    }
    for digest in &once {
        assert!(bench.store.blob(digest).await.unwrap().is_none(), "used once, and kept");
    }
}

#[tokio::test]
async fn using_a_manifest_keeps_what_it_refers_to() {
    let mut bench = bench().await;
    let blobs = fill_some(&bench, 0..9).await;
    let from_disk = link(&bench.store, &repository("a"), &blobs[..1]).await;
    let from_memory = link(&bench.store, &repository("b"), &blobs[1..2]).await;
    bench.reopen(|folder| blobs.iter().for_each(|digest| age(folder, &blob_path(digest), HOUR))).await;
    walked(&bench.store).await;
    bench.store.read_small(&from_disk).await.unwrap().unwrap();
    bench.store.used(&from_memory);
    fill_some(&bench, 100..103).await;
    for digest in &blobs[..2] {
        assert!(bench.store.blob(digest).await.unwrap().is_some(), "its manifest was used");
    }
    let mut left = 0;
    for digest in &blobs[2..] {
        left += u32::from(bench.store.blob(digest).await.unwrap().is_some());
    }
    assert!(left < 7, "something had to go");
}

#[tokio::test]
async fn what_is_pinned_stays_with_all_that_it_refers_to() {
    let mut bench = bench().await;
    let before = fill_some(&bench, 0..3).await;
    link(&bench.store, &repository("base/os"), &before[..1]).await;
    bench.store.link_blob(&repository("base/deep/er"), &before[1]).await.unwrap();
    bench.set(|settings| settings.pin = vec!["myacr.azurecr.io/base/**".to_owned()]);
    bench.reopen(|folder| before.iter().for_each(|digest| age(folder, &blob_path(digest), HOUR))).await;
    walked(&bench.store).await;
    let later = sha256(&content(50, SIZE));
    let manifest = link(&bench.store, &repository("base/later"), &[later]).await;
    fill(&bench.store, &content(50, SIZE)).await;
    fill_some(&bench, 100..115).await;
    for pinned in [&before[0], &before[1], &later, &manifest] {
        assert!(bench.store.blob(pinned).await.unwrap().is_some());
    }
    assert!(bench.store.blob(&before[2]).await.unwrap().is_none(), "the longest unused of the others");
}

#[tokio::test]
async fn a_store_full_of_pins_refuses_and_removes_none() {
    let bench = Bench::with(|settings| {
        settings.max_size = Some(3 * SIZE as u64 + 1_000_000);
        settings.pin = vec!["**".to_owned()];
    })
    .await;
    walked(&bench.store).await;
    let digests: Vec<Digest> = (0..3).map(|seed| sha256(&content(seed, SIZE))).collect();
    link(&bench.store, &repository("a"), &digests).await;
    fill_some(&bench, 0..3).await;
    let refused = bench.store.ingest(&sha256(b"one more"), Some(SIZE as u64)).await;
    assert!(matches!(refused, Err(IngestError::Refused(NoRoom::Full { .. }))));
    for digest in &digests {
        assert!(bench.store.blob(digest).await.unwrap().is_some());
    }
}

/// Says which registries are away, from now on.
fn hold(bench: &Bench) -> Arc<Mutex<Vec<Registry>>> {
    struct Away(Arc<Mutex<Vec<Registry>>>);
    impl AwayRegistries for Away {
        fn away(&self) -> Vec<Registry> {
            self.0.lock().unwrap().clone()
        }
        fn away_or_silent(&self) -> Vec<Registry> {
            self.away()
        }
    }
    let away = Arc::new(Mutex::new(Vec::new()));
    bench.store.set_away_registries(Arc::new(Away(Arc::clone(&away))));
    away
}

#[tokio::test]
async fn what_registries_that_are_away_have_given_is_held_until_one_of_them_is_back() {
    let bench = bench().await;
    walked(&bench.store).await;
    let blobs = fill_some(&bench, 0..6).await;
    let [a, b] = ["a.example", "b.example"]
        .map(|name| Repository { registry: Registry::new(name), name: "app".parse().unwrap() });
    link(&bench.store, &a, &blobs[..4]).await;
    bench.store.link_blob(&b, &blobs[3]).await.unwrap();
    bench.store.came_from(&blobs[4], &b.registry);
    let away = hold(&bench);
    away.lock().unwrap().extend([a.registry.clone(), b.registry.clone()]);
    let digest = sha256(b"large");
    let begin = async |blobs: usize| bench.store.ingest(&digest, Some((blobs * SIZE) as u64)).await;
    assert!(matches!(begin(6).await, Err(IngestError::Refused(NoRoom::Held { .. }))));
    // What nobody's links speak for is not held, once that is known.
    until_async("there is room for a little more", async || begin(5).await.is_ok()).await;
    let refused = begin(6).await.err().unwrap();
    assert!(refused.to_string().contains("no upstream can give again now"), "{refused}");
    until("the account says so", || bench.store.usage().held > 5 * SIZE as u64).await;
    for blob in &blobs[..5] {
        assert!(bench.store.blob(blob).await.unwrap().is_some());
    }
    away.lock().unwrap().pop();
    assert!(begin(6).await.is_ok(), "{} is back", b.registry);
    for blob in &blobs[..3] {
        assert!(bench.store.blob(blob).await.unwrap().is_some(), "{} is the only one that has it", a.registry);
    }
    away.lock().unwrap().clear();
    assert!(begin(9).await.is_ok());
    until("nothing is held", || bench.store.usage().held == 0).await;
}

#[tokio::test]
async fn what_an_earlier_process_has_linked_is_held_too() {
    let mut bench = bench().await;
    let blobs = fill_some(&bench, 0..6).await;
    link(&bench.store, &repository("deep/er/app"), &blobs[..4]).await;
    bench.reopen(|folder| blobs.iter().for_each(|digest| age(folder, &blob_path(digest), HOUR))).await;
    hold(&bench).lock().unwrap().push(repository("a").registry);
    walked(&bench.store).await;
    let large = content(100, 6 * SIZE);
    let begin = async || bench.store.ingest(&sha256(&large), Some(large.len() as u64)).await.ok();
    let written = async || begin().await?.write(large.clone()).await.ok();
    until_async("it is known which ones", async || written().await.is_some()).await;
    for (number, blob) in blobs.iter().enumerate() {
        assert_eq!(bench.store.blob(blob).await.unwrap().is_some(), number < 4, "{number}");
    }
}

#[tokio::test]
async fn above_the_high_watermark_room_is_made_before_somebody_needs_it() {
    let mut bench = Bench::with(|settings| settings.max_size = Some(100 * SIZE as u64)).await;
    fill_some(&bench, 0..10).await;
    let used = bench.store.usage().bytes;
    bench.reopen_with_limit(used * 100 / 97).await;
    walked(&bench.store).await;
    let usage = || bench.store.usage();
    until("the low watermark is reached", || usage().bytes <= usage().limit / 100 * 90).await;
    assert!(usage().blobs >= 8, "{:?}", usage());
}

#[tokio::test]
async fn quarantine_goes_before_any_blob() {
    let mut bench = bench().await;
    let blobs = fill_some(&bench, 0..9).await;
    bench.reopen(|folder| std::fs::write(folder.join("quarantine/sha256-x-1"), vec![0; SIZE]).unwrap()).await;
    walked(&bench.store).await;
    assert!(bench.store.usage().bytes > 10 * SIZE as u64, "it is counted");
    fill(&bench.store, &content(100, SIZE)).await;
    assert_eq!(std::fs::read_dir(bench.path("quarantine")).unwrap().count(), 0);
    for digest in &blobs {
        assert!(bench.store.blob(digest).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn partial_downloads_that_nobody_goes_on_with_are_removed_after_a_day() {
    let mut bench = Bench::new().await;
    for name in ["old", "recent"] {
        let mut ingest = bench.store.ingest(&sha256(name.as_bytes()), Some(10_000)).await.unwrap();
        ingest.write(content(1, 5000)).await.unwrap();
    }
    let path = |name: &str| format!("ingest/sha256/{}", sha256(name.as_bytes()).hex());
    bench.reopen(|folder| age(folder, &path("old"), 25 * HOUR)).await;
    until("the old one is gone", || bench.store.usage().ingests == 1).await;
    assert!(!bench.path(path("old")).exists() && bench.path(path("recent")).exists());
    assert_eq!(bench.store.ingest(&sha256(b"recent"), Some(10_000)).await.unwrap().received(), 5000);
}

/// Bytes in everything that the store accounts for.
fn bytes_on(disk: &SimDisk) -> u64 {
    let parts = ["blobs", "pieces", "ingest", "lists", "repositories", "quarantine"];
    let files = parts.iter().flat_map(|part| disk.files_below(Path::new(part)));
    files.map(|(_, bytes)| bytes.len() as u64).sum()
}

#[derive(Clone, Debug)]
enum Operation {
    Fill { seed: u64, len: usize, announced: bool, until: usize },
    Link { seed: u64, len: usize, repository: u8 },
    List { len: usize },
    Read { seed: u64, len: usize },
    Damage { seed: u64, len: usize },
    Restart,
}

fn operation() -> impl proptest::strategy::Strategy<Value = Operation> {
    use proptest::prelude::*;
    let blob = || (0_u64..12, prop_oneof![Just(100), Just(70_000), Just(900_000), Just(1_500_000)]);
    prop_oneof![
        8 => (blob(), any::<bool>(), prop_oneof![3 => Just(100), 1 => 0_usize..100])
            .prop_map(|((seed, len), announced, until)| Operation::Fill { seed, len, announced, until }),
        3 => (blob(), 0_u8..3).prop_map(|((seed, len), repository)| Operation::Link { seed, len, repository }),
        1 => prop_oneof![Just(10_usize), Just(400_000)].prop_map(|len| Operation::List { len }),
        3 => blob().prop_map(|(seed, len)| Operation::Read { seed, len }),
        2 => blob().prop_map(|(seed, len)| Operation::Damage { seed, len }),
        1 => Just(Operation::Restart),
    ]
}

/// What is refused is refused: only the bytes count here.
async fn perform(store: &Store, disk: &SimDisk, operation: &Operation) {
    match *operation {
        Operation::Fill { seed, len, announced, until } => {
            let bytes = content(seed, len);
            let Ok(mut ingest) = store.ingest(&sha256(&bytes), announced.then_some(len as u64)).await else { return };
            let kept = usize::try_from(ingest.received()).unwrap();
            let stop = kept.max(len * until / 100);
            if ingest.write(bytes.slice(kept..stop)).await.is_ok() && stop == len {
                let _ = ingest.verify().await.unwrap().commit().await;
            }
        }
        Operation::Link { seed, len, repository: number } => {
            let bytes = format!(r#"{{"layers":[{{"digest":"{}"}}]}}"#, sha256(&content(seed, len)));
            let (digest, repository) = (sha256(bytes.as_bytes()), repository(&format!("r{number}")));
            let manifest = larder::oci::Manifest::parse(bytes.as_bytes()).unwrap();
            let _ = store.put_small(&digest, bytes.into()).await;
            let _ = store.link_manifest(&repository, &digest, &crate::store::common::media_type(), &manifest).await;
            let link = TagLink { digest, seen: SystemTime::UNIX_EPOCH };
            let _ = store.set_tag(&repository, &format!("v{seed}").parse().unwrap(), link).await;
        }
        Operation::List { len } => {
            let list = StoredList { fetched: SystemTime::UNIX_EPOCH, content: content(9, len) };
            let _ = store.set_list(&ListKey::Tags(repository(&format!("l{}", len % 3))), &list).await;
        }
        Operation::Read { seed, len } => {
            if let Some(blob) = store.blob(&sha256(&content(seed, len))).await.unwrap() {
                let _ = blob.file().check(0..len as u64).await;
            }
        }
        Operation::Damage { seed, len } => {
            let digest = sha256(&content(seed, len));
            disk.damage(Path::new(&blob_path(&digest)), &vec![0; len]);
            if let Some(blob) = store.blob(&digest).await.unwrap() {
                blob.file().distrust();
                let _ = blob.file().check(0..len as u64).await;
            }
        }
        Operation::Restart => {}
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 12, ..Default::default() })]

    #[test]
    fn whatever_happens_the_limit_holds_and_the_account_is_right(
        operations in proptest::collection::vec(operation(), 1..50),
        limit in 1_000_000_u64..6_000_000,
    ) {
        let limit = if limit > 5_000_000 { 17 << 20 } else { limit };
        let limited = larder::config::StoreSettings { max_size: Some(limit), ..settings(Path::new("sim")) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let disk = SimDisk::new();
            let (mut store, _) = open(&limited, Arc::new(disk.clone())).await;
            walked(&store).await;
            for operation in &operations {
                perform(&store, &disk, operation).await;
                if let Operation::Restart = operation {
                    store.close().await;
                    store = open(&limited, Arc::new(disk.clone())).await.0;
                    walked(&store).await;
                }
                let bytes = bytes_on(&disk);
                assert!(bytes <= limit, "{bytes} bytes of {limit} after {operation:?}");
                assert_eq!(store.usage().bytes, bytes, "after {operation:?}");
            }
            store.close().await;
        });
    }
}
