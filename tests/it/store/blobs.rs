use crate::store::common::{Bench, content, fill, read, sha256, walked};
use bytes::Bytes;
use larder::oci::{Algorithm, Digest};
use larder::store::StoreError;
use std::fs;

#[tokio::test]
async fn a_stored_blob_is_read_by_its_digest_also_after_a_restart() {
    let mut bench = Bench::new().await;
    let bytes = content(1, 300_000);
    let digest = fill(&bench.store, &bytes).await;
    assert_eq!(read(&bench.store, &digest).await.unwrap(), bytes);
    bench.reopen(|_| {}).await;
    assert_eq!(read(&bench.store, &digest).await.unwrap(), bytes);
    walked(&bench.store).await;
    assert_eq!((bench.store.usage().blobs, bench.store.usage().ingests), (1, 0));
}

#[tokio::test]
async fn blobs_lie_where_the_image_layout_says_and_are_read_only() {
    let bench = Bench::new().await;
    let digest = fill(&bench.store, &content(1, 10)).await;
    let path = bench.path(format!("blobs/sha256/{}", digest.hex()));
    assert!(fs::metadata(path).unwrap().permissions().readonly());
    let long = Digest::of(Algorithm::Sha512, b"long");
    bench.store.put_small(&long, Bytes::from_static(b"long")).await.unwrap();
    assert_eq!(fs::read(bench.path(format!("blobs/sha512/{}", long.hex()))).unwrap(), b"long");
}

#[tokio::test]
async fn an_unknown_digest_is_none() {
    let bench = Bench::new().await;
    assert!(bench.store.blob(&sha256(b"nobody")).await.unwrap().is_none());
    assert!(bench.store.read_small(&sha256(b"nobody")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_hit_on_an_open_blob_is_ready_at_once() {
    let bench = Bench::new().await;
    let digest = fill(&bench.store, &content(1, 10)).await;
    let mut hit = Box::pin(bench.store.blob(&digest));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(hit.as_mut().poll(&mut context).is_ready(), "a change of thread would have been pending");
}

#[tokio::test]
async fn reading_past_the_end_is_an_error_and_never_short() {
    let bench = Bench::new().await;
    let digest = fill(&bench.store, &content(1, 10)).await;
    let blob = bench.store.blob(&digest).await.unwrap().unwrap();
    assert_eq!(blob.file().read(4, 6).await.unwrap(), content(1, 10).slice(4..));
    assert_eq!(blob.file().read(5, 6).await.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn small_content_is_stored_only_under_its_own_digest() {
    let bench = Bench::new().await;
    let wrong = bench.store.put_small(&sha256(b"other"), Bytes::from_static(b"this")).await;
    assert!(matches!(wrong, Err(StoreError::Mismatch { .. })));
    assert!(bench.store.blob(&sha256(b"other")).await.unwrap().is_none());
    assert_eq!(bench.metrics.digest_failures.with_label_values(&["fill"]).get(), 1);
}

#[tokio::test]
async fn damaged_small_content_is_set_aside_and_can_be_put_again() {
    let mut bench = Bench::new().await;
    let (digest, bytes) = (sha256(b"{}"), Bytes::from_static(b"{}"));
    bench.store.put_small(&digest, bytes.clone()).await.unwrap();
    let path = format!("blobs/sha256/{}", digest.hex());
    bench
        .reopen(|folder| {
            fs::remove_file(folder.join(&path)).unwrap();
            fs::write(folder.join(&path), b"[]").unwrap();
        })
        .await;
    assert_eq!(bench.store.read_small(&digest).await.unwrap(), None);
    assert!(bench.store.blob(&digest).await.unwrap().is_none());
    assert_eq!(bench.metrics.digest_failures.with_label_values(&["read"]).get(), 1);
    assert_eq!(bench.metrics.quarantined.with_label_values(&[] as &[&str]).get(), 1);
    assert_eq!(fs::read_dir(bench.path("quarantine")).unwrap().count(), 1);
    bench.store.put_small(&digest, bytes.clone()).await.unwrap();
    assert_eq!(bench.store.read_small(&digest).await.unwrap(), Some(bytes));
}

#[tokio::test]
async fn a_blob_removed_by_hand_is_absent_and_can_be_stored_again() {
    let mut bench = Bench::new().await;
    let bytes = content(1, 1000);
    let digest = fill(&bench.store, &bytes).await;
    bench.reopen(|_| {}).await;
    walked(&bench.store).await;
    let before = bench.store.usage().bytes;
    fs::remove_file(bench.path(format!("blobs/sha256/{}", digest.hex()))).unwrap();
    assert!(bench.store.blob(&digest).await.unwrap().is_none());
    assert_eq!(bench.store.usage().bytes, before - 1000);
    fill(&bench.store, &bytes).await;
    assert_eq!(read(&bench.store, &digest).await.unwrap(), bytes);
}

#[tokio::test]
async fn many_blobs_are_served_with_few_files_open() {
    let bench = Bench::with(|settings| settings.sync = larder::config::Durability::None).await;
    let mut digests = Vec::new();
    for n in 0..400_u64 {
        let bytes = Bytes::copy_from_slice(&n.to_le_bytes());
        bench.store.put_small(&sha256(&bytes), bytes.clone()).await.unwrap();
        digests.push((sha256(&bytes), bytes));
    }
    for (digest, bytes) in &digests {
        assert_eq!(read(&bench.store, digest).await.as_ref(), Some(bytes));
    }
    #[cfg(target_os = "linux")]
    {
        let below = bench.path("blobs");
        let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        let open = links.filter(|link| link.starts_with(&below)).count();
        assert!((1..=256).contains(&open), "{open} blob files are open");
    }
}
