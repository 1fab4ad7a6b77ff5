use crate::store::common::{Bench, content, link, media_type, repository, sha256, walked};
use bytes::Bytes;
use larder::oci::{Manifest, Registry, Tag};
use larder::store::{ListKey, StoredList, TagLink};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::new(1_700_000_000 + seconds, 5)
}

/// Every file below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn tags_come_back_exactly_and_their_names_never_meet() {
    let mut bench = Bench::new().await;
    let (a, b) = (repository("a"), repository("a/b"));
    let names = ["v1", "V1", "con", "CON", "a.", "_tags", &"A".repeat(128), &"a".repeat(128)];
    for (n, name) in (0_u64..).zip(names) {
        bench.store.set_tag(&a, &tag(name), TagLink { digest: sha256(name.as_bytes()), seen: at(n) }).await.unwrap();
    }
    bench.reopen(|_| {}).await;
    for (n, name) in (0_u64..).zip(names) {
        let link = bench.store.tag(&a, &tag(name)).await.unwrap().unwrap();
        assert_eq!(link, TagLink { digest: sha256(name.as_bytes()), seen: at(n) }, "{name}");
        assert_eq!(bench.store.tag(&b, &tag(name)).await.unwrap(), None);
    }
    bench.store.set_tag(&a, &tag("v1"), TagLink { digest: sha256(b"moved"), seen: at(9) }).await.unwrap();
    assert_eq!(bench.store.tag(&a, &tag("v1")).await.unwrap().unwrap().digest, sha256(b"moved"));
    bench.store.remove_tag(&a, &tag("v1")).await.unwrap();
    bench.store.remove_tag(&a, &tag("v1")).await.unwrap();
    assert_eq!(bench.store.tag(&a, &tag("v1")).await.unwrap(), None);
    assert!(bench.store.tag(&a, &tag("V1")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_blob_that_is_disowned_is_gone_against_all_manifests_until_it_is_linked_again() {
    let mut bench = Bench::new().await;
    let (a, b) = (repository("a"), repository("b"));
    let (gone, other) = (sha256(b"gone"), sha256(b"other"));
    for repository in [&a, &b] {
        link(&bench.store, repository, &[gone, other]).await;
    }
    assert!(bench.store.membership(&a, &gone).await.unwrap().is_some());
    bench.store.tombstone_blob(&a, &gone).await.unwrap();
    for again in [false, true] {
        assert!(bench.store.membership(&a, &gone).await.unwrap().is_none());
        assert!(bench.store.membership(&a, &other).await.unwrap().is_some());
        assert!(bench.store.membership(&b, &gone).await.unwrap().is_some(), "another repository's is its own");
        // Neither a manifest that is pulled again nor a restart brings it back.
        if !again {
            link(&bench.store, &a, &[gone, other]).await;
            assert!(bench.store.membership(&a, &gone).await.unwrap().is_none());
            bench.reopen(|_| {}).await;
        }
    }
    bench.store.link_blob(&a, &gone).await.unwrap();
    assert!(bench.store.membership(&a, &gone).await.unwrap().is_some());
    bench.reopen(|_| {}).await;
    assert!(bench.store.membership(&a, &gone).await.unwrap().is_some());
}

#[tokio::test]
async fn a_link_that_is_torn_empty_or_of_another_name_is_absent() {
    let bench = Bench::new().await;
    let a = repository("a");
    let seen = TagLink { digest: sha256(b"x"), seen: at(0) };
    bench.store.set_tag(&a, &tag("one"), seen).await.unwrap();
    let path = bench.path("repositories/myacr.azurecr.io/a/_tags/one");
    let whole = fs::read(&path).unwrap();
    for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(bench.store.tag(&a, &tag("one")).await.unwrap(), None, "cut at {cut}");
    }
    fs::write(&path, &whole).unwrap();
    fs::copy(&path, path.with_file_name("two")).unwrap();
    assert_eq!(bench.store.tag(&a, &tag("one")).await.unwrap(), Some(seen));
    assert_eq!(bench.store.tag(&a, &tag("two")).await.unwrap(), None);
}

#[tokio::test]
async fn a_manifest_is_linked_per_repository_and_absent_without_its_bytes() {
    let mut bench = Bench::new().await;
    let (a, b) = (repository("a"), repository("b"));
    let digest = link(&bench.store, &a, &[]).await;
    assert_eq!(bench.store.manifest_type(&a, &digest).await.unwrap(), Some(media_type()));
    assert_eq!(bench.store.manifest_type(&b, &digest).await.unwrap(), None);
    let blob = format!("blobs/sha256/{}", digest.hex());
    bench.reopen(|folder| fs::remove_file(folder.join(blob)).unwrap()).await;
    assert_eq!(bench.store.manifest_type(&a, &digest).await.unwrap(), None);
    link(&bench.store, &a, &[]).await;
    assert_eq!(bench.store.manifest_type(&a, &digest).await.unwrap(), Some(media_type()));
    bench.store.unlink_manifest(&a, &digest).await.unwrap();
    assert_eq!(bench.store.manifest_type(&a, &digest).await.unwrap(), None);
    assert!(bench.store.blob(&digest).await.unwrap().is_some(), "the bytes may serve another repository");
}

#[tokio::test]
async fn a_repository_holds_what_its_manifests_name_and_what_is_linked() {
    let mut bench = Bench::new().await;
    let (a, b) = (repository("a"), repository("b"));
    let (layer, pushed, other) = (sha256(b"layer"), sha256(b"pushed"), sha256(b"other"));
    assert!(bench.store.membership(&a, &layer).await.unwrap().is_none());
    let manifest = link(&bench.store, &a, &[layer]).await;
    bench.store.link_blob(&a, &pushed).await.unwrap();
    for restart in [false, true] {
        if restart {
            bench.reopen(|_| {}).await;
        }
        assert!(bench.store.membership(&a, &layer).await.unwrap().is_some());
        assert!(bench.store.membership(&a, &pushed).await.unwrap().is_some());
        assert!(bench.store.membership(&a, &other).await.unwrap().is_none());
        assert!(bench.store.membership(&b, &layer).await.unwrap().is_none());
    }
    bench.store.unlink_manifest(&a, &manifest).await.unwrap();
    assert!(bench.store.membership(&a, &layer).await.unwrap().is_none(), "the index is not believed without the link");
    assert!(bench.store.membership(&a, &pushed).await.unwrap().is_some());
}

#[tokio::test]
async fn a_repeated_question_about_a_blob_is_answered_at_once() {
    let mut bench = Bench::new().await;
    let a = repository("a");
    let layer = sha256(b"layer");
    link(&bench.store, &a, &[layer]).await;
    bench.reopen(|_| {}).await;
    for digest in [layer, sha256(b"other")] {
        let expected = bench.store.membership(&a, &digest).await.unwrap();
        let mut again = Box::pin(bench.store.membership(&a, &digest));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(matches!(again.as_mut().poll(&mut context), std::task::Poll::Ready(Ok(held)) if held == expected));
    }
}

#[tokio::test]
async fn lists_come_back_with_their_time_and_a_damaged_one_is_absent() {
    let mut bench = Bench::new().await;
    let a = repository("a");
    let keys = [
        ListKey::Catalogue(Registry::new("myacr.azurecr.io")),
        ListKey::Tags(a.clone()),
        ListKey::Referrers(a.clone(), sha256(b"1")),
        ListKey::Referrers(a, sha256(b"2")),
    ];
    for (n, key) in (0_u64..).zip(&keys) {
        let list = StoredList { fetched: at(n), content: content(n, 5000) };
        bench.store.set_list(key, &list).await.unwrap();
    }
    bench.reopen(|_| {}).await;
    for (n, key) in (0_u64..).zip(&keys) {
        let list = StoredList { fetched: at(n), content: content(n, 5000) };
        assert_eq!(bench.store.list(key).await.unwrap(), Some(list));
    }
    for file in files(&bench.path("lists")) {
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&file, bytes).unwrap();
    }
    assert_eq!(bench.store.list(&keys[0]).await.unwrap(), None);
    bench.store.set_list(&keys[0], &StoredList { fetched: at(7), content: Bytes::new() }).await.unwrap();
    assert!(bench.store.list(&keys[0]).await.unwrap().is_some());
    bench.store.remove_list(&keys[0]).await.unwrap();
    assert_eq!(bench.store.list(&keys[0]).await.unwrap(), None);
}

