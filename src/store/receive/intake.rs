//! What content needs on its way to becoming a blob.

use crate::oci::{Digest, Hasher};
use crate::store::blobs::{Blob, BlobFile, Blobs, Documents, Giver, GiverRecords, PIECE, Pieces};
use crate::store::disk::{Access, is_full};
use crate::store::error::StoreError;
use crate::store::evict::Evictor;
use crate::store::files::layout;
use crate::store::files::partials::Partials;
use crate::store::jobs::Jobs;
use crate::telemetry::Metrics;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) struct Intake {
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) evictor: Arc<Evictor>,
    pub(crate) partials: Partials,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) documents: Arc<Documents>,
    pub(crate) givers: Arc<GiverRecords>,
    pub(crate) metrics: Arc<Metrics>,
}

/// A file that is complete and has its digest.
pub(super) struct Complete<'a> {
    pub(super) path: &'a Path,
    pub(super) file: &'a BlobFile,
    pub(super) digest: Digest,
    pub(super) len: u64,
    pub(super) pieces: Pieces,
}

impl Intake {
    /// Writes down that repositories gave a blob.
    pub(crate) fn add_givers(&self, digest: &Digest, givers: &[Giver]) -> Result<(), StoreError> {
        self.givers.add(digest, givers, |path, content| self.evictor.replace(path, content))
    }

    /// Makes a complete file a blob: syncs as configured, renames, syncs the folder.
    pub(super) fn commit(&self, complete: Complete<'_>, givers: &[Giver]) -> Result<Blob, StoreError> {
        let Complete { path, file, digest, len, pieces } = complete;
        let release = file.disk_file().release();
        release.map_err(StoreError::io("give back unused space of", path))?;
        self.blobs.seal(file, path)?;
        // Never the blob without its givers: they decide who may have it.
        self.givers.while_placing(&digest, || {
            self.keep_pieces(&digest, &pieces);
            self.add_givers(&digest, givers)?;
            self.blobs.place(path, digest, len, file.clone(), false)
        })
    }

    /// Keeps the checksums of a blob that needs some. Without them the blob is hashed before it is next sent.
    fn keep_pieces(&self, digest: &Digest, pieces: &Pieces) {
        if pieces.len <= PIECE {
            return;
        }
        let kept = self.evictor.replace(&layout::pieces(digest), &pieces.to_bytes(digest));
        if let Err(error @ StoreError::Io { .. }) = kept {
            tracing::warn!(blob.digest = %digest, %error, "cannot keep a blob's checksums; it is hashed again after a restart");
        }
    }

    /// Allocates a file's space. No room for it is a refusal, not a failure. `false`: the file system cannot allocate.
    pub(super) fn allocate(&self, file: &BlobFile, length: u64, missing: u64, path: &Path) -> Result<bool, StoreError> {
        let allocate = || file.disk_file().allocate(length).map_err(StoreError::io("allocate space for", path));
        match self.evictor.evict_on_enospc(missing, allocate) {
            Err(StoreError::Io { source, .. }) if is_full(&source) => {
                Err(self.blobs.files.space.refusal(missing, self.blobs.files.disk.free().unwrap_or_default()).into())
            }
            other => other,
        }
    }

    /// Stores a manifest's bytes, checked against the digest.
    pub(crate) fn put_small(&self, digest: &Digest, content: &[u8]) -> Result<(), StoreError> {
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(content);
        let actual = hasher.finish();
        if actual != *digest {
            self.metrics.digest_failures.with_label_values(&["fill"]).inc();
            return Err(StoreError::Mismatch { expected: *digest, actual: actual.into() });
        }
        // One that cannot be read is replaced.
        if let Ok(Some(_)) = self.documents.read(digest) {
            if let Some(entry) = self.blobs.table.get(digest) {
                entry.set_manifest();
            }
            return self.blobs.files.keep(&layout::blob(digest));
        }
        let bytes = content.len() as u64;
        let mut reservation = self.evictor.reserve(bytes)?;
        let (temporary, file) = self.evictor.evict_on_enospc(bytes, || self.write_temporary(content))?;
        reservation.spend(bytes);
        if let Err(error) = self.blobs.place(&temporary, *digest, bytes, file, true) {
            self.blobs.files.space.sub(bytes);
            let _ = self.blobs.files.disk.remove(&temporary);
            return Err(error);
        }
        self.blobs.files.sync_folder(&layout::blobs(digest.algorithm()))
    }

    fn write_temporary(&self, content: &[u8]) -> Result<(PathBuf, BlobFile), StoreError> {
        let path = self.blobs.files.temporary();
        let write = || -> Result<BlobFile, StoreError> {
            let file = self.blobs.files.disk.open(&path, Access::CreateNew).map_err(StoreError::io("create", &path))?;
            file.write_at(content, 0).map_err(StoreError::io("write", &path))?;
            let file = self.blobs.blob_file(file);
            self.blobs.seal(&file, &path)?;
            Ok(file)
        };
        let written = write();
        if written.is_err() {
            let _ = self.blobs.files.disk.remove(&path);
        }
        Ok((path, written?))
    }
}
