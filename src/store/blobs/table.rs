//! Which blobs there are, how long, when last used, and which of their files are open.
//!
//! A hit takes a read lock and stores the time into an atomic: no write to disk, no exclusive lock. The blob file's own time
//! carries last use over a restart; it is written in batches by the upkeep.

use crate::oci::Digest;
use crate::store::blobs::blob::{Blob, BlobFile, Observer};
use crate::store::blobs::givers::Givers;
use crate::store::blobs::pieces::Checked;
use crate::store::blobs::policy::{ONE_USE_MILLIS, Standing};
use parking_lot::{Mutex, RwLock};
use prometheus::IntGauge;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Files kept open for the next reader. Small against the usual limit of 1024 per process.
const OPEN_FILES: usize = 256;

/// Last use is in milliseconds; in a file's time, so many nanoseconds more say that the blob was used again.
const USED_AGAIN_NANOS: u32 = 200;
const NANOS_PER_MILLI: u32 = 1_000_000;

/// Milliseconds since 1970.
pub(crate) fn millis(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or_default()
}

/// What is known of one blob.
pub(crate) struct Entry {
    pub(crate) len: u64,
    /// Milliseconds since 1970, as is `last_use`.
    first_use: u64,
    last_use: AtomicU64,
    /// Whether it was used again, some time after the first time.
    used_again: AtomicBool,
    /// Whether somebody has asked for it since its children were last told.
    untold: AtomicBool,
    /// Whether `last_use` is newer than the file's time.
    unwritten: AtomicBool,
    manifest: AtomicBool,
    /// What of it this process has written or checked.
    pub(crate) checked: Checked,
    /// The registries that are known to have it.
    pub(crate) origins: AtomicU64,
    /// Who gave it, once that was read.
    pub(crate) givers: RwLock<Option<Arc<Givers>>>,
    /// Whether a process that did not sync it may have left it incomplete: all of it is hashed before it is first opened.
    suspect: AtomicBool,
    file: Mutex<Observer>,
}

impl Entry {
    /// A blob that this process has written.
    pub(crate) fn written(len: u64, last_use: SystemTime, manifest: bool) -> Self {
        Self { checked: Checked::new(len, true), ..Self::found(len, last_use, manifest, false) }
    }

    /// A blob that lies on disk.
    pub(crate) fn found(len: u64, last_use: SystemTime, manifest: bool, suspect: bool) -> Self {
        let since = crate::store::blobs::clock::not_after_now(last_use).duration_since(UNIX_EPOCH).unwrap_or_default();
        let first_use = u64::try_from(since.as_millis()).unwrap_or_default();
        Self {
            len,
            first_use,
            last_use: AtomicU64::new(first_use),
            used_again: AtomicBool::new(since.subsec_nanos() % NANOS_PER_MILLI == USED_AGAIN_NANOS),
            untold: AtomicBool::new(false),
            unwritten: AtomicBool::new(false),
            manifest: AtomicBool::new(manifest),
            checked: Checked::new(len, false),
            origins: AtomicU64::new(0),
            givers: RwLock::default(),
            suspect: AtomicBool::new(suspect),
            file: Mutex::default(),
        }
    }

    pub(crate) fn touch(&self) {
        self.touch_at(millis(crate::store::blobs::clock::now()));
    }

    /// It was used at this time.
    pub(crate) fn touch_at(&self, millis: u64) {
        self.last_use.store(millis, Ordering::Relaxed);
        self.unwritten.store(true, Ordering::Relaxed);
        if millis > self.first_use.saturating_add(ONE_USE_MILLIS) {
            self.used_again.store(true, Ordering::Relaxed);
        }
    }

    /// It was asked for by name, and so, if it is a manifest, was what it refers to.
    pub(crate) fn touch_with_children(&self) {
        self.touch();
        self.untold.store(true, Ordering::Relaxed);
    }

