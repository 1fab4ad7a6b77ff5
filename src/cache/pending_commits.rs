use crate::oci::Digest;
use crate::store::{BlobFile, Giver};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Blobs that upstream has taken and whose bytes are verified here, until they are in their place: a sync may take seconds.
#[derive(Debug, Default)]
pub(super) struct PendingCommits {
    all: Mutex<HashMap<Digest, PendingCommit>>,
    /// How many: nearly always none, which costs a hit one load.
    count: AtomicUsize,
}

#[derive(Clone, Debug)]
pub(super) struct PendingCommit {
    pub(super) file: BlobFile,
    pub(super) length: u64,
    /// The repository that has taken it.
    pub(super) giver: Giver,
}

/// At most so many at a time; beyond that a push waits for its own commit.
const PENDING_COMMITS: usize = 64;

impl PendingCommits {
    /// The blob, if it is pending.
    pub(super) fn get(&self, digest: &Digest) -> Option<PendingCommit> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.all.lock().get(digest).cloned()
    }

    /// Enters one. `false`: another of that digest is pending, or too many are.
    pub(super) fn begin(&self, digest: Digest, pending: PendingCommit) -> bool {
        let mut pending_commits = self.all.lock();
        if pending_commits.len() >= PENDING_COMMITS || pending_commits.contains_key(&digest) {
            return false;
        }
        pending_commits.insert(digest, pending);
        self.count.store(pending_commits.len(), Ordering::Release);
        true
    }

    pub(super) fn end(&self, digest: &Digest) {
        let mut pending_commits = self.all.lock();
        pending_commits.remove(digest);
        self.count.store(pending_commits.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreSettings;
    use crate::oci::{Algorithm, Registry, Repository};
    use crate::store::{RealDisk, Store};
    use crate::telemetry::Metrics;
    use std::sync::Arc;

    fn settings(path: &std::path::Path) -> StoreSettings {
        StoreSettings::small(path, 64 << 20)
    }

    #[tokio::test]
    async fn a_landing_too_many_is_refused_and_one_that_ended_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk::new(folder.path()));
        let store = Store::open(&settings(folder.path()), disk, Arc::new(Metrics::new())).await.unwrap();
        let digests: Vec<Digest> =
            (0..=PENDING_COMMITS).map(|n| Digest::of(Algorithm::Sha256, &n.to_le_bytes())).collect();
        let content = b"content";
        let digest = Digest::of(Algorithm::Sha256, content);
        store.put_small(&digest, bytes::Bytes::from_static(content)).await.unwrap();
        let file = store.blob(&digest).await.unwrap().unwrap().file().clone();
        let repository = Repository { registry: Registry::new("r.io"), name: "a".parse().unwrap() };
        let pending = PendingCommit { file, length: 7, giver: Giver { repository, alone: false } };
        let pending_commits = PendingCommits::default();
        for digest in &digests[..PENDING_COMMITS] {
            assert!(pending_commits.begin(*digest, pending.clone()));
        }
        assert!(!pending_commits.begin(digests[PENDING_COMMITS], pending.clone()), "one too many");
        pending_commits.end(&digests[0]);
        assert!(pending_commits.get(&digests[0]).is_none());
        assert!(!pending_commits.begin(digests[1], pending.clone()), "that one is pending");
        assert!(pending_commits.begin(digests[PENDING_COMMITS], pending));
    }
}
