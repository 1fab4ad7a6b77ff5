//! The local copies of uploads: between two requests of a session, and between upstream's yes and the commit.

use crate::oci::Digest;
use crate::store::{BlobFile, Giver, Upload};
use crate::upstream::{Place, Shares};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// A session that nobody has gone on with for so long is taken for abandoned.
const ABANDONED: Duration = Duration::from_secs(3600);
/// Where there are too many, one that has been idle for so long gives way.
const GIVES_WAY: Duration = Duration::from_secs(60);

/// What the store has of an upload: all of it, from its first byte on.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) upload: Upload,
    _place: Place,
}

/// The copies that nobody is writing at the moment, and the right to begin one.
#[derive(Debug)]
pub(super) struct Copies {
    idle: Mutex<HashMap<u128, (Kept, Instant)>>,
    places: Shares,
}

impl Copies {
    pub(super) fn new(most: usize) -> Self {
        Self { idle: Mutex::default(), places: Shares::new(most) }
    }

    /// A place for one more copy. `None`: there are as many as there may be, and none is old.
    pub(super) fn place(&self) -> Option<Place> {
        if let Some(place) = self.places.take() {
            return Some(place);
        }
        let mut idle = self.idle.lock();
        let oldest = idle.iter().min_by_key(|(_, (_, since))| *since);
        let oldest = oldest.filter(|(_, (_, since))| since.elapsed() >= GIVES_WAY).map(|(id, _)| *id)?;
        drop(idle.remove(&oldest));
        drop(idle);
        self.places.take()
    }

    pub(super) fn begun(upload: Upload, place: Place) -> Kept {
        Kept { upload, _place: place }
    }

    /// Takes the copy of a session.
    pub(super) fn take(&self, id: u128) -> Option<Kept> {
        self.idle.lock().remove(&id).map(|(kept, _)| kept)
    }

    /// Keeps it for the session's next request.
    pub(super) fn put_back(&self, id: u128, kept: Kept) {
        self.idle.lock().insert(id, (kept, Instant::now()));
    }

    /// Removes the copies of abandoned sessions; whether any is left.
    pub(super) fn reap(&self) -> bool {
        let mut idle = self.idle.lock();
        let before = idle.len();
        idle.retain(|_, (_, since)| since.elapsed() < ABANDONED);
        if idle.len() < before {
            tracing::info!(sessions = before - idle.len(), "removed what was kept of abandoned uploads");
        }
        !idle.is_empty()
    }
}

/// Blobs that upstream has taken and whose bytes are verified here, until they are in their place: a sync may take seconds.
#[derive(Debug, Default)]
pub(in crate::cache) struct PendingCommits {
    all: Mutex<HashMap<Digest, PendingCommit>>,
    /// How many: nearly always none, which costs a hit one load.
    count: AtomicUsize,
}

#[derive(Clone, Debug)]
pub(in crate::cache) struct PendingCommit {
    pub(in crate::cache) file: BlobFile,
    pub(in crate::cache) length: u64,
    /// Who has taken it.
    pub(in crate::cache) giver: Giver,
}

/// At most so many at a time; beyond that a push waits for its own commit.
const PENDING_COMMITS: usize = 64;

impl PendingCommits {
    /// The blob, if it is pending.
    pub(in crate::cache) fn get(&self, digest: &Digest) -> Option<PendingCommit> {
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
    async fn a_copy_gives_way_after_a_minute_and_goes_after_an_hour() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk::new(folder.path()));
        let store = Store::open(&settings(folder.path()), disk, Arc::new(Metrics::new())).await.unwrap();
        let copies = Copies::new(2);
        let mut begun = Vec::new();
        for _ in 0..2 {
            begun.push(Copies::begun(store.upload().await.unwrap(), copies.place().unwrap()));
        }
        let next = store.upload().await.unwrap();
        tokio::time::pause();
        assert!(copies.place().is_none(), "both places are taken");
        for (id, kept) in (1..).zip(begun) {
            copies.put_back(id, kept);
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        tokio::time::advance(GIVES_WAY.saturating_sub(Duration::from_secs(21))).await;
        assert!(copies.place().is_none(), "they may still be gone on with");
        tokio::time::advance(Duration::from_secs(1)).await;
        let place = copies.place().expect("the older one gives way");
        assert!(copies.take(1).is_none());
        copies.put_back(3, Copies::begun(next, place));

        tokio::time::advance(ABANDONED.saturating_sub(GIVES_WAY)).await;
        assert!(copies.reap(), "none is an hour old");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(copies.reap(), "one is left");
        assert!(copies.take(2).is_none());
        tokio::time::advance(GIVES_WAY).await;
        assert!(!copies.reap());
        assert!(copies.take(3).is_none() && copies.place().is_some());
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
