//! Damage that nobody has asked for is found: by the daemon in its own time, and by `larder verify`.

use crate::store::common::{Bench, content, fill, until};
use larder::config::StoreSettings;
use larder::oci::Digest;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const MIB: usize = 1 << 20;

fn flip(folder: &Path, digest: &Digest) {
    let path = folder.join("blobs/sha256").join(digest.hex());
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
}

fn failures(bench: &Bench) -> u64 {
    bench.metrics.digest_failures.with_label_values(&["scrub"]).get()
}

fn completed(bench: &Bench) -> i64 {
    bench.metrics.scrub_last_completed.with_label_values(&[] as &[&str]).get()
}

fn fast(settings: &mut StoreSettings) {
    settings.scrub_rate = 1 << 40;
}

async fn blobs(bench: &Bench, count: u64) -> Vec<Digest> {
    let mut digests = Vec::new();
    for seed in 0..count {
        digests.push(fill(&bench.store, &content(seed, 2 * MIB)).await);
    }
    digests.sort_unstable();
    digests
}

#[tokio::test]
async fn the_scrub_sets_damaged_blobs_aside_and_makes_missing_checksums() {
    let mut bench = Bench::with(fast).await;
    let digests = blobs(&bench, 3).await;
    let pieces = bench.path("pieces/sha256").join(digests[0].hex());
    bench
        .reopen(|folder| {
            flip(folder, &digests[1]);
            fs::remove_file(&pieces).unwrap();
            fs::remove_file(folder.join("scrub")).unwrap_or_default();
        })
        .await;
    until("a pass is complete", || completed(&bench) > 0).await;
    assert_eq!(failures(&bench), 1);
    assert_eq!(bench.metrics.quarantined.with_label_values(&[] as &[&str]).get(), 1);
    assert!(bench.store.blob(&digests[1]).await.unwrap().is_none());
    for sound in [&digests[0], &digests[2]] {
        assert!(bench.store.blob(sound).await.unwrap().is_some());
    }
    assert!(pieces.exists());
}

#[tokio::test]
async fn the_scrub_goes_on_after_a_restart_where_it_was() {
    let mut bench = Bench::new().await;
    let digests = blobs(&bench, 3).await;
    // One blob of 2 MiB takes a second, so that a pass is cut in its middle.
    bench.set(|settings| settings.scrub_rate = 2 << 20);
    bench.reopen(|_| {}).await;
    tokio::time::sleep(std::time::Duration::from_millis(1900)).await;
    bench.set(fast);
    bench.reopen(|folder| flip(folder, &digests[0])).await;
    until("the pass is complete", || completed(&bench) > 0).await;
    assert_eq!(failures(&bench), 0, "the first blob was behind it already");
    let when = completed(&bench);
    bench.set(|settings| settings.scrub_rate = 0);
    bench.reopen(|_| {}).await;
    assert_eq!((failures(&bench), completed(&bench)), (0, 0), "a rate of 0 is no scrub");
    bench.set(fast);
    bench.reopen(|_| {}).await;
    until("the next pass finds it", || failures(&bench) == 1).await;
    assert!(completed(&bench) >= when, "shown from the start");
}

fn verify(store: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.env_clear().env("HOME", "/nowhere").arg("verify").arg("--store").arg(store).args(more).output().unwrap()
}

fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn listing(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(listing(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn verify_tells_damage_and_repair_sets_it_aside() {
    let mut bench = Bench::new().await;
    let digests = blobs(&bench, 3).await;
    let held = verify(bench.folder.path(), &[]);
    assert_eq!(held.status.code(), Some(3));
    assert!(printed(&held).contains(&format!("in use by process {}", std::process::id())), "{}", printed(&held));
    bench.store.close().await;

    let sound = verify(bench.folder.path(), &[]);
    assert_eq!(sound.status.code(), Some(0), "{}", printed(&sound));
    assert!(printed(&sound).contains("3 blobs, 6.0 MiB, 0 damaged"), "{}", printed(&sound));

    flip(bench.folder.path(), &digests[2]);
    let before = listing(bench.folder.path());
    let damaged = verify(bench.folder.path(), &[]);
    assert_eq!(damaged.status.code(), Some(1));
    for said in [format!("damaged {}", digests[2]), "--repair".to_owned()] {
        assert!(printed(&damaged).contains(&said), "{}", printed(&damaged));
    }
    assert_eq!(listing(bench.folder.path()), before, "a look changes nothing");

    let repaired = verify(bench.folder.path(), &["--repair", "--json"]);
    assert_eq!(repaired.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&repaired.stdout).unwrap();
    assert_eq!((&json["blobs"], &json["bytes"]), (&3.into(), &(6 * MIB).into()));
    assert_eq!(json["damaged"][0]["digest"], digests[2].to_string());
    let moved = bench.path(json["damaged"][0]["moved_to"].as_str().unwrap());
    assert!(moved.exists() && !bench.path("pieces/sha256").join(digests[2].hex()).exists());

    assert_eq!(verify(bench.folder.path(), &[]).status.code(), Some(0));
    bench.reopen(|_| {}).await;
    assert!(bench.store.blob(&digests[2]).await.unwrap().is_none());
    assert!(bench.store.blob(&digests[1]).await.unwrap().is_some());
}

#[test]
fn verify_makes_no_store_and_refuses_one_it_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let missing = verify(&folder.path().join("none"), &[]);
    assert_eq!(missing.status.code(), Some(3));
    assert!(printed(&missing).contains("there is no store at"), "{}", printed(&missing));
    assert_eq!(listing(folder.path()), Vec::<PathBuf>::new());
    fs::write(folder.path().join("version"), "77\n").unwrap();
    let unknown = verify(folder.path(), &[]);
    assert_eq!(unknown.status.code(), Some(3));
    assert!(printed(&unknown).contains("version \"77\""), "{}", printed(&unknown));
    assert_eq!(verify(folder.path(), &["--nonsense"]).status.code(), Some(2));
    fs::write(folder.path().join("larder.toml"), "[store]\nmin_free = 7\n").unwrap();
    let config = folder.path().join("larder.toml");
    assert_eq!(verify(folder.path(), &["--config", config.to_str().unwrap()]).status.code(), Some(2));
}
