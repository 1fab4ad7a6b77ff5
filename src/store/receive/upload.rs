//! Uploads: content on its way in whose digest is not known before its end.
//!
//! What an [`Ingest`](super::Ingest) is to a download, but without a name: it lies among the temporary files, it is not resumed
//! by another process, and dropped it is gone. sha256 and the checksums are taken while it is written; a digest of another
//! algorithm is taken from the disk at the end.

use crate::oci::{Algorithm, Digest, Hasher};
use crate::store::account::Reservation;
use crate::store::blobs::blob::{Blob, BlobFile};
use crate::store::blobs::givers::Giver;
use crate::store::blobs::pieces::{Rehash, Summing};
use crate::store::disk::Access;
use crate::store::error::{StoreError, VerifyError};
use crate::store::files::layout;
use crate::store::files::small::is_absent;
use crate::store::jobs::serial::Carrier;
use crate::store::parts::Inner;
use bytes::Bytes;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Content of unknown length is reserved in such steps.
const STEP: u64 = 16 << 20;
/// Below this, allocating costs more than it saves.
const WORTH_ALLOCATING: u64 = 1 << 20;
/// Bytes hashed from disk by one job, so that others get their turn.
const BYTES_PER_JOB: u64 = 64 << 20;

/// A blob being received from a client. Dropped without [`verify`](Self::verify) it leaves nothing.
pub struct Upload {
    carrier: Carrier<State>,
    received: u64,
    file: BlobFile,
    inner: Arc<Inner>,
}

struct State {
    inner: Arc<Inner>,
    reservation: Option<Reservation>,
    hasher: Hasher,
    sums: Summing,
    received: u64,
    /// How many bytes there will be, as far as that has been said.
    expected: u64,
    file: BlobFile,
    path: PathBuf,
    /// Whether the bytes are a blob's by now, or removed.
    gone: bool,
}

impl Upload {
    pub(crate) async fn begin(inner: &Arc<Inner>) -> Result<Self, StoreError> {
        inner.health.admit()?;
        let owner = Arc::clone(inner);
        let state = inner.health.heed(inner.writers.run(move || State::create(owner)).await)?;
        let file = state.file.clone();
        Ok(Self { carrier: Carrier::new(state, inner.writers.clone()), received: 0, file, inner: Arc::clone(inner) })
    }

    /// Bytes that are on disk and hashed.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The open file. It may be read below [`received`](Self::received).
    #[must_use]
    pub fn file(&self) -> BlobFile {
        self.file.clone()
    }

    /// Reserves room for `bytes` more, once it is known how many come, if there is room as it is. If there is not, room is made as
    /// they come.
    pub async fn expect(&mut self, bytes: u64) -> Result<(), StoreError> {
        self.carrier.run(move |state| state.expect(bytes)).await
    }

    /// Writes and hashes a batch; 256 KiB to 1 MiB is a good size.
    ///
    /// # Errors
    /// If the disk or the account has no room, or if the disk fails. The upload is of no use then.
    pub async fn write(&mut self, batch: Bytes) -> Result<(), StoreError> {
        let bytes = batch.len() as u64;
        let lacks = |state: &&State| state.reservation.as_ref().is_none_or(|reserved| reserved.bytes() < bytes);
        if let Some(step) = self.carrier.idle().filter(lacks).map(|state| state.step(bytes))
            && !self.inner.space.has_room(step)
        {
            self.inner.make_way(step).await?;
        }
        let result = self.inner.health.heed(self.carrier.run(move |state| state.write(&batch)).await);
        if let Some(state) = self.carrier.idle() {
            self.received = state.received;
        }
        result
    }

    /// Compares the digest.
    pub async fn verify(mut self, digest: &Digest) -> Result<VerifiedUpload, VerifyError> {
        let digest = *digest;
        let actual = if digest.algorithm() == Algorithm::Sha256 {
            self.carrier.settle().await?;
            self.carrier.idle().ok_or(StoreError::Closed)?.hasher.clone().finish()
        } else {
            self.hash(digest).await?
        };
        if actual == digest {
            let (state, givers) = (self.carrier.take().await?, Vec::new());
            return Ok(VerifiedUpload { state, givers, digest, inner: self.inner });
        }
        self.inner.metrics.digest_failures.with_label_values(&["push"]).inc();
        self.discard().await;
        Err(VerifyError::Digest { expected: digest, actual: actual.into() })
    }

    /// Removes what was received.
    pub async fn discard(self) {
        let Ok(mut state) = self.carrier.take().await else { return };
        let removed = self.inner.writers.run(move || {
            state.gone = true;
            remove(&state.inner, &state.path, state.received);
            Ok(())
        });
        let _ = removed.await;
    }

    /// The digest by the algorithm of `digest`, from disk.
    async fn hash(&mut self, digest: Digest) -> Result<Digest, StoreError> {
        let (file, length, path) = (self.file.clone(), self.received, layout::blob(&digest));
        let mut rehash = Some(Rehash::new(digest));
        loop {
            let (file, path) = (file.clone(), path.clone());
            let mut step = rehash.take().ok_or(StoreError::Closed)?;
            let (step, done) = self
                .inner
                .writers
                .run(move || {
                    let done = step.step(file.disk_file(), length, BYTES_PER_JOB);
                    done.map(|done| (step, done)).map_err(StoreError::io("hash", path))
                })
                .await?;
            if done {
                return Ok(step.hashed());
            }
            rehash = Some(step);
        }
    }
}

