use crate::store::common::{Bench, content, fill, open, read, settings, sha256, until};
use larder::oci::{Algorithm, Digest};
use larder::store::disk::sim::{Fault, SimDisk};
use larder::store::{NoRoom, StoreError, Upload, VerifyError};
use std::fs;
use std::path::Path;
use std::sync::Arc;

async fn upload(bench: &Bench, bytes: &bytes::Bytes) -> Upload {
    let mut upload = bench.store.upload().await.unwrap();
    let mut left = bytes.clone();
    while !left.is_empty() {
        upload.write(left.split_to(left.len().min(100_000))).await.unwrap();
    }
    assert_eq!(upload.received(), bytes.len() as u64);
    upload
}

fn temporary(bench: &Bench) -> usize {
    fs::read_dir(bench.path("ingest/tmp")).unwrap().count()
}

#[tokio::test]
async fn an_upload_becomes_a_blob_under_a_digest_of_either_algorithm() {
    let mut bench = Bench::new().await;
    let bytes = content(1, 3 << 20);
    let digests = [sha256(&bytes), Digest::of(Algorithm::Sha512, &bytes), sha256(b"")];
    for (digest, bytes) in digests.iter().zip([&bytes, &bytes, &bytes::Bytes::new()]) {
        let verified = upload(&bench, bytes).await.verify(digest).await.unwrap();
        assert_eq!(verified.received(), bytes.len() as u64);
        assert_eq!(
            verified.file().read(0, bytes.len()).await.unwrap(),
            *bytes,
            "it can be read before it is committed"
        );
        verified.commit().await.unwrap();
        assert_eq!(read(&bench.store, digest).await.as_ref(), Some(bytes));
    }
    assert_eq!(temporary(&bench), 0);
    assert_eq!(bench.store.usage().blobs, 3);
    // Its checksums are kept, so that the next process can check a part of it.
    assert!(bench.path(format!("pieces/sha256/{}", digests[0].hex())).is_file());
    bench.reopen(|_| {}).await;
    for digest in &digests {
        assert!(read(&bench.store, digest).await.is_some());
    }
}

#[tokio::test]
async fn what_has_another_digest_or_is_dropped_leaves_nothing() {
    let bench = Bench::new().await;
    let bytes = content(2, 2 << 20);
    let before = bench.store.usage().bytes;
    for wrong in [sha256(b"other"), Digest::of(Algorithm::Sha512, b"other")] {
        let result = upload(&bench, &bytes).await.verify(&wrong).await;
        assert!(matches!(result, Err(VerifyError::Digest { expected, .. }) if expected == wrong));
    }
    assert_eq!(bench.metrics.digest_failures.with_label_values(&["push"]).get(), 2);
    upload(&bench, &bytes).await.discard().await;
    drop(upload(&bench, &bytes).await);
    drop(upload(&bench, &bytes).await.verify(&sha256(&bytes)).await.unwrap());
    until("the dropped ones are gone", || temporary(&bench) == 0 && bench.store.usage().bytes == before).await;
}

#[tokio::test]
async fn a_blob_that_is_there_stays_and_is_counted_once() {
    let bench = Bench::new().await;
    let bytes = content(3, 2 << 20);
    let digest = fill(&bench.store, &bytes).await;
    let (used, blobs) = (bench.store.usage().bytes, bench.store.usage().blobs);
    upload(&bench, &bytes).await.verify(&digest).await.unwrap().commit().await.unwrap();
    until("the second copy is gone", || temporary(&bench) == 0 && bench.store.usage().bytes == used).await;
    assert_eq!(bench.store.usage().blobs, blobs);
}

#[tokio::test]
async fn room_is_reserved_ahead_or_as_it_grows() {
    let bench = Bench::with(|settings| settings.max_size = Some(4 << 20)).await;
    let mut upload = bench.store.upload().await.unwrap();
    let refused = upload.expect(5 << 20).await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused(NoRoom::TooLarge { .. })), "{refused}");
    drop(upload);
    let mut first = bench.store.upload().await.unwrap();
    first.expect(3 << 20).await.unwrap();
    let mut second = bench.store.upload().await.unwrap();
    assert!(second.expect(2 << 20).await.is_err(), "what is reserved is not promised again");
    drop(first);
    // The account is given back on the store's threads.
    let mut tries = 0;
    while second.expect(2 << 20).await.is_err() {
        tries += 1;
        assert!(tries < 1000);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    second.write(content(4, 1000)).await.unwrap();
    second.discard().await;
    // Without a length it is reserved in steps, which do not fit here.
    let mut grown = bench.store.upload().await.unwrap();
    assert!(matches!(grown.write(content(4, 1000)).await, Err(StoreError::Refused(_))));
}

#[tokio::test]
async fn an_upload_of_an_earlier_process_is_gone() {
    let mut bench = Bench::new().await;
    fs::write(bench.path("ingest/tmp/7"), b"half of it").unwrap();
    bench.reopen(|_| {}).await;
    assert_eq!(temporary(&bench), 0);
}

#[tokio::test]
async fn a_full_disk_fails_the_write_and_nothing_else() {
    let disk = SimDisk::new();
    let (store, _) = open(&settings(Path::new("store")), Arc::new(disk.clone())).await;
    let mut upload = store.upload().await.unwrap();
    upload.write(content(5, 100_000)).await.unwrap();
    disk.set_fault(Some(Fault::Full));
    assert!(upload.write(content(6, 100_000)).await.is_err());
    disk.set_fault(None);
    upload.discard().await;
    fill(&store, &content(7, 1000)).await;
}

#[tokio::test]
async fn the_key_is_made_once_is_private_and_can_be_copied() {
    let mut bench = Bench::new().await;
    let key = bench.store.upload_key().await.unwrap();
    assert_eq!(bench.store.upload_key().await.unwrap(), key);
    let path = bench.path("upload-key");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let other = Bench::new().await;
    assert_ne!(other.store.upload_key().await.unwrap(), key, "each store has its own");
    fs::copy(&path, other.path("upload-key")).unwrap();
    assert_eq!(other.store.upload_key().await.unwrap(), key);
    bench.reopen(|_| {}).await;
    assert_eq!(bench.store.upload_key().await.unwrap(), key);
    // What is no key is not overwritten: somebody meant it to be one.
    fs::write(&path, "secret\n").unwrap();
    let error = bench.store.upload_key().await.unwrap_err().to_string();
    assert!(error.contains("64 hexadecimal digits"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"secret\n");
}
