//! Blobs: opening, reading and putting them, and setting damaged ones aside.
//!
//! What happens to the file of one digest happens under that digest's lock: opening, placing, removing, quarantine.

use crate::oci::{Digest, Hasher, MAX_MANIFEST};
use crate::store::blobs::blob::{Blob, BlobFile};
use crate::store::blobs::check::Check;
use crate::store::blobs::pieces::{PIECE, Rehash};
use crate::store::blobs::table::Entry;
use crate::store::disk::{Access, DiskFile, read_exact_at};
use crate::store::error::StoreError;
use crate::store::files::layout;
use crate::store::files::small::{is_absent, parent};
use crate::store::parts::Inner;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a reader waits for whoever is changing the file of a blob.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// One lock per digest, shared by a few.
pub(crate) struct DigestLocks([Mutex<()>; 64]);

impl DigestLocks {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(())))
    }

    pub(crate) fn lock(&self, digest: &Digest) -> MutexGuard<'_, ()> {
        let first = digest.as_bytes().first().copied().unwrap_or_default();
        self.0[usize::from(first) % self.0.len()].lock()
    }

    /// The same for a reader, who does not wait long for a writer whose disk may not answer.
    fn lock_soon(&self, digest: &Digest) -> Result<MutexGuard<'_, ()>, StoreError> {
        let first = digest.as_bytes().first().copied().unwrap_or_default();
        let mutex = &self.0[usize::from(first) % self.0.len()];
        mutex.try_lock_for(LOCK_PATIENCE).ok_or(StoreError::Hung { patience: LOCK_PATIENCE })
    }
}

/// Whether an error says that a file is there and cannot be read: no more of it than of one that is not.
fn is_damage(error: &io::Error) -> bool {
    // EIO; EBADMSG and EUCLEAN are what file systems with checksums say.
    let broken = cfg!(unix) && matches!(error.raw_os_error(), Some(5 | 74 | 117));
    broken || matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::PermissionDenied)
}

