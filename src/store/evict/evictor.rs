//! Making room: what goes when a reservation does not fit.
//!
//! In this order: what lies in quarantine, partial downloads that nobody is filling, blobs as `policy` ranks them, the bytes of
//! manifests. A blob that somebody has open, that is pinned, or that no upstream can give again now (`origins`) is no candidate.
//! Nothing is removed for a reservation that would be refused all the same.

use crate::oci::Digest;
use crate::store::account::{Reservation, Shortage};
use crate::store::blobs::policy;
use crate::store::blobs::table::{Entry, millis};
use crate::store::error::{Refusal, StoreError};
use crate::store::files::layout::{self, Part};
use crate::store::files::small::{Replaced, is_absent, is_full};
use crate::store::parts::Inner;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// After this long, a partial download that nobody goes on with is removed.
const INGEST_AGE: Duration = Duration::from_secs(24 * 3600);
/// The longest that is removed in one go: whoever waits for the lock, and the watch over jobs that hang, must not wait for all of it.
const SLICE: Duration = Duration::from_secs(1);
/// A disk that is full although the account is not gets this part of what is stored back, as a percentage.
const RELIEF_PERCENT: u64 = 5;
/// So long nothing more is removed for a disk that stayed full when something was.
const FUTILE: Duration = Duration::from_secs(60);

/// What became of an attempt to make room.
#[derive(Default)]
struct Made {
    /// Bytes that were removed.
    freed: u64,
    /// Bytes that were not, because they cannot be had again now.
    held: u64,
    /// Whether there was not the time to remove all that would have been.
    unfinished: bool,
}

/// Blobs that may go, the first to go first. To choose among 100,000 takes longer than to remove a few: one choice serves until
/// there is room.
struct Queue {
    blobs: std::vec::IntoIter<(Digest, Arc<Entry>)>,
    /// What they have together.
    bytes: u64,
    /// What those have that may not go, because they cannot be had again now.
    held: u64,
    /// Milliseconds since 1970. What is used after it has lost its place.
    made: u64,
}