#[tokio::test]
async fn links_are_counted_once_whether_written_before_or_after_the_walk() {
    let mut bench = Bench::new().await;
    let a = repository("a");
    link(&bench.store, &a, &[]).await;
    bench.store.set_tag(&a, &tag("v1"), TagLink { digest: sha256(b"x"), seen: at(0) }).await.unwrap();
    bench.reopen(|_| {}).await;
    walked(&bench.store).await;
    bench.store.set_tag(&a, &tag("v1"), TagLink { digest: sha256(b"y"), seen: at(0) }).await.unwrap();
    bench.store.set_tag(&a, &tag("v2"), TagLink { digest: sha256(b"y"), seen: at(0) }).await.unwrap();
    let count = |kind: &str| bench.metrics.store_objects.with_label_values(&[kind]).get();
    assert_eq!((count("tag"), count("manifest"), count("blob")), (2, 1, 1));
    let parts = ["blobs", "repositories", "lists"].map(|part| files(&bench.path(part)));
    let bytes: u64 = parts.iter().flatten().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(bytes > 0);
    let index = bench.metrics.store_bytes.with_label_values(&[] as &[&str]).get();
    assert!(u64::try_from(index).unwrap() >= bytes, "{index} in the metric, {bytes} on disk");
}

#[tokio::test]
async fn a_chain_of_indexes_is_followed_for_sixteen_levels() {
    let bench = Bench::new().await;
    let a = repository("a");
    let mut child = link(&bench.store, &a, &[]).await;
    let mut lengths = Vec::new();
    for _ in 0..20 {
        let bytes = Bytes::from(format!(r#"{{"manifests":[{{"digest":"{child}","size":1}}]}}"#));
        lengths.push(bytes.len() as u64);
        child = sha256(&bytes);
        bench.store.put_small(&child, bytes.clone()).await.unwrap();
        let manifest = Manifest::parse(&bytes).unwrap();
        bench.store.link_manifest(&a, &child, &media_type(), &manifest).await.unwrap();
    }
    bench.store.set_tag(&a, &tag("top"), TagLink { digest: child, seen: at(0) }).await.unwrap();
    let references = bench.store.references().await.unwrap();
    assert_eq!(references.len(), 1);
    assert_eq!(references[0].bytes, lengths[lengths.len() - 17..].iter().sum::<u64>());
    assert_eq!(references[0].missing, 0);
}
