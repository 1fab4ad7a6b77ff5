use super::answer::StoredManifest;
use crate::oci::{Digest, Repository};
use quick_cache::{Weighter, sync::Cache};
use std::sync::Arc;

/// Manifests lately used, ready to be sent: a hit costs no file access.
#[derive(Debug)]
pub(super) struct ManifestMemory(Cache<(Repository, Digest), Arc<StoredManifest>, ByBytes>);

#[derive(Clone, Debug)]
struct ByBytes;

/// What an entry costs besides its document: keys, counters, the cache's own bookkeeping.
const OVERHEAD: u64 = 512;
/// A common size of a manifest, from which the table's first size is taken.
const TYPICAL: u64 = 4096;

impl Weighter<(Repository, Digest), Arc<StoredManifest>> for ByBytes {
    fn weight(&self, _: &(Repository, Digest), manifest: &Arc<StoredManifest>) -> u64 {
        manifest.content.len() as u64 + OVERHEAD
    }
}

impl ManifestMemory {
    /// Keeps at most `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        let items = usize::try_from(bytes / TYPICAL).unwrap_or(usize::MAX).max(16);
        Self(Cache::with_weighter(items, bytes, ByBytes))
    }

    pub(super) fn get(&self, repository: &Repository, digest: &Digest) -> Option<Arc<StoredManifest>> {
        self.0.get(&(repository.clone(), *digest))
    }

    pub(super) fn remove(&self, repository: &Repository, digest: &Digest) {
        self.0.remove(&(repository.clone(), *digest));
    }

    pub(super) fn insert(&self, repository: &Repository, manifest: Arc<StoredManifest>) {
        self.0.insert((repository.clone(), manifest.digest), manifest);
    }
}
