use crate::store::common::{Bench, content, fill, open, read, settings, sha256, walked};
use larder::store::disk::sim::{Fault, SimDisk};
use larder::store::{IngestError, NoRoom, StoreError, VerifyError};
use std::fs;
use std::path::Path;
use std::sync::Arc;

#[tokio::test]
async fn readers_follow_the_open_file_of_a_running_ingest() {
    let bench = Bench::new().await;
    let bytes = content(1, 100_000);
    let digest = sha256(&bytes);
    let mut ingest = bench.store.ingest(&digest, Some(100_000)).await.unwrap();
    let file = ingest.file();
    assert_eq!(ingest.write(bytes.slice(..60_000)).await.unwrap(), 60_000);
    assert_eq!(file.read(10_000, 50_000).await.unwrap(), bytes.slice(10_000..60_000));
    assert!(file.read(50_000, 20_000).await.is_err(), "the file's length is what was written");
    ingest.write(bytes.slice(60_000..)).await.unwrap();
    let verified = ingest.verify().await.unwrap();
    let blob = verified.commit().await.unwrap();
    assert_eq!(blob.len(), 100_000);
    assert_eq!(file.read(0, 100_000).await.unwrap(), bytes, "the file that a reader has stays the same");
}

#[tokio::test]
async fn a_dropped_ingest_is_resumed_also_after_a_restart() {
    let mut bench = Bench::new().await;
    let bytes = content(1, 3 << 20);
    let digest = sha256(&bytes);
    let mut ingest = bench.store.ingest(&digest, Some(3 << 20)).await.unwrap();
    ingest.write(bytes.slice(..1_500_000)).await.unwrap();
    drop(ingest);
    let mut ingest = bench.store.ingest(&digest, None).await.unwrap();
    assert_eq!(ingest.received(), 1_500_000);
    ingest.write(bytes.slice(1_500_000..1_600_000)).await.unwrap();
    drop(ingest);
    bench.reopen(|_| {}).await;
    assert_eq!(bench.store.usage().ingests, 1);
    let mut ingest = bench.store.ingest(&digest, Some(3 << 20)).await.unwrap();
    assert_eq!(ingest.received(), 1_600_000);
    ingest.write(bytes.slice(1_600_000..)).await.unwrap();
    ingest.verify().await.unwrap().commit().await.unwrap();
    assert_eq!(read(&bench.store, &digest).await.unwrap(), bytes);
    walked(&bench.store).await;
    assert_eq!((bench.store.usage().ingests, bench.store.usage().blobs), (0, 1));
}

#[tokio::test]
async fn one_digest_has_one_ingest_at_a_time() {
    let bench = Bench::new().await;
    let digest = sha256(b"abc");
    let first = bench.store.ingest(&digest, Some(3)).await.unwrap();
    assert!(matches!(bench.store.ingest(&digest, Some(3)).await, Err(IngestError::Busy(busy)) if busy == digest));
    first.discard().await;
    assert!(bench.store.ingest(&digest, Some(3)).await.is_ok());
}

#[tokio::test]
async fn wrong_bytes_are_never_a_blob_and_leave_nothing() {
    let bench = Bench::new().await;
    walked(&bench.store).await;
    let before = bench.store.usage();
    let digest = sha256(b"right");
    let mut ingest = bench.store.ingest(&digest, Some(5)).await.unwrap();
    ingest.write("wrong".into()).await.unwrap();
    let error = ingest.verify().await.err().unwrap();
    assert!(
        matches!(&error, VerifyError::Digest { expected, actual } if *expected == digest && **actual == sha256(b"wrong"))
    );
    assert_eq!(bench.store.usage(), before);
    assert_eq!(bench.metrics.digest_failures.with_label_values(&["fill"]).get(), 1);
    assert!(bench.store.blob(&digest).await.unwrap().is_none());
    assert_eq!(bench.store.ingest(&digest, Some(5)).await.unwrap().received(), 0);
}

