use crate::store::common::{Bench, fill, link, repository, sha256, until};
use crate::store::links::files;
use bytes::Bytes;
use std::fs;
use std::path::Path;

const REPOSITORIES: usize = 8;

/// What is done to a file, in a word and in deed.
type Damage = (&'static str, fn(&Path));

fn layer(n: usize) -> larder::oci::Digest {
    sha256(&n.to_le_bytes())
}

async fn filled() -> Bench {
    let bench = Bench::with(|settings| settings.sync = larder::config::Durability::None).await;
    for n in 0..REPOSITORIES {
        fill(&bench.store, &Bytes::copy_from_slice(&n.to_le_bytes())).await;
        link(&bench.store, &repository(&format!("r{n}")), &[layer(n)]).await;
    }
    bench
}

/// Everything is answered as if nothing had happened to the index.
async fn all_is_there(bench: &Bench) {
    for n in 0..REPOSITORIES {
        let repository = repository(&format!("r{n}"));
        assert!(bench.store.membership(&repository, &layer(n)).await.unwrap().is_some());
        assert!(bench.store.membership(&repository, &layer(n + 1)).await.unwrap().is_none());
        assert!(bench.store.blob(&layer(n)).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_deleted_index_loses_nothing_and_is_made_again() {
    let mut bench = filled().await;
    bench.reopen(|folder| fs::remove_dir_all(folder.join("index")).unwrap()).await;
    all_is_there(&bench).await;
    until("the index is there again", || !files(&bench.path("index")).is_empty()).await;
}

#[tokio::test]
async fn each_damaged_file_of_the_index_loses_nothing() {
    let mut bench = filled().await;
    bench.store.close().await;
    let kinds: [Damage; 4] = [
        ("cut", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("empty", |path| fs::write(path, b"").unwrap()),
        ("zeroed", |path| fs::write(path, vec![0; fs::read(path).unwrap().len()]).unwrap()),
        ("garbage", |path| fs::write(path, crate::store::common::content(7, fs::read(path).unwrap().len())).unwrap()),
    ];
    let names: Vec<_> = files(&bench.path("index"))
        .iter()
        .map(|path| path.strip_prefix(bench.folder.path()).unwrap().to_owned())
        .collect();
    assert!(!names.is_empty());
    for name in names {
        for (kind, damage) in kinds {
            println!("{kind}: {}", name.display());
            bench
                .reopen(|folder| {
                    if folder.join(&name).exists() {
                        damage(&folder.join(&name));
                    }
                })
                .await;
            all_is_there(&bench).await;
        }
    }
}

#[tokio::test]
async fn an_unusable_index_is_counted_and_replaced() {
    let mut bench = filled().await;
    bench
        .reopen(|folder| {
            fs::remove_dir_all(folder.join("index/sled-0.34-1")).unwrap();
            fs::write(folder.join("index/sled-0.34-1"), b"a file where a folder should be").unwrap();
        })
        .await;
    all_is_there(&bench).await;
    let rebuilds = bench.metrics.store_index_rebuilds.with_label_values(&[] as &[&str]);
    until("the index is removed", || rebuilds.get() == 1).await;
    until("the index is there again", || bench.path("index/sled-0.34-1").is_dir()).await;
    all_is_there(&bench).await;
}

/// Links manifests with children of their own until the index has taken `bytes`.
async fn grow(bench: &Bench, bytes: u64) {
    let taken = || files(&bench.path("index")).iter().filter_map(|file| fs::metadata(file).ok()).map(|m| m.len()).sum();
    for round in 0_u64.. {
        let children: Vec<_> = (0..256).map(|n| layer(usize::try_from(1000 + round * 256 + n).unwrap())).collect();
        link(&bench.store, &repository(&format!("grown/r{round}")), &children).await;
        let now: u64 = taken();
        if now > bytes || bench.metrics.store_index_rebuilds.with_label_values(&[] as &[&str]).get() > 0 {
            return;
        }
        assert!(round < 500, "{now} bytes after {round} rounds");
    }
}

#[tokio::test]
async fn an_index_that_grows_is_counted_while_it_does() {
    let bench = Bench::with(|settings| settings.sync = larder::config::Durability::None).await;
    crate::store::common::walked(&bench.store).await;
    grow(&bench, 256 << 10).await;
    let counted = || bench.metrics.store_bytes.with_label_values(&[] as &[&str]).get();
    until("the store's bytes are all counted", || {
        let parts = ["blobs", "repositories", "index"].map(|part| files(&bench.path(part)));
        let on_disk: u64 = parts.iter().flatten().filter_map(|file| fs::metadata(file).ok()).map(|m| m.len()).sum();
        // The engine does not say what its settings take, some dozen bytes.
        counted() + 100 >= i64::try_from(on_disk).unwrap()
    })
    .await;
}

#[tokio::test]
async fn an_index_that_takes_too_much_of_a_small_store_is_made_anew() {
    let bench = Bench::with(|settings| {
        settings.sync = larder::config::Durability::None;
        settings.max_size = Some(32 << 20);
    })
    .await;
    grow(&bench, 5 << 20).await;
    let rebuilds = bench.metrics.store_index_rebuilds.with_label_values(&[] as &[&str]);
    until("the index is removed", || rebuilds.get() > 0).await;
    assert!(bench.store.membership(&repository("grown/r0"), &layer(1000)).await.unwrap().is_some());
}
