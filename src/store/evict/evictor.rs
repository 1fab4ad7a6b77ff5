//! Reserving room, and evicting what makes it.
//!
//! Leftovers go first, then blobs as `policy` ranks them; the bytes of manifests go last. Nothing is removed for a reservation that
//! would be refused even then.
//!
//! Evicting locks the digest of each blob that goes. A thread that holds a digest's lock has no evictor: see `blobs`.

use super::candidates::{Candidates, Queue};
use super::leftovers::Leftovers;
use crate::oci::Digest;
use crate::store::account::{Reservation, Shortage};
use crate::store::blobs::{BlobEntry, Blobs};
use crate::store::disk::is_full;
use crate::store::error::{NoRoom, StoreError};
use crate::store::files::{Files, Replaced};
use crate::store::jobs::{Jobs, Stop};
use crate::telemetry::Metrics;
use parking_lot::{Mutex, MutexGuard};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The longest that is removed in one go: other evictions wait for the lock, and a longer job would look like a disk that hangs.
const SLICE: Duration = Duration::from_secs(1);
/// A disk that is full although the account is not gets this part of what is stored back, as a percentage.
const RELIEF_PERCENT: u64 = 5;
/// So long nothing more is removed for a disk that stayed full when something was.
const FUTILE: Duration = Duration::from_secs(60);

pub(crate) struct Evictor {
    files: Arc<Files>,
    blobs: Arc<Blobs>,
    candidates: Candidates,
    leftovers: Arc<Leftovers>,
    metrics: Arc<Metrics>,
    /// Held by the thread that evicts.
    evicting: Mutex<()>,
    /// Until when removing something does not help a full disk, for so many bytes and more.
    futile: Mutex<Option<(Instant, u64)>>,
}

/// The turn to evict. It is taken before any digest's lock.
struct Turn<'a>(#[expect(dead_code, reason = "it is held")] MutexGuard<'a, ()>);

#[derive(Default)]
struct Evicted {
    /// Bytes that were removed.
    freed: u64,
    /// Bytes that were not, because no registry can give them again now.
    held: u64,
    /// Whether its time was over before all was removed.
    unfinished: bool,
}

impl Evictor {
    pub(crate) fn new(candidates: Candidates, leftovers: Arc<Leftovers>, metrics: Arc<Metrics>) -> Self {
        let blobs = candidates.blobs.clone();
        let (files, evicting, futile) = (blobs.files.clone(), Mutex::new(()), Mutex::default());
        Self { files, blobs, candidates, leftovers, metrics, evicting, futile }
    }