impl Inner {
    /// Opens a blob's file, or takes the one that somebody has open.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        let _guard = self.digest_locks.lock_soon(digest)?;
        if let Some(blob) = self.catalogue.hit(digest) {
            return Ok(Some(blob));
        }
        let known = self.catalogue.get(digest);
        if let Some((entry, file)) = known.as_ref().and_then(|entry| Some((entry, entry.open_file()?))) {
            return Ok(Some(self.opened(*digest, file, Arc::clone(entry))));
        }
        let path = layout::blob(digest);
        let file = match self.files.disk.open(&path, Access::Read) {
            Err(error) if is_absent(&error) => {
                // Somebody has removed it by hand: it can be fetched again.
                if let Some(entry) = self.catalogue.remove(digest) {
                    self.space.sub(entry.len);
                }
                return Ok(None);
            }
            Err(error) if is_damage(&error) => {
                self.set_aside(digest, "read")?;
                return Ok(None);
            }
            other => other.map_err(StoreError::io("open", &path))?,
        };
        let len = file.len().map_err(StoreError::io("read", &path))?;
        let entry = match known {
            Some(entry) if entry.len == len => entry,
            _ => self.found(*digest, len, crate::store::blobs::clock::now()),
        };
        let mut pieces = None;
        if !entry.checked.is_all() && len > PIECE {
            pieces = self.read_pieces(digest);
        }
        let is_cut = pieces.as_ref().is_some_and(|pieces| pieces.len != len);
        if is_cut || !self.is_sound(&*file, digest, &entry)? {
            drop(file);
            self.set_aside(digest, "read")?;
            return Ok(None);
        }
        let file = BlobFile::new(file, self.general.clone());
        let _ = file.0.check.set(Check::new(self.me.clone(), *digest, Arc::clone(&entry), pieces));
        Ok(Some(self.opened(*digest, file, entry)))
    }

    /// Enters a blob that was found on disk.
    pub(crate) fn found(&self, digest: Digest, len: u64, last_use: SystemTime) -> Arc<Entry> {
        let suspect = self.suspect.load(Ordering::Acquire);
        let entry = Arc::new(Entry::found(len, last_use, false, suspect));
        self.space.add(len);
        if let Some(old) = self.catalogue.insert(digest, Arc::clone(&entry)) {
            self.space.sub(old.len);
        }
        entry
    }

    fn opened(&self, digest: Digest, file: BlobFile, entry: Arc<Entry>) -> Blob {
        entry.set_file(&file);
        entry.touch();
        let blob = Blob::new(digest, entry.len, file);
        self.catalogue.keep_open(&blob, entry);
        blob
    }

    /// Whether a blob may be opened: a small one, and any that was found after an unsynced stop, must have its digest; asked
    /// once. The latter is synced on the way, so that it is no question for the next process.
    fn is_sound(&self, file: &dyn DiskFile, digest: &Digest, entry: &Entry) -> Result<bool, StoreError> {
        let suspect = entry.is_suspect();
        if entry.checked.is_all() || (entry.len > PIECE && !suspect) {
            return Ok(true);
        }
        let mut rehash = Rehash::new(*digest);
        if rehash.step(file, entry.len, u64::MAX).is_err() || rehash.pieces().is_none() {
            return Ok(false);
        }
        if suspect && self.files.durable() {
            file.sync_data().map_err(StoreError::io("sync", layout::blob(digest)))?;
        }
        entry.set_sound();
        Ok(true)
    }

    /// Checks a blob that nobody has asked for yet.
    pub(crate) fn check_blob(&self, digest: &Digest, entry: &Entry) -> Result<(), StoreError> {
        let _guard = self.digest_locks.lock(digest);
        let path = layout::blob(digest);
        let file = match self.files.disk.open(&path, Access::Read) {
            Err(error) if is_absent(&error) => return Ok(()),
            other => other.map_err(StoreError::io("open", &path))?,
        };
        if self.is_sound(&*file, digest, entry)? { Ok(()) } else { self.set_aside(digest, "read") }
    }

    /// The last steps of every commit before the rename: nobody may write any more, and what was written survives a crash.
    pub(crate) fn seal(&self, file: &BlobFile, path: &Path) -> Result<(), StoreError> {
        file.disk_file().set_read_only().map_err(StoreError::io("make read-only", path))?;
        if self.files.durable() {
            file.disk_file().sync_data().map_err(StoreError::io("sync", path))?;
        }
        Ok(())
    }

    /// Renames a sealed file, whose bytes are accounted for, to its place among the blobs. The folder is not synced yet.
    pub(crate) fn place(
        &self,
        from: &Path,
        digest: Digest,
        len: u64,
        file: BlobFile,
        manifest: bool,
    ) -> Result<Blob, StoreError> {
        let path = layout::blob(&digest);
        let _guard = self.digest_locks.lock(&digest);
        self.files.disk.rename(from, &path).map_err(StoreError::io("rename to its place", &path))?;
        let entry = Arc::new(Entry::written(len, crate::store::blobs::clock::now(), manifest));
        if let Some(old) = self.catalogue.insert(digest, Arc::clone(&entry)) {
            self.space.sub(old.len);
        }
        let _ = file.0.check.set(Check::new(self.me.clone(), digest, Arc::clone(&entry), None));
        Ok(self.opened(digest, file, entry))
    }

    pub(crate) fn read_small(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        let Some(blob) = self.open_blob(digest)? else { return Ok(None) };
        let length = match usize::try_from(blob.len()) {
            Ok(length) if length <= MAX_MANIFEST => length,
            _ => return Ok(None),
        };
        let mut content = vec![0; length];
        let path = layout::blob(digest);
        match read_exact_at(blob.file().disk_file(), &mut content, 0) {
            Ok(()) if digest.matches(&content) => return Ok(Some(content.into())),
            Err(error) if !is_damage(&error) => return Err(StoreError::io("read", path)(error)),
            _ => {}
        }
        drop(blob);
        let _guard = self.digest_locks.lock(digest);
        self.set_aside(digest, "read")?;
        Ok(None)
    }

    /// A manifest's bytes, as [`read_small`](Self::read_small) gives them, without counting as a use of it.
    pub(crate) fn peek_small(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        if self.length(digest).is_none_or(|length| length > MAX_MANIFEST as u64) {
            return Ok(None);
        }
        match self.files.read(&layout::blob(digest))? {
            Some(content) if !digest.matches(&content) => self.read_small(digest),
            content => Ok(content.map(Bytes::from)),
        }
    }

    /// A blob's length, without counting as a use of it.
    pub(crate) fn length(&self, digest: &Digest) -> Option<u64> {
        let known = self.catalogue.get(digest).map(|entry| entry.len);
        known.or_else(|| self.files.disk.metadata(&layout::blob(digest)).ok().map(|metadata| metadata.len))
    }

    /// Sets a damaged blob aside, unless another one has taken its place since it was read.
    pub(crate) fn quarantine(&self, digest: &Digest, entry: &Arc<Entry>, seen: &str) -> Result<(), StoreError> {
        let _guard = self.digest_locks.lock(digest);
        match self.catalogue.get(digest) {
            Some(current) if Arc::ptr_eq(&current, entry) => self.set_aside(digest, seen),
            _ => Ok(()),
        }
    }

    /// Moves a damaged blob to the quarantine, so that it is fetched again and a person can look at it. Its digest is locked.
    fn set_aside(&self, digest: &Digest, seen: &str) -> Result<(), StoreError> {
        self.metrics.digest_failures.with_label_values(&[seen]).inc();
        let number = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let (path, aside) = (layout::blob(digest), layout::quarantined(digest, number));
        // What stays where it is, because it cannot be moved, is counted when it is found again.
        if let Some(entry) = self.catalogue.remove(digest) {
            self.space.sub(entry.len);
        }
        match self.files.disk.rename(&path, &aside) {
            Err(error) if is_absent(&error) => {}
            other => {
                other.map_err(StoreError::io("quarantine", &path))?;
                self.space.add(self.files.disk.metadata(&aside).map_or(0, |metadata| metadata.len));
                self.metrics.quarantined.with_label_values(&[] as &[&str]).inc();
                tracing::warn!(blob.digest = %digest, file = %aside.display(), "stored content is damaged and was set aside; it will be fetched again");
            }
        }
        let _ = self.files.discard(&layout::pieces(digest));
        self.forget_givers(digest);
        self.files.sync_folder(parent(&aside))?;
        self.files.sync_folder(parent(&path))
    }

    pub(crate) fn put_small(&self, digest: &Digest, content: &[u8]) -> Result<(), StoreError> {
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(content);
        let actual = hasher.finish();
        if actual != *digest {
            self.metrics.digest_failures.with_label_values(&["fill"]).inc();
            return Err(StoreError::Mismatch { expected: *digest, actual: actual.into() });
        }
        // One that cannot be read is replaced.
        if let Ok(Some(_)) = self.read_small(digest) {
            if let Some(entry) = self.catalogue.get(digest) {
                entry.set_manifest();
            }
            return self.files.keep(&layout::blob(digest));
        }
        let bytes = content.len() as u64;
        let mut reservation = self.reserve(bytes)?;
        let (temporary, file) = self.with_room(bytes, || self.write_temporary(content))?;
        reservation.spend(bytes);
        if let Err(error) = self.place(&temporary, *digest, bytes, file, true) {
            self.space.sub(bytes);
            let _ = self.files.disk.remove(&temporary);
            return Err(error);
        }
        self.files.sync_folder(&layout::blobs(digest.algorithm()))
    }

    fn write_temporary(&self, content: &[u8]) -> Result<(PathBuf, BlobFile), StoreError> {
        let path = self.files.temporary();
        let written = self.write_sealed(&path, content);
        if written.is_err() {
            let _ = self.files.disk.remove(&path);
        }
        Ok((path, written?))
    }

    fn write_sealed(&self, path: &Path, content: &[u8]) -> Result<BlobFile, StoreError> {
        let file = self.files.disk.open(path, Access::CreateNew).map_err(StoreError::io("create", path))?;
        file.write_at(content, 0).map_err(StoreError::io("write", path))?;
        let file = BlobFile::new(file, self.general.clone());
        self.seal(&file, path)?;
        Ok(file)
    }
}
