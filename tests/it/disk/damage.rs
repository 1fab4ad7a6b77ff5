//! What a disk does to stored bytes: none of it leaves, it heals by itself, and it can be seen.

use super::MIB;
use super::harness::simulator::{Options, samples};
use super::harness::{Acr, Larder, Setup, sha256, until_async};
use bytes::Bytes;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A larder that has pulled everything, was stopped, and has not looked at its files since.
struct Scene {
    acr: Acr,
    setup: Setup,
    large: Bytes,
    small: Bytes,
    manifest: String,
}

const LARGE: usize = 6 * MIB + 12_345;

impl Scene {
    async fn new() -> Self {
        let acr = Acr::start(Options::public()).await;
        let (large, small) = (samples::incompressible(1, LARGE), samples::incompressible(2, 50_000));
        let files = [("large", "application/octet-stream", large.clone()), ("small", "text/plain", small.clone())];
        let manifest = acr.push_artifact("app", "v1", &files).digest;
        let scene = Self { setup: Setup::of(&acr), acr, large, small, manifest };
        let larder = scene.setup.start().await;
        scene.pull(&larder).await;
        until_async("all is stored", async || scene.is_stored(&larder)).await;
        larder.stop().await;
        scene
    }

    fn is_stored(&self, larder: &Larder) -> bool {
        [&self.large, &self.small].iter().all(|content| larder.stores(&sha256(content)))
    }

    /// All of it, right.
    async fn pull(&self, larder: &Larder) {
        for reference in ["v1", &self.manifest] {
            let manifest = larder.get(&format!("/v2/app/manifests/{reference}")).await;
            assert_eq!((manifest.status.as_u16(), sha256(&manifest.body)), (200, self.manifest.clone()));
        }
        for content in [&self.large, &self.small] {
            let answer = larder.get(&blob(content)).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.body == *content);
        }
    }

    fn path(&self, folder: &str, content: &[u8]) -> PathBuf {
        self.setup.store().join(folder).join("sha256").join(&sha256(content)["sha256:".len()..])
    }

    /// One request over damage: what comes is right, as far as it comes.
    async fn asks(&self, larder: &Larder, content: &Bytes, range: Option<(usize, usize)>) -> bool {
        let call = larder.call("GET", &blob(content));
        let (call, wanted) = match range {
            Some((from, to)) => (call.range(&format!("bytes={from}-{}", to - 1)), content.slice(from..to)),
            None => (call, content.clone()),
        };
        match call.try_send().await {
            Ok(answer) if answer.status.is_success() => {
                assert!(answer.body == wanted, "wrong bytes with a clean end");
                true
            }
            Ok(answer) => {
                assert!(answer.status.is_server_error(), "{}: {}", answer.status, answer.text());
                false
            }
            Err(broken) => {
                let came = broken.answer.body;
                assert!(came.len() < wanted.len() && came == wanted[..came.len()], "wrong bytes left");
                false
            }
        }
    }
}

