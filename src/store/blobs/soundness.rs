//! What shows that blobs are sound, and setting aside those that are not.

use super::entry::BlobEntry;
use super::giver_records::GiverRecords;
use super::locks::{DigestGuard, DigestLocks};
use super::pieces::{PIECE, Pieces};
use super::table::BlobTable;
use crate::oci::Digest;
use crate::store::disk::{is_absent, parent};
use crate::store::error::StoreError;
use crate::store::files::{Files, layout};
use crate::telemetry::Metrics;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) struct Soundness {
    pub(super) files: Arc<Files>,
    pub(super) table: Arc<BlobTable>,
    pub(super) givers: Arc<GiverRecords>,
    pub(super) locks: Arc<DigestLocks>,
    pub(super) metrics: Arc<Metrics>,
}

impl Soundness {
    /// The checksums of a blob. `None`: there are none that can be believed.
    pub(crate) fn pieces(&self, digest: &Digest) -> Option<Pieces> {
        let bytes = self.files.read(&layout::pieces(digest)).ok()??;
        Pieces::parse(digest, &bytes)
    }

    /// Writes checksums that were missing, if there is room for them as it is. Without them the next process hashes the blob.
    pub(crate) fn keep_pieces(&self, digest: &Digest, pieces: &Pieces) {
        if pieces.len <= PIECE {
            return;
        }
        let bytes = pieces.to_bytes(digest);
        let free = self.files.disk.free().unwrap_or(u64::MAX);
        // Counted as used once it is written.
        let Ok(_room) = self.files.space.reserve(bytes.len() as u64, free) else { return };
        if let Err(error) = self.files.replace(&layout::pieces(digest), &bytes) {
            tracing::warn!(blob.digest = %digest, %error, "cannot keep a blob's checksums; it is hashed again after a restart");
        }
    }

    pub(crate) fn set_aside(&self, digest: &Digest, seen: &str) -> Result<(), StoreError> {
        self.set_aside_locked(&self.locks.lock(digest), seen)
    }

    /// The same, unless another blob has taken its place since it was read.
    pub(crate) fn set_aside_if(&self, digest: &Digest, entry: &Arc<BlobEntry>, seen: &str) -> Result<(), StoreError> {
        let guard = self.locks.lock(digest);
        match self.table.get(digest) {
            Some(current) if Arc::ptr_eq(&current, entry) => self.set_aside_locked(&guard, seen),
            _ => Ok(()),
        }
    }

    /// Moves a damaged blob to the quarantine, so that it is fetched again and a person can look at it.
    pub(super) fn set_aside_locked(&self, guard: &DigestGuard<'_>, seen: &str) -> Result<(), StoreError> {
        let digest = guard.digest();
        self.metrics.digest_failures.with_label_values(&[seen]).inc();
        let number = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let (path, aside) = (layout::blob(digest), layout::quarantined(digest, number));
        // If it cannot be moved it is counted when it is found again.
        if let Some(entry) = self.table.remove(digest) {
            self.files.space.sub(entry.len);
        }
        match self.files.disk.rename(&path, &aside) {
            Err(error) if is_absent(&error) => {}
            other => {
                other.map_err(StoreError::io("quarantine", &path))?;
                self.files.space.add(self.files.disk.metadata(&aside).map_or(0, |metadata| metadata.len));
                self.metrics.quarantined.with_label_values(&[] as &[&str]).inc();
                tracing::warn!(blob.digest = %digest, file = %aside.display(), "stored content is damaged and was set aside; it will be fetched again");
            }
        }
        self.discard_records(guard);
        self.files.sync_folder(parent(&aside))?;
        self.files.sync_folder(parent(&path))
    }

    /// Removes what is written beside a blob that is gone, or was never in its place.
    pub(super) fn discard_records(&self, guard: &DigestGuard<'_>) {
        let digest = guard.digest();
        if !self.givers.is_placing(digest) {
            let _ = self.files.discard(&layout::pieces(digest));
            let _ = self.files.discard(&layout::givers(digest));
        }
    }
}
