//! A store as an older larder wrote it, byte for byte. These files must not follow the code: they are what is on people's disks.

use crate::store::common::{content, fill, open, read, repository, settings, sha256, walked};
use bytes::Bytes;
use larder::oci::Digest;
use larder::store::{ListKey, Member, RealDisk};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

const LAYER: &str = "e28d98ac666afd34f089b971a663264d54d67a60ddc82996d48d8f3c204eb75f";
const GONE: &str = "283bb9deef02e6843abfb538efa1eca70801bd8a701c3f98191e123496339247";
const MANIFEST: &str = "2f125d525093f529d89426011b8ae9ee52c58fbceb0367e985d2a04e65a88484";

/// Without `givers/`, without `moved` in the tag, and with a partial download that does not say from which registry it is.
fn files() -> Vec<(String, String)> {
    let of = "registry myacr.azurecr.io\nrepository team/app\nname";
    let manifest = format!(
        r#"{{"schemaVersion":2,"layers":[{{"digest":"sha256:{LAYER}","size":7}},{{"digest":"sha256:{GONE}","size":4}}]}}"#
    );
    let repository = "repositories/myacr.azurecr.io/team/app";
    let tag =
        format!("larder-tag 1\ncrc32c 29be446f\n{of} v1\ndigest sha256:{MANIFEST}\nseen 1764000000.000000000\n\n");
    let link = format!(
        "larder-manifest 1\ncrc32c 23221294\n{of} sha256:{MANIFEST}\ntype application/vnd.oci.image.manifest.v1+json\n\n"
    );
    let list =
        "larder-list 1\ncrc32c 76865449\nkey tags myacr.azurecr.io team/app\nfetched 1764000000.000000000\n\nv1\n";
    [
        ("version".to_owned(), "1\n".to_owned()),
        ("default-size".to_owned(), String::new()),
        (format!("blobs/sha256/{LAYER}"), "a layer".to_owned()),
        (format!("blobs/sha256/{MANIFEST}"), manifest),
        (format!("{repository}/_tags/v1"), tag),
        (format!("{repository}/_manifests/sha256/{MANIFEST}"), link),
        (
            format!("{repository}/_blobs/sha256/{GONE}"),
            format!("larder-blob 1\ncrc32c 07019784\n{of} sha256:{GONE}\ngone true\n\n"),
        ),
        ("pins".to_owned(), "larder-pins 1\ncrc32c d6631848\n\nmyacr.azurecr.io/team/app:v1".to_owned()),
        ("lists/tags-3efb70f1388f631e3b84a7c97428f812bd5e76439dbfe91f5778e9df6b6aad58".to_owned(), list.to_owned()),
    ]
    .into()
}

fn write(folder: &Path, path: &str, bytes: &[u8]) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_store_of_an_older_larder_opens_with_all_that_it_has() {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files() {
        write(folder.path(), &path, text.as_bytes());
    }
    let left = content(1, 300_000);
    write(folder.path(), &format!("ingest/sha256/{}", sha256(&left).hex()), &left[..100_000]);
    let (store, _) = open(&settings(folder.path()), Arc::new(RealDisk::new(folder.path()))).await;
    walked(&store).await;
    let app = repository("team/app");
    let digest = |hex: &str| format!("sha256:{hex}").parse::<Digest>().unwrap();
    let (layer, gone, manifest) = (digest(LAYER), digest(GONE), digest(MANIFEST));

    let tag = store.tag(&app, &"v1".parse().unwrap()).await.unwrap().unwrap();
    let seen = UNIX_EPOCH + Duration::from_secs(1_764_000_000);
    assert_eq!((tag.digest, tag.seen), (manifest, seen));
    assert_eq!(store.tag_moved(&app, &"v1".parse().unwrap()).await.unwrap(), Some(seen));
    assert!(store.manifest_type(&app, &manifest).await.unwrap().is_some());
    assert_eq!(store.membership(&app, &layer).await.unwrap(), Some(Member::Named));
    assert_eq!(store.membership(&app, &gone).await.unwrap(), None, "a tombstone stays one");
    assert_eq!(read(&store, &layer).await, Some(Bytes::from_static(b"a layer")));
    assert!(store.is_pinned(&manifest) && store.is_pinned(&layer));
    let list = store.list(&ListKey::Tags(app.clone())).await.unwrap().unwrap();
    assert_eq!(list.content, "v1\n");
    let givers = store.givers(&layer).await.unwrap();
    assert!(givers.is_earlier(&app.registry), "one registry gave all that has no record");

    // The partial download is continued, by the first registry that has the blob.
    let mut ingest = store.ingest_from(&app.registry, &sha256(&left)).await.unwrap();
    assert_eq!(ingest.received(), 100_000);
    ingest.write(left.slice(100_000..)).await.unwrap();
    ingest.verify().await.unwrap().commit().await.unwrap();
    fill(&store, &content(2, 1000)).await;
    assert_eq!(store.usage().blobs, 4);
    store.close().await;
}
