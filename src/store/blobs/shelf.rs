//! The blobs' files: opening, placing and removing them.

use super::blob::{Blob, BlobFile};
use super::check::Check;
use super::entry::BlobEntry;
use super::giver_records::GiverRecords;
use super::locks::{DigestGuard, DigestLocks};
use super::pieces::{PIECE, Rehash};
use super::soundness::Soundness;
use super::table::BlobTable;
use crate::oci::Digest;
use crate::store::disk::{Access, DiskFile, is_absent, is_unreadable};
use crate::store::error::StoreError;
use crate::store::files::{Files, layout};
use crate::store::jobs::Workers;
use crate::telemetry::Metrics;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

pub(crate) struct Blobs {
    pub(crate) files: Arc<Files>,
    pub(crate) table: Arc<BlobTable>,
    locks: Arc<DigestLocks>,
    pub(crate) soundness: Arc<Soundness>,
    readers: Workers,
    /// Whether an earlier process stopped without having synced what it stored: blobs found on disk are hashed before use.
    suspect: AtomicBool,
}

impl Blobs {
    pub(crate) fn new(
        files: Arc<Files>,
        table: Arc<BlobTable>,
        givers: Arc<GiverRecords>,
        readers: Workers,
        metrics: Arc<Metrics>,
    ) -> Self {
        let locks = Arc::new(DigestLocks::new());
        let soundness = Soundness { files: files.clone(), table: table.clone(), givers, locks: locks.clone(), metrics };
        Self { files, table, locks, soundness: Arc::new(soundness), readers, suspect: AtomicBool::new(false) }
    }

    /// Opens a blob's file, or takes the one that is open already.
    pub(crate) fn open(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        let guard = self.locks.lock_soon(digest)?;
        if let Some(blob) = self.table.hit(digest) {
            return Ok(Some(blob));
        }
        let known = self.table.get(digest);
        if let Some((entry, file)) = known.as_ref().and_then(|entry| Some((entry, entry.open_file()?))) {
            return Ok(Some(self.opened(*digest, file, Arc::clone(entry))));
        }
        let Some(file) = self.open_file(&guard)? else { return Ok(None) };
        let len = file.len().map_err(StoreError::io("read", layout::blob(digest)))?;
        let entry = match known {
            Some(entry) if entry.len == len => entry,
            _ => self.enter(&guard, len, self.table.now()),
        };
        let has_pieces = !entry.checked.is_all() && len > PIECE;
        let pieces = has_pieces.then(|| self.soundness.pieces(digest)).flatten();
        let is_cut = pieces.as_ref().is_some_and(|pieces| pieces.len != len);
        if is_cut || !self.is_sound(&guard, &*file, &entry)? {
            drop(file);
            self.soundness.set_aside_locked(&guard, "read")?;
            return Ok(None);
        }
        let file = self.blob_file(file);
        file.set_check(Check::new(&self.soundness, *digest, Arc::clone(&entry), pieces));
        Ok(Some(self.opened(*digest, file, entry)))
    }

    fn open_file(&self, guard: &DigestGuard<'_>) -> Result<Option<Box<dyn DiskFile>>, StoreError> {
        let path = layout::blob(guard.digest());
        match self.files.disk.open(&path, Access::Read) {
            Err(error) if is_absent(&error) => {
                // An operator has removed it: it can be fetched again.
                if let Some(entry) = self.table.remove(guard.digest()) {
                    self.files.space.sub(entry.len);
                }
                Ok(None)
            }
            Err(error) if is_unreadable(&error) => {
                self.soundness.set_aside_locked(guard, "read")?;
                Ok(None)
            }
            other => Ok(Some(other.map_err(StoreError::io("open", &path))?)),
        }
    }

    /// A file that readers read on the store's threads.
    pub(crate) fn blob_file(&self, file: Box<dyn DiskFile>) -> BlobFile {
        BlobFile::new(file, self.readers.clone())
    }

    fn enter(&self, guard: &DigestGuard<'_>, len: u64, last_use: SystemTime) -> Arc<BlobEntry> {
        let last_use = self.table.not_after_now(last_use);
        let entry = Arc::new(BlobEntry::found(len, last_use, false, self.is_suspect()));
        self.files.space.add(len);
        if let Some(old) = self.table.insert(*guard.digest(), Arc::clone(&entry)) {
            self.files.space.sub(old.len);
        }
        entry
    }

    fn opened(&self, digest: Digest, file: BlobFile, entry: Arc<BlobEntry>) -> Blob {
        entry.set_file(&file);
        self.table.touch(&entry);
        let blob = Blob::new(digest, entry.len, file);
        self.table.keep_open(&blob, entry);
        blob
    }