impl State {
    fn create(inner: Arc<Inner>) -> Result<Self, StoreError> {
        let path = inner.files.temporary();
        let create = || inner.files.disk.open(&path, Access::CreateNew).map_err(StoreError::io("create", &path));
        let file = inner.with_room(0, create)?;
        let file = BlobFile::new(file, inner.general.clone());
        let (hasher, sums) = (Hasher::new(Algorithm::Sha256), Summing::default());
        Ok(Self { inner, reservation: None, hasher, sums, received: 0, expected: 0, file, path, gone: false })
    }

    fn expect(&mut self, bytes: u64) -> Result<(), StoreError> {
        // What is left of the last one is given back first.
        self.reservation = None;
        let mut reservation = self.inner.reserve_announced(bytes)?;
        let is_whole = reservation.bytes() >= bytes;
        self.expected = self.received.saturating_add(bytes);
        if is_whole
            && bytes >= WORTH_ALLOCATING
            && self.inner.allocate(&self.file, self.received + bytes, bytes, &self.path)?
        {
            reservation.set_allocated();
        }
        self.reservation = Some(reservation);
        Ok(())
    }

    /// What is reserved to write so many bytes.
    fn step(&self, bytes: u64) -> u64 {
        let left = self.expected.checked_sub(self.received).filter(|left| *left > 0).unwrap_or(STEP);
        left.min(STEP).max(bytes)
    }

    fn write(&mut self, batch: &[u8]) -> Result<(), StoreError> {
        let bytes = batch.len() as u64;
        if self.reservation.as_ref().is_none_or(|reservation| reservation.bytes() < bytes) {
            self.reservation = None;
            self.reservation = Some(self.inner.reserve(self.step(bytes))?);
        }
        self.inner.with_room(self.reservation.as_ref().map_or(bytes, Reservation::bytes), || {
            self.file.disk_file().write_at(batch, self.received).map_err(StoreError::io("write", &self.path))
        })?;
        self.hasher.update(batch);
        self.sums.update(batch);
        self.received += bytes;
        if let Some(reservation) = &mut self.reservation {
            reservation.spend(bytes);
        }
        Ok(())
    }

    fn commit(&mut self, digest: Digest, givers: &[Giver]) -> Result<Blob, StoreError> {
        self.reservation = None;
        if let Some(blob) = self.inner.open_blob(&digest)? {
            self.inner.note_givers(&digest, givers)?;
            return Ok(blob);
        }
        let release = self.file.disk_file().release();
        release.map_err(StoreError::io("give back unused space of", &self.path))?;
        self.inner.seal(&self.file, &self.path)?;
        self.inner.keep_pieces(&digest, &self.sums.pieces());
        let blob = self.inner.placing(&digest, givers, || {
            self.inner.place(&self.path, digest, self.received, self.file.clone(), false)
        })?;
        self.gone = true;
        self.inner.files.sync_folder(&layout::blobs(digest.algorithm()))?;
        Ok(blob)
    }
}

/// Removes an upload's file.
fn remove(inner: &Inner, path: &std::path::Path, received: u64) {
    match inner.files.disk.remove(path) {
        Err(error) if !is_absent(&error) => {
            tracing::warn!(%error, file = %path.display(), "cannot remove an upload that ended; the next start does");
        }
        _ => inner.space.sub(received),
    }
}

impl Drop for State {
    /// On the store's threads, where there is room: to remove a large file takes its time.
    fn drop(&mut self) {
        if self.gone {
            return;
        }
        let (inner, path, received) = (Arc::clone(&self.inner), std::mem::take(&mut self.path), self.received);
        match self.inner.writers.try_place() {
            Some(place) => drop(place.start(move || remove(&inner, &path, received))),
            None => remove(&inner, &path, received),
        }
    }
}

/// An upload that has the digest it was offered under, not yet in its place.
pub struct VerifiedUpload {
    state: Box<State>,
    givers: Vec<Giver>,
    digest: Digest,
    inner: Arc<Inner>,
}

impl VerifiedUpload {
    /// The open file; all of it may be read.
    #[must_use]
    pub fn file(&self) -> BlobFile {
        self.state.file.clone()
    }

    /// Bytes of it.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.state.received
    }

    /// Says whom it came from: that is written down before it is a blob.
    #[must_use]
    pub fn given_by(self, givers: Vec<Giver>) -> Self {
        Self { givers, ..self }
    }

    /// Makes it a blob, unless that is there already: syncs as configured, renames, syncs the folder. On an error it is gone.
    pub async fn commit(self) -> Result<Blob, StoreError> {
        let Self { mut state, givers, digest, inner } = self;
        inner.writers.run(move || state.commit(digest, &givers)).await
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("received", &self.received).finish_non_exhaustive()
    }
}

impl fmt::Debug for VerifiedUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VerifiedUpload").field(&self.digest).finish()
    }
}
