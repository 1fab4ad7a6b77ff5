use crate::store::common::{Bench, fill, settings};
use larder::store::{OpenError, RealDisk, Store, StoreError};
use larder::telemetry::Metrics;
use std::fs;
use std::sync::Arc;

async fn open(folder: &std::path::Path) -> Result<Store, OpenError> {
    Store::open(&settings(folder), Arc::new(RealDisk::new(folder)), Arc::new(Metrics::new())).await
}

#[tokio::test]
async fn a_second_owner_is_told_who_holds_the_store() {
    let bench = Bench::new().await;
    let Err(OpenError::InUse { pid, path }) = open(bench.folder.path()).await else { panic!("opened twice") };
    assert_eq!(pid, Some(std::process::id()));
    let text = OpenError::InUse { pid, path }.to_string();
    assert!(text.contains(&format!("process {}", std::process::id())) && text.contains("--store"), "{text}");
    bench.store.close().await;
    open(bench.folder.path()).await.unwrap().close().await;
}

#[tokio::test]
async fn a_store_of_another_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("version"), "7\n").unwrap();
    let error = open(folder.path()).await.err().unwrap();
    assert!(matches!(&error, OpenError::Version { found, .. } if found == "7"), "{error}");
    assert!(!folder.path().join("blobs").exists());
}

#[tokio::test]
async fn a_closed_store_says_so_and_closing_twice_is_fine() {
    let bench = Bench::new().await;
    let digest = fill(&bench.store, &"x".into()).await;
    let blob = bench.store.blob(&digest).await.unwrap().unwrap();
    bench.store.close().await;
    bench.store.close().await;
    let missing = crate::store::common::sha256(b"y");
    assert!(matches!(bench.store.blob(&missing).await, Err(StoreError::Closed)));
    assert!(blob.file().read(0, 1).await.is_err());
}

#[tokio::test]
async fn the_default_limit_is_chosen_once_and_remembered() {
    let mut bench = Bench::with(|settings| settings.max_size = None).await;
    let limit = bench.store.usage().limit;
    assert!(limit > 0 && limit <= 100 << 30);
    bench.reopen(|folder| assert!(folder.join("default-size").exists())).await;
    assert_eq!(bench.store.usage().limit, limit);
}

#[cfg(unix)]
#[tokio::test]
async fn the_folder_is_private_and_one_that_cannot_be_made_is_explained() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("new/store");
    open(&folder).await.unwrap().close().await;
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    fs::write(parent.path().join("file"), "").unwrap();
    let error = open(&parent.path().join("file/store")).await.err().unwrap();
    assert!(error.to_string().contains("--store"), "{error}");
}

#[tokio::test]
async fn temporary_files_of_a_killed_process_are_removed() {
    let mut bench = Bench::new().await;
    bench.reopen(|folder| fs::write(folder.join("ingest/tmp/3"), "half").unwrap()).await;
    assert!(!bench.path("ingest/tmp/3").exists());
}

#[test]
fn handles_can_be_shared_by_tasks() {
    fn shared<T: Send + Sync>() {}
    shared::<Store>();
    shared::<larder::store::Blob>();
    shared::<larder::store::Ingest>();
    shared::<larder::store::Verified>();
}
