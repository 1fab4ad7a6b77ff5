use super::candidates::Candidates;
use super::download::Download;
use super::pace::Pace;
use super::watermark;
use crate::cache::error::CacheError;
use crate::oci::{Digest, Registry};
use crate::store::BlobFile;
use crate::upstream::Relayed;
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Bytes at the end of a content that no reader gets before the digest of the whole holds. A blob no longer than this is verified
/// before its answer begins, so that a mismatch is a clean error.
pub(in crate::cache) const HELD_BACK: u64 = 64 << 10;

/// A range follows the fill if the fill gets to it within this time.
const FOLLOW_WAIT: Duration = Duration::from_millis(20);

/// Ranged requests of readers' own that may run beside one fill.
const RANGES_BESIDE: usize = 8;

/// How far a fill is, as its readers see it.
pub(super) type Watermark = watermark::Watermark<Opened, End>;
pub(super) type Progress = watermark::Progress<Opened, End>;
pub(super) type Reader = watermark::Reader<Opened, End>;
pub(super) type Writer = watermark::Writer<Opened, End>;

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
    Verified(Opened),
    /// Upstream failed, or sent something else.
    Failed(CacheError),
    /// The store could not take it: every reader downloads for itself. The first one may have the answer that was already there.
    Bypassed(Arc<Mutex<Option<Download>>>),
}

/// What a request meets at a fill.
pub(in crate::cache) enum Met {
    /// It is open.
    Open(Opened),
    /// It has ended; with the length that it was opened with, if it was.
    Ended(End, Option<u64>),
}

/// One fill, as its readers and its task share it.
#[derive(Debug)]
pub(in crate::cache) struct Fill {
    /// Where it is from: all of its candidates are this registry's.
    pub(in crate::cache) registry: Registry,
    pub(in crate::cache) digest: Digest,
    pub(in crate::cache) candidates: Arc<Candidates>,
    pub(super) progress: Watermark,
    /// What caches on the way said of it; set when it is opened.
    pub(in crate::cache) relayed: OnceLock<Relayed>,
    /// How fast it has been so far.
    pub(super) pace: Pace,
    /// Bounds the ranged requests beside the fill.
    pub(in crate::cache) beside: Arc<Semaphore>,
}

impl Fill {
    pub(super) fn new(registry: Registry, digest: Digest, candidates: Candidates, progress: Watermark) -> Self {
        let (candidates, beside) = (Arc::new(candidates), Arc::new(Semaphore::new(RANGES_BESIDE)));
        Self { registry, digest, candidates, progress, relayed: OnceLock::new(), pace: Pace::default(), beside }
    }

    /// Waits until the fill is open or has ended.
    pub(in crate::cache) async fn met(&self) -> Met {
        let ready = |p: &Progress| match (&p.end, &p.opened) {
            (Some(end), opened) => Some(Met::Ended(end.clone(), opened.as_ref().map(|opened| opened.length))),
            (None, Some(opened)) => Some(Met::Open(opened.clone())),
            (None, None) => None,
        };
        self.progress.subscribe().wait(ready).await
    }

    /// The length that it was opened with, if it is open.
    pub(in crate::cache) fn length(&self) -> Option<u64> {
        self.progress.now(|progress| progress.opened.as_ref().map(|opened| opened.length))
    }

    /// How it ended, if it has.
    pub(in crate::cache) fn end(&self) -> Option<End> {
        self.progress.now(|progress| progress.end.clone())
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
pub(super) fn before_digest(length: u64) -> u64 {
    length.saturating_sub(HELD_BACK)
}