impl Inner {
    /// Reserves `bytes`, removing what was not used for longest if they do not fit.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<Reservation, StoreError> {
        if let Ok(reservation) = self.try_reserve(bytes) {
            return Ok(reservation);
        }
        let _one = self.evicting.lock();
        let held = match self.try_reserve(bytes) {
            Ok(reservation) => return Ok(reservation),
            Err(shortage) => self.make_room(&shortage, &mut None).held,
        };
        self.try_reserve(bytes).map_err(|shortage| match held {
            0 => shortage.refusal.into(),
            held => Refusal::Held { needed: bytes, held }.into(),
        })
    }

    /// Makes the room in the account that `bytes` need, in jobs that are each short: a disk does not hang because much has to go.
    pub(crate) async fn make_way(self: &Arc<Self>, bytes: u64) -> Result<(), StoreError> {
        let mut queue = None;
        while !self.space.has_room(bytes) {
            let inner = Arc::clone(self);
            let made = self.writers.run(move || {
                let unfinished = inner.make_some_room(bytes, &mut queue);
                Ok(unfinished.then_some(queue))
            });
            match self.health.heed(made.await)? {
                Some(rest) => queue = rest,
                None => break,
            }
        }
        Ok(())
    }

    /// Reserves `bytes` if they fit as it is. If not, nothing, as long as room could be made for them when they come: what is only
    /// announced removes nothing.
    pub(crate) fn reserve_announced(&self, bytes: u64) -> Result<Reservation, StoreError> {
        match self.try_reserve(bytes) {
            Ok(reservation) => Ok(reservation),
            Err(shortage) => {
                self.could_hold(bytes, shortage)?;
                self.reserve(0)
            }
        }
    }

    fn could_hold(&self, bytes: u64, shortage: Shortage) -> Result<(), StoreError> {
        if matches!(shortage.refusal, Refusal::TooLarge { .. }) {
            return Err(shortage.refusal.into());
        }
        let idle = self.partials.idle_bytes().saturating_add(self.quarantined_bytes());
        if idle >= shortage.must {
            return Ok(());
        }
        let Queue { bytes: evictable, held, .. } = self.candidates();
        match held {
            _ if evictable.saturating_add(idle) >= shortage.must => Ok(()),
            0 => Err(shortage.refusal.into()),
            held => Err(Refusal::Held { needed: bytes, held }.into()),
        }
    }

    fn quarantined_bytes(&self) -> u64 {
        let folder = Path::new(layout::QUARANTINE);
        let entries = self.files.disk.list(folder).unwrap_or_default();
        let metadata = entries.iter().filter_map(|entry| self.files.disk.metadata(&folder.join(&entry.name)).ok());
        metadata.map(|metadata| metadata.len).sum()
    }

    /// Removes for a reservation of `bytes` what can be removed in a short while. `true`: it takes longer, call again.
    fn make_some_room(&self, bytes: u64, queue: &mut Option<Queue>) -> bool {
        let _one = self.evicting.lock();
        self.try_reserve(bytes).is_err_and(|shortage| self.make_room(&shortage, queue).unfinished)
    }

    /// Pinned, or held by an export.
    fn is_kept(&self, digest: &Digest) -> bool {
        self.pins.has(digest) || self.holds.has(digest)
    }

    /// Replaces a small file, for which there is room. No digest may be locked.
    pub(crate) fn replace(&self, path: &Path, content: &[u8]) -> Result<Replaced, StoreError> {
        let room = self.reserve(content.len() as u64)?;
        let replaced = self.with_room(content.len() as u64, || self.files.replace(path, content));
        // Counted as used from here on.
        drop(room);
        replaced
    }

    /// Does what writes `bytes`. If the disk has no room for them although the account has, because of a quota or since it can hold
    /// no more files, something is removed and it is tried once more. No digest may be locked.
    pub(crate) fn with_room<T>(&self, bytes: u64, write: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let is_full = |result: &_| matches!(result, Err(StoreError::Io { source, .. }) if is_full(source));
        let first = write();
        if !is_full(&first) || !self.relieve(bytes) {
            return first;
        }
        let second = write();
        if is_full(&second) {
            self.set_futile(0);
        }
        second
    }

    /// Removes what was not used for longest for a disk that takes nothing more; whether anything went.
    fn relieve(&self, bytes: u64) -> bool {
        let _one = self.evicting.lock();
        if self.futile.lock().is_some_and(|(until, least)| bytes >= least && Instant::now() < until) {
            return false;
        }
        let before = self.space.used();
        let (must, refusal) = (bytes.max(1), self.space.refusal(bytes, 0));
        self.make_room(&Shortage { must, goal: must.max(before / 100 * RELIEF_PERCENT), refusal }, &mut None);
        let is_relieved = self.space.used() < before;
        if !is_relieved {
            self.set_futile(bytes);
        }
        is_relieved
    }

    fn set_futile(&self, least: u64) {
        *self.futile.lock() = Some((Instant::now() + FUTILE, least));
    }

    /// Removes what is over the limit or over the high watermark, so that a download seldom waits for it.
    pub(crate) fn trim(&self) {
        drop(self.reserve(0));
        let Some(mut shortage) = self.space.over_high() else { return };
        let mut queue = None;
        while !self.is_closing() {
            let _one = self.evicting.lock();
            let made = self.make_room(&shortage, &mut queue);
            shortage.goal = shortage.goal.saturating_sub(made.freed);
            if !made.unfinished {
                break;
            }
        }
    }

    /// Whether so much can be reserved without removing anything.
    pub(crate) fn fits(&self, bytes: u64) -> bool {
        self.try_reserve(bytes).is_ok()
    }

    fn try_reserve(&self, bytes: u64) -> Result<Reservation, Shortage> {
        // A disk that cannot tell will say so when it is written to.
        self.space.reserve(bytes, self.files.disk.free().unwrap_or(u64::MAX))
    }

    /// Removes what may go, for as long as a slice lasts. `queue` is what an earlier call has left to do.
    fn make_room(&self, shortage: &Shortage, queue: &mut Option<Queue>) -> Made {
        if matches!(shortage.refusal, Refusal::TooLarge { .. }) {
            return Made::default();
        }
        let mut freed = self.clear_quarantine();
        if freed < shortage.must {
            freed += self.remove_idle_ingests();
        }
        let enough = if shortage.must > 0 { shortage.must } else { shortage.goal };
        if freed >= enough {
            return Made { freed, ..Made::default() };
        }
        let is_continued = queue.is_some();
        if is_continued {
            self.touch_children();
        }
        let Queue { blobs, bytes: evictable, held, made } = queue.get_or_insert_with(|| self.candidates());
        let held = *held;
        if !is_continued && freed + *evictable < shortage.must {
            return Made { freed, held, ..Made::default() };
        }
        let end = Instant::now() + SLICE.min(self.files.disk.patience() / 5);
        let away = self.origins.perhaps_away();
        let (mut removed, before, mut unfinished) = (0_u64, freed, false);
        while freed < shortage.goal {
            unfinished = removed > 0 && Instant::now() >= end;
            if unfinished {
                break;
            }
            let Some((digest, entry)) = blobs.next() else {
                // Of what was passed over since, some may go now.
                unfinished = is_continued;
                *queue = None;
                break;
            };
            if self.is_kept(&digest) || entry.is_held(away) || (is_continued && entry.last_use() > *made) {
                continue;
            }
            let bytes = self.evict(&digest, &entry, "space");
            freed += bytes.unwrap_or_default();
            removed += u64::from(bytes.is_some());
            // Requests go first. To sleep instead would cost them more: who wakes up is let in at once.
            std::thread::yield_now();
        }
        if removed > 0 {
            let size_bytes = freed - before;
            tracing::info!(blobs = removed, size_bytes, "removed blobs that were not used for long to make room");
        }
        Made { freed, held, unfinished }
    }

    /// Blobs without a reader or a pin that can be had again.
    fn candidates(&self) -> Queue {
        let made = millis(crate::store::blobs::clock::now());
        let none = |held| Queue { blobs: Vec::new().into_iter(), bytes: 0, held, made };
        if !self.pins.is_ready() {
            return none(0);
        }
        let away = self.origins.perhaps_away();
        if away != 0 && !self.origins.are_known() {
            return none(self.space.used());
        }
        self.touch_children();
        let mut held = 0;
        let mut all = self.catalogue.those(|entry| {
            let is_held = entry.is_held(away);
            held += if is_held { entry.len } else { 0 };
            !is_held
        });
        all.retain(|(digest, entry)| !self.is_kept(digest) && !self.catalogue.has_reader(digest, entry));
        policy::sort(&mut all, |(_, entry)| entry.standing());
        let bytes = all.iter().map(|(_, entry)| entry.len).sum();
        Queue { blobs: all.into_iter(), bytes, held, made }
    }

    fn evict(&self, digest: &Digest, entry: &Arc<Entry>, reason: &str) -> Option<u64> {
        let _guard = self.digest_locks.lock(digest);
        let current = self.catalogue.get(digest)?;
        if !Arc::ptr_eq(&current, entry) || !self.catalogue.close_unread(digest, entry) {
            return None;
        }
        match self.files.disk.remove(&layout::blob(digest)) {
            Err(error) if !is_absent(&error) => {
                tracing::warn!(blob.digest = %digest, %error, "cannot remove a blob to make room");
                return None;
            }
            _ => {}
        }
        let _ = self.files.discard(&layout::pieces(digest));
        self.forget_givers(digest);
        self.catalogue.remove(digest);
        self.space.sub(entry.len);
        self.metrics.store_evictions.with_label_values(&[reason]).inc();
        self.metrics.store_evicted_bytes.with_label_values(&[] as &[&str]).inc_by(entry.len);
        Some(entry.len)
    }

    /// Removes those of `digests` that no link of any repository speaks for, unless somebody reads them; the bytes that went.
    pub(crate) fn remove_unlinked(&self, mut digests: HashSet<Digest>) -> Result<u64, StoreError> {
        for repository in self.repositories()? {
            for algorithm in layout::ALGORITHMS {
                for digest in self.linked(&layout::manifests(&repository, algorithm), algorithm)? {
                    digests.remove(&digest);
                }
            }
            for digest in self.mentioned(&repository)? {
                digests.remove(&digest);
            }
        }
        let found = digests.iter().filter_map(|digest| Some((digest, self.catalogue.get(digest)?)));
        Ok(found.filter_map(|(digest, entry)| self.evict(digest, &entry, "purge")).sum())
    }

    fn clear_quarantine(&self) -> u64 {
        let folder = Path::new(layout::QUARANTINE);
        let mut freed = 0;
        for entry in self.files.disk.list(folder).unwrap_or_default() {
            let path = folder.join(&entry.name);
            let Ok(metadata) = self.files.disk.metadata(&path) else { continue };
            if self.files.disk.remove(&path).is_ok() {
                freed += metadata.len;
                self.metrics.quarantined.with_label_values(&[] as &[&str]).dec();
            }
        }
        self.space.sub(freed);
        freed
    }

    fn remove_idle_ingests(&self) -> u64 {
        self.partials.idle().iter().filter_map(|part| self.remove_ingest(part)).sum()
    }

    /// Removes partial downloads that nobody has gone on with for long: nobody will.
    pub(crate) fn remove_old_ingests(&self) {
        let is_old = |part: &Part| {
            let metadata = self.files.disk.metadata(&layout::ingest(part));
            metadata.is_ok_and(|metadata| metadata.modified.elapsed().is_ok_and(|age| age > INGEST_AGE))
        };
        for part in self.partials.idle().iter().filter(|part| is_old(part)) {
            self.remove_ingest(part);
        }
    }

    fn remove_ingest(&self, part: &Part) -> Option<u64> {
        let mut claim = self.partials.claim(*part)?;
        match self.files.disk.remove(&layout::ingest(part)) {
            Err(error) if !is_absent(&error) => return None,
            _ => {}
        }
        let len = claim.len.take().unwrap_or_default();
        self.space.sub(len);
        Some(len)
    }
}