    /// Whether a blob may be opened: a small one, and any that was found after an unsynced stop, must have its digest. The latter
    /// is synced on the way, so that the next process need not ask.
    fn is_sound(&self, guard: &DigestGuard<'_>, file: &dyn DiskFile, entry: &BlobEntry) -> Result<bool, StoreError> {
        let suspect = entry.is_suspect();
        if entry.checked.is_all() || (entry.len > PIECE && !suspect) {
            return Ok(true);
        }
        let mut rehash = Rehash::new(*guard.digest());
        if rehash.step(file, entry.len, u64::MAX).is_err() || rehash.pieces().is_none() {
            return Ok(false);
        }
        if suspect && self.files.durable() {
            file.sync_data().map_err(StoreError::io("sync", layout::blob(guard.digest())))?;
        }
        entry.set_sound();
        Ok(true)
    }

    /// A blob's length, without counting as a use of it.
    pub(crate) fn length(&self, digest: &Digest) -> Option<u64> {
        let known = self.table.get(digest).map(|entry| entry.len);
        known.or_else(|| self.files.disk.metadata(&layout::blob(digest)).ok().map(|metadata| metadata.len))
    }

    /// The last steps of every commit before the rename: no writer may change the file, and a crash does not.
    pub(crate) fn seal(&self, file: &BlobFile, path: &Path) -> Result<(), StoreError> {
        file.disk_file().set_read_only().map_err(StoreError::io("make read-only", path))?;
        if self.files.durable() {
            file.disk_file().sync_data().map_err(StoreError::io("sync", path))?;
        }
        Ok(())
    }

    /// Renames a file, whose bytes are accounted for, to its place among the blobs. The folder is not synced yet.
    pub(crate) fn place(
        &self,
        from: &Path,
        digest: Digest,
        len: u64,
        file: BlobFile,
        manifest: bool,
    ) -> Result<Blob, StoreError> {
        let path = layout::blob(&digest);
        let _guard = self.locks.lock(&digest);
        self.files.disk.rename(from, &path).map_err(StoreError::io("rename to its place", &path))?;
        let entry = Arc::new(BlobEntry::written(len, self.table.now(), manifest));
        if let Some(old) = self.table.insert(digest, Arc::clone(&entry)) {
            self.files.space.sub(old.len);
        }
        file.set_check(Check::new(&self.soundness, digest, Arc::clone(&entry), None));
        Ok(self.opened(digest, file, entry))
    }

    /// Removes a blob that is still the one of `entry` and that no reader has open; the bytes that went.
    pub(crate) fn remove_unread(&self, digest: &Digest, entry: &Arc<BlobEntry>) -> Option<u64> {
        let guard = self.locks.lock(digest);
        let current = self.table.get(digest)?;
        if !Arc::ptr_eq(&current, entry) || !self.table.close_unread(digest, entry) {
            return None;
        }
        match self.files.disk.remove(&layout::blob(digest)) {
            Err(error) if !is_absent(&error) => {
                tracing::warn!(blob.digest = %digest, %error, "cannot remove a blob to make room");
                return None;
            }
            _ => {}
        }
        self.soundness.discard_records(&guard);
        self.table.remove(digest);
        self.files.space.sub(entry.len);
        Some(entry.len)
    }

    /// Enters a blob that the walk has found, unless it is known.
    pub(crate) fn count(&self, digest: &Digest) {
        let guard = self.locks.lock(digest);
        if self.table.get(digest).is_none()
            && let Ok(metadata) = self.files.disk.metadata(&layout::blob(digest))
        {
            self.enter(&guard, metadata.len, metadata.modified);
        }
    }

    /// Removes checksums and givers that have no blob: a crash came between the two.
    pub(crate) fn discard_orphans(&self, digest: &Digest) {
        let guard = self.locks.lock(digest);
        if self.table.get(digest).is_none() {
            self.soundness.discard_records(&guard);
        }
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    pub(crate) fn set_suspect(&self, suspect: bool) {
        self.suspect.store(suspect, Ordering::Release);
    }

    /// Hashes a blob that an earlier process did not sync and that no reader has asked for yet.
    pub(crate) fn check_suspect(&self, digest: &Digest, entry: &BlobEntry) -> Result<(), StoreError> {
        let guard = self.locks.lock(digest);
        let path = layout::blob(digest);
        let file = match self.files.disk.open(&path, Access::Read) {
            Err(error) if is_absent(&error) => return Ok(()),
            other => other.map_err(StoreError::io("open", &path))?,
        };
        if self.is_sound(&guard, &*file, entry)? { Ok(()) } else { self.soundness.set_aside_locked(&guard, "read") }
    }
}