fn blob(content: &[u8]) -> String {
    format!("/v2/app/blobs/{}", sha256(content))
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn flip(path: &Path, at: usize) {
    change(path, |bytes| bytes[at] ^= 0x10);
}

async fn seen(larder: &Larder, place: &str) -> u64 {
    larder.metric(&format!("larder_digest_failures_total{{where=\"{place}\"}}")).await
}

/// `larder verify` finds nothing any more.
async fn is_sound(larder: Larder) {
    let setup = larder.stop().await;
    let mut verify = Command::new(env!("CARGO_BIN_EXE_larder"));
    verify.env_clear().env("HOME", setup.folder.path()).args(["verify", "--repair", "--store"]).arg(setup.store());
    let output = verify.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
async fn a_flipped_bit_never_leaves_and_heals_by_itself() {
    let scene = Scene::new().await;
    let large = scene.large.clone();
    for at in [0, 3 * MIB + 5, LARGE - 1] {
        let around = (at.saturating_sub(100), (at + 100).min(LARGE));
        for range in [None, Some(around)] {
            flip(&scene.path("blobs", &large), at);
            let larder = scene.setup.start().await;
            let first = scene.asks(&larder, &large, range).await;
            // Damage far behind the beginning of an answer can only break it, once.
            assert!(first || (range.is_none() && at > 4 * MIB), "at {at} of {range:?}");
            assert_eq!(seen(&larder, "read").await, 1, "at {at} of {range:?}");
            assert_eq!(larder.metric("larder_quarantined_objects").await, 1);
            assert!(scene.asks(&larder, &large, None).await);
            until_async("it is stored again", async || scene.is_stored(&larder)).await;
            fs::remove_dir_all(scene.setup.store().join("quarantine")).unwrap();
            is_sound(larder).await;
        }
    }
}

#[tokio::test]
async fn a_part_that_is_sound_is_served_beside_one_that_is_not() {
    let scene = Scene::new().await;
    flip(&scene.path("blobs", &scene.large), LARGE - 1);
    let larder = scene.setup.start().await;
    scene.acr.stop_listening();
    assert!(scene.asks(&larder, &scene.large, Some((5, MIB))).await);
    assert!(!scene.asks(&larder, &scene.large, Some((LARGE - 10, LARGE))).await);
}

/// What is done to a stored file.
type Damage = fn(&Path);

#[tokio::test]
async fn files_that_are_cut_replaced_or_gone_heal_by_themselves() {
    let damages: [(&str, Damage); 6] = [
        ("cut", |path| change(path, |bytes| bytes.truncate(bytes.len() / 2))),
        ("empty", |path| change(path, Vec::clear)),
        ("longer", |path| change(path, |bytes| bytes.push(0))),
        ("a folder", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("a link to something else", |path| {
            fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("/etc/hostname", path).unwrap();
        }),
        ("gone", |path| fs::remove_file(path).unwrap()),
    ];
    for (what, damage) in damages {
        let scene = Scene::new().await;
        for content in [&scene.large, &scene.small] {
            damage(&scene.path("blobs", content));
        }
        let larder = scene.setup.start().await;
        for content in [&scene.large, &scene.small] {
            assert!(scene.asks(&larder, content, None).await, "{what}");
        }
        scene.pull(&larder).await;
        until_async("all is stored again", async || scene.is_stored(&larder)).await;
        is_sound(larder).await;
    }
}

#[tokio::test]
async fn a_damaged_manifest_is_fetched_again() {
    let scene = Scene::new().await;
    let path = scene.setup.store().join("blobs/sha256").join(&scene.manifest["sha256:".len()..]);
    for at in [0, 100] {
        flip(&path, at);
        let larder = scene.setup.start().await;
        scene.pull(&larder).await;
        assert!(seen(&larder, "read").await >= 1);
        is_sound(larder).await;
    }
}

#[tokio::test]
async fn checksums_that_are_damaged_or_missing_are_made_anew_and_cost_no_download() {
    let damages: [fn(&Path); 3] = [
        |path| fs::remove_file(path).unwrap(),
        |path| change(path, Vec::clear),
        |path| change(path, |bytes| *bytes.last_mut().unwrap() ^= 1),
    ];
    let scene = Scene::new().await;
    let pieces = scene.path("pieces", &scene.large);
    for damage in damages {
        damage(&pieces);
        let larder = scene.setup.start().await;
        scene.acr.stop_listening();
        assert!(scene.asks(&larder, &scene.large, Some((5 * MIB, 5 * MIB + 10))).await);
        assert!(scene.asks(&larder, &scene.large, None).await);
        scene.acr.resume_listening();
        assert_eq!(seen(&larder, "read").await, 0);
        is_sound(larder).await;
        assert!(fs::metadata(&pieces).unwrap().len() > 0);
    }
}

#[tokio::test]
async fn links_that_are_torn_or_empty_are_fetched_again() {
    fn links(folder: &Path, all: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { links(&path, all) } else { all.push(path) }
        }
    }
    let damages: [fn(&mut Vec<u8>); 3] = [Vec::clear, |bytes| bytes.truncate(bytes.len() / 2), |bytes| bytes[40] ^= 1];
    for damage in damages {
        let scene = Scene::new().await;
        let mut all = Vec::new();
        links(&scene.setup.store().join("repositories"), &mut all);
        assert!(all.len() >= 2, "{all:?}");
        for path in &all {
            change(path, damage);
        }
        let larder = scene.setup.start().await;
        scene.pull(&larder).await;
        let setup = larder.stop().await;
        let larder = setup.start().await;
        scene.acr.stop_listening();
        scene.pull(&larder).await;
        scene.acr.resume_listening();
    }
}

/// With the link down there is nothing to heal with: a clean error or a broken body, never wrong bytes.
#[tokio::test]
async fn damage_without_an_upstream_is_an_error_and_heals_when_it_is_back() {
    let scene = Scene::new().await;
    for content in [&scene.large, &scene.small] {
        flip(&scene.path("blobs", content), content.len() / 2);
    }
    let larder = scene.setup.start().await;
    scene.acr.stop_listening();
    for content in [&scene.large, &scene.small] {
        let answer = larder.get(&blob(content)).await;
        assert_eq!(answer.error().0, 504, "{}", answer.text());
    }
    scene.acr.resume_listening();
    until_async("upstream is tried again", async || larder.get(&blob(&scene.large)).await.status == 200).await;
    scene.pull(&larder).await;
}

/// Nobody asks for it: the scrub finds it, and sets it aside.
#[tokio::test]
async fn the_scrub_finds_a_flipped_bit_without_a_request() {
    let scene = Scene::new().await;
    flip(&scene.path("blobs", &scene.large), 5 * MIB);
    fs::remove_file(scene.setup.store().join("scrub")).unwrap_or_default();
    let larder = scene.setup.clone().with(|settings| settings.store.scrub_rate = 1 << 40).start().await;
    until_async("it is found", async || seen(&larder, "scrub").await == 1).await;
    until_async("it is set aside", async || larder.metric("larder_quarantined_objects").await == 1).await;
    assert!(scene.asks(&larder, &scene.large, None).await);
    is_sound(larder).await;
}
