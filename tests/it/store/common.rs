pub(crate) use crate::harness::{until, until_async};
use bytes::Bytes;
use larder::config::{Durability, StoreSettings};
use larder::oci::{Algorithm, Digest, Manifest, MediaType, Registry, Repository};
use larder::store::{Disk, RealDisk, Store};
use larder::telemetry::Metrics;
use std::path::Path;
use std::sync::Arc;

pub(crate) fn settings(path: &Path) -> StoreSettings {
    StoreSettings { sync: Durability::Commit, ..StoreSettings::small(path, 1 << 30) }
}

/// A store in a folder that goes when the test ends.
pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) metrics: Arc<Metrics>,
    settings: StoreSettings,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut StoreSettings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(folder.path());
        change(&mut settings);
        let (store, metrics) = open(&settings, Arc::new(RealDisk::new(folder.path()))).await;
        Self { folder, store, metrics, settings }
    }

    /// Closes the store, lets `between` touch its files, and opens it again.
    pub(crate) async fn reopen(&mut self, between: impl FnOnce(&Path)) {
        self.store.close().await;
        between(self.folder.path());
        (self.store, self.metrics) = open(&self.settings, Arc::new(RealDisk::new(self.folder.path()))).await;
    }

    /// Changes the settings of the next start.
    pub(crate) fn set(&mut self, change: impl FnOnce(&mut StoreSettings)) {
        change(&mut self.settings);
    }

    pub(crate) async fn reopen_with_limit(&mut self, limit: u64) {
        self.settings.max_size = Some(limit);
        self.reopen(|_| {}).await;
    }

    pub(crate) fn path(&self, path: impl AsRef<Path>) -> std::path::PathBuf {
        self.folder.path().join(path)
    }
}

pub(crate) async fn open(settings: &StoreSettings, disk: Arc<dyn Disk>) -> (Store, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    let store = Store::open(settings, disk, Arc::clone(&metrics)).await.unwrap();
    (store, metrics)
}

/// Waits until the walk has counted everything.
pub(crate) async fn walked(store: &Store) {
    until("the walk ends", || store.usage().exact).await;
}

pub(crate) fn sha256(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

/// Content that differs from byte to byte and from seed to seed.
pub(crate) fn content(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

pub(crate) async fn fill(store: &Store, content: &Bytes) -> Digest {
    let digest = sha256(content);
    let mut ingest = store.ingest(&digest, Some(content.len() as u64)).await.unwrap();
    while ingest.received() < content.len() as u64 {
        let start = usize::try_from(ingest.received()).unwrap();
        let end = content.len().min(start + 64 * 1024);
        ingest.write(content.slice(start..end)).await.unwrap();
    }
    ingest.verify().await.unwrap().commit().await.unwrap();
    digest
}

pub(crate) async fn read(store: &Store, digest: &Digest) -> Option<Bytes> {
    let blob = store.blob(digest).await.unwrap()?;
    Some(blob.file().read(0, usize::try_from(blob.len()).unwrap()).await.unwrap())
}

pub(crate) fn repository(name: &str) -> Repository {
    Repository { registry: Registry::new("myacr.azurecr.io"), name: name.parse().unwrap() }
}

pub(crate) fn media_type() -> MediaType {
    MediaType::OCI_MANIFEST.parse().unwrap()
}

/// Puts and links a manifest that names `layers`.
pub(crate) async fn link(store: &Store, repository: &Repository, layers: &[Digest]) -> Digest {
    let layers: Vec<String> = layers.iter().map(|layer| format!(r#"{{"digest":"{layer}","size":1}}"#)).collect();
    let bytes = Bytes::from(format!(r#"{{"schemaVersion":2,"layers":[{}]}}"#, layers.join(",")));
    let digest = sha256(&bytes);
    store.put_small(&digest, bytes.clone()).await.unwrap();
    let manifest = Manifest::parse(&bytes).unwrap();
    store.link_manifest(repository, &digest, &media_type(), &manifest).await.unwrap();
    digest
}