    /// Whether its children are still to be told of a use.
    pub(crate) fn take_untold(&self) -> bool {
        self.untold.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn standing(&self) -> Standing {
        let used_again = self.used_again.load(Ordering::Relaxed);
        Standing { len: self.len, last_use: self.last_use(), used_again, manifest: self.is_manifest() }
    }

    pub(crate) fn last_use(&self) -> u64 {
        self.last_use.load(Ordering::Relaxed)
    }

    pub(crate) fn is_unwritten(&self) -> bool {
        self.unwritten.load(Ordering::Relaxed)
    }

    /// The time to write to the file, if it has changed since the last call.
    pub(crate) fn take_unwritten(&self) -> Option<SystemTime> {
        let unwritten = self.unwritten.swap(false, Ordering::Relaxed);
        let again = if self.used_again.load(Ordering::Relaxed) { USED_AGAIN_NANOS } else { 0 };
        unwritten.then(|| UNIX_EPOCH + Duration::from_millis(self.last_use()) + Duration::from_nanos(again.into()))
    }

    pub(crate) fn is_manifest(&self) -> bool {
        self.manifest.load(Ordering::Relaxed)
    }

    pub(crate) fn set_manifest(&self) {
        self.manifest.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    /// All of it has just been hashed, and has its digest.
    pub(crate) fn set_sound(&self) {
        self.checked.set_all();
        self.suspect.store(false, Ordering::Release);
    }

    /// The file, if somebody has it open.
    pub(crate) fn open_file(&self) -> Option<BlobFile> {
        self.file.lock().file()
    }

    pub(crate) fn set_file(&self, file: &BlobFile) {
        *self.file.lock() = file.observer();
    }

    pub(crate) fn holders(&self) -> usize {
        self.file.lock().holders()
    }
}

/// All blobs, and the files that are kept open.
pub(crate) struct Catalogue {
    entries: RwLock<HashMap<Digest, Arc<Entry>>>,
    open: RwLock<OpenFiles>,
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
    entry: Arc<Entry>,
    used: AtomicBool,
}

impl Catalogue {
    pub(crate) fn new(gauge: IntGauge) -> Self {
        Self { entries: RwLock::default(), open: RwLock::default(), gauge }
    }

    pub(crate) fn len(&self) -> u64 {
        self.entries.read().len() as u64
    }

    pub(crate) fn get(&self, digest: &Digest) -> Option<Arc<Entry>> {
        self.entries.read().get(digest).cloned()
    }

    /// Takes in an entry; gives back the one whose place it took.
    pub(crate) fn insert(&self, digest: Digest, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        let mut entries = self.entries.write();
        let old = entries.insert(digest, entry);
        self.gauge.set(i64::try_from(entries.len()).unwrap_or(i64::MAX));
        old
    }

    pub(crate) fn remove(&self, digest: &Digest) -> Option<Arc<Entry>> {
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

    pub(crate) fn all(&self) -> Vec<(Digest, Arc<Entry>)> {
        self.those(|_| true)
    }

    pub(crate) fn those(&self, mut which: impl FnMut(&Entry) -> bool) -> Vec<(Digest, Arc<Entry>)> {
        let entries = self.entries.read();
        let those = entries.iter().filter(|(_, entry)| which(entry));
        those.map(|(digest, entry)| (*digest, Arc::clone(entry))).collect()
    }

    /// The blob, if its file is open. Marks it used.
    pub(crate) fn hit(&self, digest: &Digest) -> Option<Blob> {
        let open = self.open.read();
        let slot = open.slots.get(digest)?;
        slot.entry.touch();
        slot.used.store(true, Ordering::Relaxed);
        Some(slot.blob.clone())
    }

    /// Keeps a blob's file open for the next reader.
    pub(crate) fn keep_open(&self, blob: &Blob, entry: Arc<Entry>) {
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

    /// Whether somebody besides the catalogue holds the blob's file open.
    pub(crate) fn has_reader(&self, digest: &Digest, entry: &Entry) -> bool {
        let open = self.open.read();
        entry.holders() > usize::from(open.slots.contains_key(digest))
    }

    /// Closes the file kept open for a blob, if no reader has it. `false`: one has.
    pub(crate) fn close_unread(&self, digest: &Digest, entry: &Entry) -> bool {
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
