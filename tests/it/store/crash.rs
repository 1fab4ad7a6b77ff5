//! A scripted load is stopped at every single change and sync that it makes to the disk, in several ways each: the process is
//! killed, or the machine crashes and loses, tears and reorders what was not synced. Whatever is left must be a sound store.

use crate::store::common::{content, media_type, read, repository, settings, sha256};
use bytes::Bytes;
use larder::oci::{Digest, Manifest, Tag};
use larder::store::disk::sim::SimDisk;
use larder::store::{ListKey, Store, StoredList, TagLink, VerifyError};
use larder::telemetry::Metrics;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

const BATCH: usize = 1000;
const SEEDS: u64 = 6;

/// What the load has been told is stored, and what it was about to store.
#[derive(Default)]
struct Promised {
    blobs: Vec<Digest>,
    manifests: Vec<Digest>,
    /// Blobs that the repository holds.
    members: Vec<Digest>,
    tag: Option<Digest>,
    tag_next: Option<Digest>,
    list: Option<Bytes>,
    list_next: Option<Bytes>,
    removed: bool,
}

fn blob(n: u64) -> Bytes {
    content(n, 3 * BATCH + 17)
}

fn manifest(layer: &Digest) -> Bytes {
    format!(r#"{{"schemaVersion":2,"layers":[{{"digest":"{layer}","size":1}}]}}"#).into()
}

fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

fn list_key() -> ListKey {
    ListKey::Tags(repository("a/b"))
}

async fn open(disk: &SimDisk) -> Result<Store, Box<dyn Error>> {
    let metrics = Arc::new(Metrics::new());
    Ok(Store::open(&settings(Path::new("sim")), Arc::new(disk.clone()), metrics).await?)
}

/// Two processes after each other, the first of which is killed in the middle of a download.
async fn load(disk: &SimDisk, promised: &mut Promised) -> Result<(), Box<dyn Error>> {
    let store = open(disk).await?;
    receive(&store, 1, Some(blob(1).len()), promised).await?;
    publish(&store, &sha256(&blob(1)), promised).await?;
    keep_list(&store, "first", promised).await?;
    let partial = blob(2);
    let mut ingest = store.ingest(&sha256(&partial), Some(partial.len() as u64)).await?;
    while ingest.received() < 2 * BATCH as u64 {
        let start = usize::try_from(ingest.received())?;
        ingest.write(partial.slice(start..start + BATCH)).await?;
    }
    drop(ingest);
    drop(store);

    let store = open(disk).await?;
    publish(&store, &sha256(&blob(1)), promised).await?;
    receive(&store, 3, None, promised).await?;
    receive(&store, 2, Some(partial.len()), promised).await?;
    publish(&store, &sha256(&partial), promised).await?;
    keep_list(&store, "second, and longer", promised).await?;
    store.link_blob(&repository("a/b"), &sha256(&blob(3))).await?;
    promised.members.push(sha256(&blob(3)));
    let link = TagLink { digest: sha256(b"old"), seen: UNIX_EPOCH };
    store.set_tag(&repository("a/b"), &tag("old"), link).await?;
    store.remove_tag(&repository("a/b"), &tag("old")).await?;
    promised.removed = true;
    let mut unwanted = store.ingest(&sha256(&blob(4)), None).await?;
    unwanted.write(blob(4).slice(..BATCH)).await?;
    unwanted.discard().await;
    store.close().await;
    Ok(())
}

async fn receive(store: &Store, n: u64, length: Option<usize>, promised: &mut Promised) -> Result<(), Box<dyn Error>> {
    let bytes = blob(n);
    let digest = sha256(&bytes);
    let mut ingest = store.ingest(&digest, length.map(|length| length as u64)).await?;
    while ingest.received() < bytes.len() as u64 {
        let start = usize::try_from(ingest.received())?;
        ingest.write(bytes.slice(start..bytes.len().min(start + BATCH))).await?;
    }
    ingest.verify().await?.commit().await?;
    promised.blobs.push(digest);
    Ok(())
}

/// Stores a manifest that names `layer`, links it, and moves the tag to it.
async fn publish(store: &Store, layer: &Digest, promised: &mut Promised) -> Result<(), Box<dyn Error>> {
    let bytes = manifest(layer);
    let digest = sha256(&bytes);
    let repository = repository("a/b");
    store.put_small(&digest, bytes.clone()).await?;
    promised.blobs.push(digest);
    let parsed = Manifest::parse(&bytes).ok_or("no manifest")?;
    store.link_manifest(&repository, &digest, &media_type(), &parsed).await?;
    promised.manifests.push(digest);
    promised.members.push(*layer);
    promised.tag_next = Some(digest);
    store.set_tag(&repository, &tag("V1"), TagLink { digest, seen: UNIX_EPOCH }).await?;
    promised.tag = Some(digest);
    Ok(())
}

async fn keep_list(store: &Store, text: &'static str, promised: &mut Promised) -> Result<(), Box<dyn Error>> {
    let content = Bytes::from_static(text.as_bytes());
    promised.list_next = Some(content.clone());
    store.set_list(&list_key(), &StoredList { fetched: UNIX_EPOCH, content: content.clone() }).await?;
    promised.list = Some(content);
    Ok(())
}

/// What must hold for a store opened on what is left.
async fn check(disk: &SimDisk, promised: &Promised, case: &str) {
    let store = open(disk).await.unwrap_or_else(|error| panic!("{case}: {error}"));
    let repository = repository("a/b");
    for (path, bytes) in disk.files_below(Path::new("blobs")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(sha256(&bytes).hex(), name, "{case}: a blob that is not what its name says");
    }
    assert!(disk.files_below(Path::new("ingest/tmp")).is_empty(), "{case}");
    for digest in &promised.blobs {
        let bytes = read(&store, digest).await.unwrap_or_else(|| panic!("{case}: {digest} was stored and is gone"));
        assert_eq!(sha256(&bytes), *digest, "{case}");
    }
    for digest in &promised.manifests {
        assert_eq!(store.manifest_type(&repository, digest).await.unwrap(), Some(media_type()), "{case}");
    }
    for digest in &promised.members {
        assert!(
            store.membership(&repository, digest).await.unwrap().is_some(),
            "{case}: {digest} is not held any more"
        );
    }
    assert!(store.membership(&repository, &sha256(b"never named")).await.unwrap().is_none(), "{case}");
    let found = store.tag(&repository, &tag("V1")).await.unwrap().map(|link| link.digest);
    assert!([promised.tag, promised.tag_next].contains(&found), "{case}: the tag is neither the old nor the new one");
    let list = store.list(&list_key()).await.unwrap().map(|list| list.content);
    assert!([&promised.list, &promised.list_next].contains(&&list), "{case}: the list is neither old nor new");
    if promised.removed {
        assert_eq!(store.tag(&repository, &tag("old")).await.unwrap(), None, "{case}: a removed tag is back");
    }
    for n in 1..=4 {
        resume(&store, n, case).await;
    }
    store.close().await;
}

/// A kept ingest becomes the right blob, or is found wrong and discarded, and then the next one does.
async fn resume(store: &Store, n: u64, case: &str) {
    let bytes = blob(n);
    for attempt in 0..2 {
        let mut ingest = store.ingest(&sha256(&bytes), Some(bytes.len() as u64)).await.unwrap();
        let kept = usize::try_from(ingest.received()).unwrap();
        assert!(attempt == 0 || kept == 0, "{case}: what was found wrong is still there");
        if kept < bytes.len() {
            ingest.write(bytes.slice(kept..)).await.unwrap();
        }
        match ingest.verify().await {
            Ok(verified) => {
                verified.commit().await.unwrap();
                assert_eq!(read(store, &sha256(&bytes)).await.unwrap(), bytes, "{case}");
                return;
            }
            Err(VerifyError::Digest { .. }) => assert_eq!(attempt, 0, "{case}: fresh bytes do not verify"),
            Err(error) => panic!("{case}: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_at_any_moment_leaves_a_sound_store_with_everything_that_was_promised() {
    let whole = SimDisk::new();
    load(&whole, &mut Promised::default()).await.unwrap();
    let steps = whole.steps();
    assert!(steps > 100, "the load makes only {steps} changes");
    for step in 0..=steps {
        let disk = SimDisk::new();
        disk.stop_at(step);
        let mut promised = Promised::default();
        let result = load(&disk, &mut promised).await;
        assert!(result.is_err() || step + 5 >= steps, "step {step} of {steps} was never reached");
        let killed = disk.kill();
        // What the killed process had not synced, the next one finds, relies upon, and must not lose either.
        let again = disk.kill();
        let mut promised_again = Promised::default();
        load(&again, &mut promised_again).await.unwrap();
        for seed in 0..SEEDS / 2 {
            let case = format!("killed at step {step}, loaded again and crashed with seed {seed}");
            check(&again.crash(step * SEEDS + seed), &promised_again, &case).await;
        }
        check(&killed, &promised, &format!("killed at step {step}")).await;
        for seed in 0..SEEDS {
            let seed = step * SEEDS + seed;
            let crashed = disk.crash(seed);
            check(&crashed, &promised, &format!("crashed at step {step} with seed {seed}")).await;
        }
    }
}

/// The simulated disk must be able to find a missing sync, else the test above proves nothing.
#[tokio::test]
async fn the_simulated_crash_finds_what_was_not_synced() {
    let disk = SimDisk::new();
    let settings =
        larder::config::StoreSettings { sync: larder::config::Durability::None, ..settings(Path::new("sim")) };
    let store = Store::open(&settings, Arc::new(disk.clone()), Arc::new(Metrics::new())).await.unwrap();
    let mut promised = Promised::default();
    publish(&store, &sha256(&blob(1)), &mut promised).await.unwrap();
    let mut lost = 0;
    for seed in 0..20 {
        let names = disk.crash(seed).files_below(Path::new("blobs"));
        lost += u32::from(names.iter().all(|(_, bytes)| sha256(bytes) != promised.blobs[0]));
    }
    assert!(lost > 5, "without a sync only {lost} of 20 crashes lost anything");
}

/// Without syncs a crash may lose anything, but what is served is right all the same.
#[tokio::test]
async fn an_unsynced_store_serves_nothing_wrong_after_a_crash() {
    let unsynced =
        larder::config::StoreSettings { sync: larder::config::Durability::None, ..settings(Path::new("sim")) };
    let disk = SimDisk::new();
    let open = async |disk: &SimDisk| {
        let metrics = Arc::new(Metrics::new());
        (Store::open(&unsynced, Arc::new(disk.clone()), Arc::clone(&metrics)).await.unwrap(), metrics)
    };
    let (store, _) = open(&disk).await;
    for n in 0..4 {
        receive(&store, n, Some(blob(n).len()), &mut Promised::default()).await.unwrap();
    }
    let mut damaged = 0;
    for seed in 0..40 {
        let crashed = disk.crash(seed);
        let wrong = |disk: &SimDisk| {
            let blobs = disk.files_below(Path::new("blobs"));
            blobs.iter().filter(|(path, bytes)| !path.ends_with(sha256(bytes).hex())).count()
        };
        let before = wrong(&crashed);
        let (store, metrics) = open(&crashed).await;
        for n in 0..2 {
            let found = read(&store, &sha256(&blob(n))).await;
            assert!(found.is_none_or(|bytes| bytes == blob(n)), "seed {seed}: wrong bytes were served");
        }
        crate::store::common::until("all blobs are checked", || wrong(&crashed) == 0).await;
        assert_eq!(metrics.digest_failures.with_label_values(&["read"]).get(), before as u64);
        damaged += before;
        store.close().await;
    }
    assert!(damaged > 5, "the crashes damaged {damaged} blobs");
    let closed = disk.clone();
    store.close().await;
    let marker = closed.files_below(Path::new("unsynced"));
    assert!(marker.is_empty(), "a store that was closed in order need not be checked");
}
