//! Fills: one download from upstream into the store, and any number of readers that follow the growing file.
//!
//! There is at most one fill per digest and registry in the process, whatever repository or tag led to it: a registry that is slow
//! or sends something else holds up nobody who came for another's. It runs on a task of its own: no
//! reader, the first included, can slow it down or end it. Readers learn of its progress from its watermark and read the
//! fill's own open file, below the mark of what is written. The last bytes of the content are released only when the digest of
//! the whole holds; until then an answer cannot end cleanly.

pub(in crate::cache) mod candidates;
pub(in crate::cache) mod download;
mod follower;
#[cfg(test)]
mod modelled;
mod pace;
pub(in crate::cache) mod resume_backoff;
mod run;
pub(in crate::cache) mod transfer;
mod watermark;

/// What the watermark is made of; in `modelled`, a model checker's take their place.
mod sync {
    pub(in crate::cache) use std::sync::{Arc, Mutex, MutexGuard};
}

pub use follower::{Follower, Step};

use crate::cache::Inner;
use crate::cache::error::CacheError;
use crate::cache::fill::candidates::{Candidate, Candidates};
use crate::cache::fill::download::Download;
use crate::oci::{Digest, Registry};
use crate::store::BlobFile;
use crate::upstream::{Relayed, Shares};
use pace::Pace;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Bytes at the end of a content that nobody gets before the digest of the whole holds. A blob no longer than this is verified
/// before its answer begins, so that a mismatch is a clean error.
pub(in crate::cache) const HELD_BACK: u64 = 64 << 10;

/// A range follows the fill if the fill gets to it within this time.
const FOLLOW_WAIT: Duration = Duration::from_millis(20);

/// Ranged requests of readers' own that may run beside one fill.
const RANGES_BESIDE: usize = 8;

/// How far a fill is, as its readers see it.
pub(in crate::cache) type Watermark = watermark::Watermark<Opened, End>;
type Progress = watermark::Progress<Opened, End>;
type Reader = watermark::Reader<Opened, End>;
type Writer = watermark::Writer<Opened, End>;

/// The file that readers follow.
#[derive(Clone, Debug)]
pub(in crate::cache) struct Opened {
    pub(in crate::cache) file: BlobFile,
    /// Length of the content in bytes, as upstream announced it.
    pub(in crate::cache) length: u64,
}

/// How a fill ended.
#[derive(Clone, Debug)]
pub(in crate::cache) enum End {
    /// The digest holds: all of the file may be read.
    Verified,
    /// Upstream failed, or sent something else.
    Failed(CacheError),
    /// The store could not take it: every reader downloads for itself. The first one may have the answer that was already there.
    Bypassed(Arc<Mutex<Option<Download>>>),
}

/// One fill, as its readers and its task share it.
#[derive(Debug)]
pub(in crate::cache) struct Fill {
    /// Whom it is from: all of its candidates are this registry's.
    pub(in crate::cache) registry: Registry,
    pub(in crate::cache) digest: Digest,
    pub(in crate::cache) candidates: Arc<Candidates>,
    pub(in crate::cache) progress: Watermark,
    /// What caches on the way said of it; set when it is opened.
    pub(in crate::cache) relayed: OnceLock<Relayed>,
    /// How fast it has been so far.
    pace: Pace,
    /// Bounds the ranged requests beside the fill.
    pub(in crate::cache) beside: Arc<Semaphore>,
}

impl Fill {
    /// Waits until the fill is open or has ended, and says both.
    pub(in crate::cache) async fn opened(&self) -> (Option<Opened>, Option<End>) {
        let ready = |p: &Progress| (p.opened.is_some() || p.end.is_some()).then(|| (p.opened.clone(), p.end.clone()));
        self.progress.subscribe().wait(ready).await
    }

    /// Waits until the content is verified or the fill has failed otherwise.
    pub(in crate::cache) async fn ended(&self) -> End {
        self.progress.subscribe().wait(|p| p.end.clone()).await
    }

    /// Whether the fill gets to `position` soon, or has ended. Waits as long as that may be; at its pace so far.
    pub(in crate::cache) async fn gets_to(&self, position: u64) -> bool {
        let look = |p: &Progress| {
            if p.written > position || p.end.is_some() {
                return Some(true);
            }
            (!self.pace.covers(p.written, position, FOLLOW_WAIT)).then_some(false)
        };
        timeout(FOLLOW_WAIT, self.progress.subscribe().wait(look)).await.unwrap_or(false)
    }
}

/// How much of a content of `length` bytes may be read before its digest holds.
fn before_digest(length: u64) -> u64 {
    length.saturating_sub(HELD_BACK)
}

/// The fills under way.
#[derive(Debug)]
pub(in crate::cache) struct Fills {
    running: Mutex<HashMap<(Registry, Digest), Arc<Fill>>>,
    places: Shares,
}

impl Fills {
    pub(in crate::cache) fn new(limit: usize) -> Self {
        Self { running: Mutex::default(), places: Shares::new(limit) }
    }

    /// The fill of `digest` from `registry` that is under way.
    pub(in crate::cache) fn running(&self, registry: &Registry, digest: &Digest) -> Option<Arc<Fill>> {
        let running = self.lock();
        if running.is_empty() { None } else { running.get(&(registry.clone(), *digest)).cloned() }
    }

    /// Joins the fill of `digest` from the registry of `candidate`, or begins it. The flag says that it was begun.
    pub(in crate::cache) fn join(
        &self,
        inner: &Arc<Inner>,
        digest: &Digest,
        candidate: Candidate,
    ) -> Result<(Arc<Fill>, bool), CacheError> {
        let key = (candidate.repository.registry.clone(), *digest);
        let mut running = self.lock();
        if let Some(fill) = running.get(&key) {
            return Ok((Arc::clone(fill), false));
        }
        let Some(place) = self.places.take() else {
            return Err(CacheError::Busy { what: "downloads", retry: Duration::from_secs(5) });
        };
        // A task that is cut short drops its writer, and its readers are let go.
        let (writer, progress) = Watermark::new(End::Failed(CacheError::Aborted));
        let fill = Arc::new(Fill {
            registry: key.0.clone(),
            digest: *digest,
            candidates: Arc::new(Candidates::of(candidate)),
            progress,
            relayed: OnceLock::new(),
            pace: Pace::default(),
            beside: Arc::new(Semaphore::new(RANGES_BESIDE)),
        });
        running.insert(key, Arc::clone(&fill));
        drop(running);
        let (task_inner, task_fill) = (Arc::clone(inner), Arc::clone(&fill));
        inner.tasks.spawn(async move {
            run::run(&task_inner, &task_fill, writer).await;
            drop(place);
        });
        Ok((fill, true))
    }

    fn remove(&self, fill: &Fill) {
        self.lock().remove(&(fill.registry.clone(), fill.digest));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Registry, Digest), Arc<Fill>>> {
        self.running.lock()
    }
}