    fn turn(&self) -> Turn<'_> {
        Turn(self.evicting.lock())
    }

    /// Reserves `bytes`, evicting what was not used for longest if they do not fit.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<Reservation, StoreError> {
        if let Ok(reservation) = self.try_reserve(bytes) {
            return Ok(reservation);
        }
        let turn = self.turn();
        let held = match self.try_reserve(bytes) {
            Ok(reservation) => return Ok(reservation),
            Err(shortage) => self.evict(&turn, &shortage, &mut None).held,
        };
        self.try_reserve(bytes).map_err(|shortage| refused(shortage, bytes, held))
    }

    /// Reserves `bytes` if they fit as it is. If they do not and eviction could make them fit when they come, it reserves nothing:
    /// an announcement removes nothing.
    pub(crate) fn reserve_announced(&self, bytes: u64) -> Result<Reservation, StoreError> {
        match self.try_reserve(bytes) {
            Ok(reservation) => Ok(reservation),
            Err(shortage) => {
                self.could_evict(bytes, shortage)?;
                self.reserve(0)
            }
        }
    }

    fn could_evict(&self, bytes: u64, shortage: Shortage) -> Result<(), StoreError> {
        if matches!(shortage.refusal, NoRoom::TooLarge { .. }) {
            return Err(shortage.refusal.into());
        }
        let leftovers = self.leftovers.bytes();
        if leftovers >= shortage.must {
            return Ok(());
        }
        let Queue { bytes: evictable, held, .. } = self.candidates.queue();
        if evictable.saturating_add(leftovers) >= shortage.must { Ok(()) } else { Err(refused(shortage, bytes, held)) }
    }

    /// Whether so much can be reserved without evicting anything.
    pub(crate) fn fits(&self, bytes: u64) -> bool {
        self.try_reserve(bytes).is_ok()
    }

    fn try_reserve(&self, bytes: u64) -> Result<Reservation, Shortage> {
        // A disk that cannot tell will say so when it is written to.
        self.files.space.reserve(bytes, self.files.disk.free().unwrap_or(u64::MAX))
    }

    /// Reserves `bytes`, evicting in jobs that are each short: the disk does not hang because much has to go. `None`: there is nothing
    /// more to evict, and [`Self::reserve`] says why that is not enough.
    pub(crate) async fn reserve_in_jobs(
        self: &Arc<Self>,
        jobs: &Jobs,
        bytes: u64,
    ) -> Result<Option<Reservation>, StoreError> {
        let mut queue = None;
        loop {
            let evictor = Arc::clone(self);
            let batch = jobs.writers.run(move || Ok(evictor.evict_batch(bytes, queue)));
            match jobs.health.heed(batch.await)? {
                Batch::Enough(reservation) => return Ok(Some(reservation)),
                Batch::More(rest) => queue = rest,
                Batch::Exhausted => return Ok(None),
            }
        }
    }

    /// Evicts for `bytes` for a short while. The room is reserved at once: what else is written meanwhile does not take it.
    fn evict_batch(&self, bytes: u64, mut queue: Option<Queue>) -> Batch {
        let turn = self.turn();
        let shortage = match self.try_reserve(bytes) {
            Ok(reservation) => return Batch::Enough(reservation),
            Err(shortage) => shortage,
        };
        let evicted = self.evict(&turn, &shortage, &mut queue);
        match self.try_reserve(bytes) {
            Ok(reservation) => Batch::Enough(reservation),
            Err(_) if evicted.unfinished => Batch::More(queue),
            Err(_) => Batch::Exhausted,
        }
    }

    /// Replaces a small file, for which room is made.
    pub(crate) fn replace(&self, path: &Path, content: &[u8]) -> Result<Replaced, StoreError> {
        let bytes = content.len() as u64;
        let room = self.reserve(bytes)?;
        let replaced = self.evict_on_enospc(bytes, || self.files.replace(path, content));
        // Counted as used from here on.
        drop(room);
        replaced
    }

    /// Calls `write`, which writes `bytes`. A quota, or a disk that can hold no more files, may leave no room for them although the
    /// account has: then something is evicted and `write` called once more.
    pub(crate) fn evict_on_enospc<T>(
        &self,
        bytes: u64,
        write: impl Fn() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let is_full = |result: &_| matches!(result, Err(StoreError::Io { source, .. }) if is_full(source));
        let first = write();
        if !is_full(&first) || !self.evict_for_disk(bytes) {
            return first;
        }
        let second = write();
        if is_full(&second) {
            self.set_futile(0);
        }
        second
    }

    /// Evicts for a disk that takes nothing more; whether anything went.
    fn evict_for_disk(&self, bytes: u64) -> bool {
        let turn = self.turn();
        if self.futile.lock().is_some_and(|(until, least)| bytes >= least && Instant::now() < until) {
            return false;
        }
        let before = self.files.space.used();
        let (must, refusal) = (bytes.max(1), self.files.space.refusal(bytes, 0));
        let goal = must.max(before / 100 * RELIEF_PERCENT);
        self.evict(&turn, &Shortage { must, goal, refusal }, &mut None);
        let is_relieved = self.files.space.used() < before;
        if !is_relieved {
            self.set_futile(bytes);
        }
        is_relieved
    }

    fn set_futile(&self, least: u64) {
        *self.futile.lock() = Some((Instant::now() + FUTILE, least));
    }

    /// Evicts what is over the limit or over the high watermark, so that a download seldom waits for it.
    pub(crate) fn evict_to_low(&self, stop: &Stop) {
        drop(self.reserve(0));
        let Some(mut shortage) = self.files.space.over_high() else { return };
        let mut queue = None;
        while !stop.is_set() {
            let evicted = self.evict(&self.turn(), &shortage, &mut queue);
            shortage.goal = shortage.goal.saturating_sub(evicted.freed);
            if !evicted.unfinished {
                break;
            }
        }
    }

    /// Evicts for a slice of time. `queue` is what an earlier call has left to do.
    fn evict(&self, turn: &Turn<'_>, shortage: &Shortage, queue: &mut Option<Queue>) -> Evicted {
        if matches!(shortage.refusal, NoRoom::TooLarge { .. }) {
            return Evicted::default();
        }
        let freed = self.leftovers.remove(shortage.must);
        let enough = if shortage.must > 0 { shortage.must } else { shortage.goal };
        if freed >= enough {
            return Evicted { freed, ..Evicted::default() };
        }
        let is_continued = queue.is_some();
        let blobs = queue.get_or_insert_with(|| self.candidates.queue());
        let held = blobs.held;
        if is_continued {
            self.candidates.resume(blobs);
        } else if freed + blobs.bytes < shortage.must {
            return Evicted { freed, held, unfinished: false };
        }
        let (removed, is_empty) = self.evict_blobs(turn, blobs, shortage.goal.saturating_sub(freed));
        if is_empty {
            *queue = None;
        }
        let (freed, is_enough) = (freed + removed, freed + removed >= shortage.goal);
        // Some blobs that a continued queue passed over may be candidates again.
        Evicted { freed, held, unfinished: !is_enough && (!is_empty || is_continued) }
    }

    /// Evicts blobs of `queue` up to `goal` bytes. `true`: there are no more.
    fn evict_blobs(&self, _turn: &Turn<'_>, queue: &mut Queue, goal: u64) -> (u64, bool) {
        let end = Instant::now() + SLICE.min(self.files.disk.patience() / 5);
        let away = self.candidates.away();
        let (mut freed, mut blobs, mut is_empty) = (0_u64, 0_u64, false);
        while freed < goal && !(blobs > 0 && Instant::now() >= end) {
            let Some((digest, entry)) = self.candidates.next(queue, away) else {
                is_empty = true;
                break;
            };
            if let Some(bytes) = self.evict_blob(&digest, &entry, "space") {
                freed += bytes;
                blobs += 1;
            }
            // Requests go first. To sleep instead would cost them more: a thread that wakes up is scheduled at once.
            std::thread::yield_now();
        }
        if blobs > 0 {
            tracing::info!(blobs, size_bytes = freed, "removed blobs that were not used for long to make room");
        }
        (freed, is_empty)
    }

    /// Removes a blob unless a reader has it; the bytes that went.
    pub(crate) fn evict_blob(&self, digest: &Digest, entry: &Arc<BlobEntry>, reason: &str) -> Option<u64> {
        let bytes = self.blobs.remove_unread(digest, entry)?;
        self.metrics.store_evictions.with_label_values(&[reason]).inc();
        self.metrics.store_evicted_bytes.with_label_values(&[] as &[&str]).inc_by(bytes);
        Some(bytes)
    }
}

/// How a job of an eviction ended.
enum Batch {
    Enough(Reservation),
    /// What the next job goes on with.
    More(Option<Queue>),
    Exhausted,
}

fn refused(shortage: Shortage, needed: u64, held: u64) -> StoreError {
    if held == 0 { shortage.refusal.into() } else { NoRoom::Held { needed, held }.into() }
}