#[tokio::test]
async fn too_few_and_too_many_bytes_are_refused() {
    let bench = Bench::new().await;
    let digest = sha256(b"12345");
    let mut short = bench.store.ingest(&digest, Some(6)).await.unwrap();
    short.write("12345".into()).await.unwrap();
    assert!(matches!(short.verify().await, Err(VerifyError::Length { expected: 6, received: 5, .. })));
    let mut long = bench.store.ingest(&digest, Some(5)).await.unwrap();
    long.write("12345".into()).await.unwrap();
    assert!(matches!(long.write("6".into()).await, Err(StoreError::TooLong { length: 5, .. })));
    assert!(matches!(long.verify().await, Err(VerifyError::Length { expected: 5, .. })));
    assert_eq!(fs::read_dir(bench.path("ingest/sha256")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_kept_file_longer_than_the_content_is_begun_anew() {
    let bench = Bench::new().await;
    let digest = sha256(b"12345");
    let mut ingest = bench.store.ingest(&digest, None).await.unwrap();
    ingest.write("garbage".into()).await.unwrap();
    drop(ingest);
    let mut ingest = bench.store.ingest(&digest, Some(5)).await.unwrap();
    assert_eq!(ingest.received(), 0);
    ingest.write("12345".into()).await.unwrap();
    ingest.verify().await.unwrap().commit().await.unwrap();
    assert_eq!(read(&bench.store, &digest).await.unwrap(), "12345");
}

#[tokio::test]
async fn a_write_whose_caller_goes_away_is_finished() {
    let bench = Bench::new().await;
    let bytes = content(1, 2 << 20);
    let digest = sha256(&bytes);
    let mut ingest = bench.store.ingest(&digest, Some(2 << 20)).await.unwrap();
    let mut received = 0;
    while received < bytes.len() {
        let batch = bytes.slice(received..bytes.len().min(received + (1 << 16)));
        let mut abandoned = Box::pin(ingest.write(batch));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = abandoned.as_mut().poll(&mut context);
        drop(abandoned);
        let now = usize::try_from(ingest.write(bytes::Bytes::new()).await.unwrap()).unwrap();
        assert!(now > received, "what was begun is finished");
        received = now;
    }
    ingest.verify().await.unwrap().commit().await.unwrap();
    assert_eq!(read(&bench.store, &digest).await.unwrap(), bytes);
}

#[cfg(unix)]
#[tokio::test]
async fn an_ingest_left_read_only_by_a_crash_is_resumed() {
    use std::os::unix::fs::PermissionsExt;
    let mut bench = Bench::new().await;
    let digest = sha256(b"12345");
    let mut ingest = bench.store.ingest(&digest, None).await.unwrap();
    ingest.write("123".into()).await.unwrap();
    drop(ingest);
    let path = format!("ingest/sha256/{}", digest.hex());
    bench.reopen(|folder| fs::set_permissions(folder.join(path), fs::Permissions::from_mode(0o444)).unwrap()).await;
    let mut ingest = bench.store.ingest(&digest, Some(5)).await.unwrap();
    ingest.write("45".into()).await.unwrap();
    ingest.verify().await.unwrap().commit().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_fails_the_write_and_the_ingest_can_be_discarded() {
    let disk = SimDisk::new();
    let (store, _) = open(&settings(Path::new("sim")), Arc::new(disk.clone())).await;
    let bytes = content(1, 1000);
    let mut ingest = store.ingest(&sha256(&bytes), Some(1000)).await.unwrap();
    disk.set_fault(Some(Fault::Full));
    let error = ingest.write(bytes.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Io { action: "write", .. }));
    assert!(error.to_string().contains("free some space"), "{error}");
    ingest.discard().await;
    disk.set_fault(None);
    assert_eq!(store.usage().ingests, 0);
    fill(&store, &bytes).await;
}

#[tokio::test]
async fn a_blob_larger_than_the_store_is_refused_before_a_byte_is_written() {
    let bench = Bench::with(|settings| settings.max_size = Some(1000)).await;
    let refused = bench.store.ingest(&sha256(b"x"), Some(1001)).await;
    assert!(matches!(refused, Err(IngestError::Refused(NoRoom::TooLarge { needed: 1001, limit: 1000 }))));
    assert_eq!(fs::read_dir(bench.path("ingest/sha256")).unwrap().count(), 0);
}
