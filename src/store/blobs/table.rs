//! Which blobs there are, and which of their files are open.
//!
//! A hit takes a read lock: no write to disk, no exclusive lock.

use super::blob::Blob;
use super::clock::UseClock;
use super::entry::{BlobEntry, millis};
use crate::oci::Digest;
use parking_lot::RwLock;
use prometheus::IntGauge;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// Files kept open for the next reader. Small against the usual limit of 1024 per process.
const OPEN_FILES: usize = 256;

/// All blobs, and the files that are kept open.
pub(crate) struct BlobTable {
    entries: RwLock<HashMap<Digest, Arc<BlobEntry>>>,
    open: RwLock<OpenFiles>,
    clock: UseClock,
    gauge: IntGauge,
}

#[derive(Default)]
struct OpenFiles {
    slots: HashMap<Digest, Slot>,
    /// Oldest first; a slot used since gets a second round.
    order: VecDeque<Digest>,
}

struct Slot {
    blob: Blob,
    entry: Arc<BlobEntry>,
    used: AtomicBool,
}

impl BlobTable {
    pub(crate) fn new(gauge: IntGauge) -> Self {
        Self { entries: RwLock::default(), open: RwLock::default(), clock: UseClock::start(), gauge }
    }

    /// Now, as a time of use.
    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// `time`, or now if it lies in the future.
    pub(crate) fn not_after_now(&self, time: SystemTime) -> SystemTime {
        self.clock.not_after_now(time)
    }

    pub(crate) fn touch(&self, entry: &BlobEntry) {
        entry.touch_at(millis(self.now()));
    }

    /// Notes a use of a manifest by its name, which is one of all that it refers to.
    pub(crate) fn touch_with_children(&self, digest: &Digest) {
        if let Some(entry) = self.get(digest) {
            entry.touch_with_children_at(millis(self.now()));
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.entries.read().len() as u64
    }

    pub(crate) fn get(&self, digest: &Digest) -> Option<Arc<BlobEntry>> {
        self.entries.read().get(digest).cloned()
    }

    /// Takes in an entry; gives back the one whose place it took.
    pub(crate) fn insert(&self, digest: Digest, entry: Arc<BlobEntry>) -> Option<Arc<BlobEntry>> {
        let mut entries = self.entries.write();
        let old = entries.insert(digest, entry);
        self.gauge.set(i64::try_from(entries.len()).unwrap_or(i64::MAX));
        old
    }

    pub(crate) fn remove(&self, digest: &Digest) -> Option<Arc<BlobEntry>> {
        drop(self.close(digest));
        let mut entries = self.entries.write();
        let old = entries.remove(digest);
        self.gauge.set(i64::try_from(entries.len()).unwrap_or(i64::MAX));
        old
    }

    /// Forgets every blob, and closes the files kept open.
    pub(crate) fn clear(&self) {
        let open = std::mem::take(&mut *self.open.write());
        drop(open);
        self.entries.write().clear();
        self.gauge.set(0);
    }

    pub(crate) fn all(&self) -> Vec<(Digest, Arc<BlobEntry>)> {
        self.those(|_| true)
    }

    pub(crate) fn those(&self, mut which: impl FnMut(&BlobEntry) -> bool) -> Vec<(Digest, Arc<BlobEntry>)> {
        let entries = self.entries.read();
        let those = entries.iter().filter(|(_, entry)| which(entry));
        those.map(|(digest, entry)| (*digest, Arc::clone(entry))).collect()
    }

    /// The blob, if its file is open. Marks it used.
    pub(crate) fn hit(&self, digest: &Digest) -> Option<Blob> {
        let open = self.open.read();
        let slot = open.slots.get(digest)?;
        self.touch(&slot.entry);
        slot.used.store(true, Ordering::Relaxed);
        Some(slot.blob.clone())
    }

    /// Keeps a blob's file open for the next reader.
    pub(crate) fn keep_open(&self, blob: &Blob, entry: Arc<BlobEntry>) {
        let mut closed = Vec::new();
        let mut open = self.open.write();
        while open.slots.len() >= OPEN_FILES {
            let Some(oldest) = open.order.pop_front() else { break };
            match open.slots.get(&oldest) {
                Some(slot) if slot.used.swap(false, Ordering::Relaxed) => open.order.push_back(oldest),
                _ => closed.extend(open.slots.remove(&oldest)),
            }
        }
        let slot = Slot { blob: blob.clone(), entry, used: AtomicBool::new(false) };
        match open.slots.insert(*blob.digest(), slot) {
            Some(old) => closed.push(old),
            None => open.order.push_back(*blob.digest()),
        }
        drop(open);
        drop(closed);
    }

    /// Whether a reader holds the blob's file open, besides the table.
    pub(crate) fn has_reader(&self, digest: &Digest, entry: &BlobEntry) -> bool {
        let open = self.open.read();
        entry.holders() > usize::from(open.slots.contains_key(digest))
    }

    /// Closes the file kept open for a blob, if no reader has it. `false`: one has.
    pub(crate) fn close_unread(&self, digest: &Digest, entry: &BlobEntry) -> bool {
        let mut open = self.open.write();
        if entry.holders() > usize::from(open.slots.contains_key(digest)) {
            return false;
        }
        let closed = Self::take(&mut open, digest);
        drop(open);
        drop(closed);
        true
    }

    fn close(&self, digest: &Digest) -> Option<Slot> {
        Self::take(&mut self.open.write(), digest)
    }

    fn take(open: &mut OpenFiles, digest: &Digest) -> Option<Slot> {
        let slot = open.slots.remove(digest)?;
        open.order.retain(|other| other != digest);
        Some(slot)
    }
}
