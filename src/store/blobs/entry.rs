//! What is known of one blob: how long it is, when it was used, what of it was checked, and whether its file is open.
//!
//! A hit stores the time of use into an atomic. The blob file's own time carries the last use over a restart; `last_use` writes
//! it there in batches.

use super::blob::{BlobFile, Observer};
use super::givers::Givers;
use super::pieces::Checked;
use super::policy::{ONE_USE_MILLIS, Standing};
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Last use is in milliseconds; in a file's time, so many nanoseconds more say that the blob was used again.
const USED_AGAIN_NANOS: u32 = 200;
const NANOS_PER_MILLI: u32 = 1_000_000;

/// A set of registries, a bit for each; `evict/origins.rs` knows which bit is whose.
pub(crate) type Registries = u64;

/// Milliseconds since 1970.
pub(crate) fn millis(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or_default()
}

/// What is known of one blob.
pub(crate) struct BlobEntry {
    pub(crate) len: u64,
    /// Milliseconds since 1970, as is `last_use`.
    first_use: u64,
    last_use: AtomicU64,
    /// Whether it was used again, some time after the first time.
    used_again: AtomicBool,
    /// Whether it was used since its use was last passed on to its children.
    untold: AtomicBool,
    /// Whether `last_use` is newer than the file's time.
    unwritten: AtomicBool,
    manifest: AtomicBool,
    /// What of it this process has written or checked.
    pub(crate) checked: Checked,
    /// The registries that are known to have it.
    origins: AtomicU64,
    /// Who gave it, once that was read.
    pub(crate) givers: RwLock<Option<Arc<Givers>>>,
    /// Whether a process that did not sync it may have left it incomplete: all of it is hashed before it is first opened.
    suspect: AtomicBool,
    file: Mutex<Observer>,
}

impl BlobEntry {
    /// A blob that this process has written.
    pub(crate) fn written(len: u64, last_use: SystemTime, manifest: bool) -> Self {
        Self { checked: Checked::new(len, true), ..Self::found(len, last_use, manifest, false) }
    }

    /// A blob that lies on disk.
    pub(crate) fn found(len: u64, last_use: SystemTime, manifest: bool, suspect: bool) -> Self {
        let since = last_use.duration_since(UNIX_EPOCH).unwrap_or_default();
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

    /// It was used at this time.
    pub(crate) fn touch_at(&self, millis: u64) {
        self.last_use.store(millis, Ordering::Relaxed);
        self.unwritten.store(true, Ordering::Relaxed);
        if millis > self.first_use.saturating_add(ONE_USE_MILLIS) {
            self.used_again.store(true, Ordering::Relaxed);
        }
    }

    /// It was asked for by name: if it is a manifest, what it refers to was used as well.
    pub(crate) fn touch_with_children_at(&self, millis: u64) {
        self.touch_at(millis);
        self.untold.store(true, Ordering::Relaxed);
    }

    /// Whether a use is to be passed on to its children, which is then taken as done.
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

    /// The file, if it is open.
    pub(crate) fn open_file(&self) -> Option<BlobFile> {
        self.file.lock().file()
    }

    pub(crate) fn set_file(&self, file: &BlobFile) {
        *self.file.lock() = file.observer();
    }

    pub(crate) fn holders(&self) -> usize {
        self.file.lock().holders()
    }

    /// A registry has it.
    pub(crate) fn add_origins(&self, registries: Registries) {
        self.origins.fetch_or(registries, Ordering::Relaxed);
    }

    /// Whether only registries that are away are known to have it.
    pub(crate) fn is_held(&self, away: Registries) -> bool {
        let origins = self.origins.load(Ordering::Relaxed);
        origins != 0 && origins & !away == 0
    }
}
