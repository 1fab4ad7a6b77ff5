//! Ingests: content on its way in, written, hashed, and in the end a blob or nothing.
//!
//! An ingest has one writer and at most one job in flight, so its memory is one batch and its source is read no faster than
//! the disk takes. A caller that goes away in the middle of a write leaves everything in order (`carrier`).

use crate::oci::{Digest, Hasher};
use crate::store::account::Reservation;
use crate::store::blobs::blob::{Blob, BlobFile};
use crate::store::blobs::givers::Giver;
use crate::store::blobs::pieces::Summing;
use crate::store::disk::{Access, read_exact_at};
use crate::store::error::{IngestError, StoreError, VerifyError};
use crate::store::files::layout::{self, Part};
use crate::store::files::small::{is_absent, is_full};
use crate::store::jobs::serial::Carrier;
use crate::store::parts::Inner;
use crate::store::receive::partials::Claim;
use bytes::Bytes;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Content of unknown length, and what there is no room for as it is, is reserved in such steps.
const STEP: u64 = 16 << 20;
/// Below this, allocating costs more than it saves.
const WORTH_ALLOCATING: u64 = 1 << 20;
/// How often, and at what distance, a digest that somebody has is asked for again.
const CLAIMS: u32 = 20;
const CLAIM_PAUSE: Duration = Duration::from_millis(10);
/// A kept file is hashed again in such pieces, and so many to a job, so that others get their turn.
const PIECE: usize = 1 << 20;
const PIECES_PER_JOB: usize = 64;

/// A blob being received. One per digest at a time.
///
/// Dropped without [`verify`](Self::verify) or [`discard`](Self::discard), its file stays for a later resume, and what was
/// reserved and not written is given back.
pub struct Ingest {
    carrier: Carrier<State>,
    received: u64,
    file: BlobFile,
    inner: Arc<Inner>,
}

struct State {
    inner: Arc<Inner>,
    claim: Claim,
    reservation: Reservation,
    digest: Digest,
    length: Option<u64>,
    hasher: Hasher,
    sums: Summing,
    received: u64,
    too_long: bool,
    file: BlobFile,
    path: PathBuf,
}

impl Ingest {
    pub(crate) async fn begin(inner: &Arc<Inner>, part: Part, length: Option<u64>) -> Result<Self, IngestError> {
        inner.health.admit()?;
        let claim = Self::claim(inner, part).await?;
        let owner = Arc::clone(inner);
        let opened = inner.writers.run(move || State::open(owner, claim, length)).await;
        let (state, kept) = inner.health.heed(opened)?;
        let mut ingest = Self {
            received: 0,
            file: state.file.clone(),
            inner: Arc::clone(inner),
            carrier: Carrier::new(state, inner.writers.clone()),
        };
        while ingest.received < kept {
            ingest.run(move |state| state.hash_again(kept)).await?;
        }
        Ok(ingest)
    }

    /// Who removes what was left lying has it for a moment, and a writer that was dropped until its last job is done: both are
    /// waited for, another writer is not.
    async fn claim(inner: &Inner, part: Part) -> Result<Claim, IngestError> {
        for _ in 0..CLAIMS {
            if let Some(claim) = inner.partials.claim(part) {
                return Ok(claim);
            }
            tokio::time::sleep(CLAIM_PAUSE).await;
        }
        inner.partials.claim(part).ok_or(IngestError::Busy(part.digest))
    }

    /// Bytes that are on disk and hashed. After opening: those of a file kept from earlier.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether all of the content is here: an earlier process may have ended between the last byte and the commit.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.carrier.idle().is_some_and(|state| state.check().is_ok())
    }

    /// The open file. Others may read it below [`received`](Self::received).
    #[must_use]
    pub fn file(&self) -> BlobFile {
        self.file.clone()
    }

    /// Says how long the content is, once that is known, and reserves what is missing of it, if there is room as it is. If there is
    /// not, room is made as the bytes come.
    pub async fn expect_length(&mut self, length: u64) -> Result<(), IngestError> {
        Ok(self.run(move |state| state.expect_length(length)).await?)
    }

    /// Writes and hashes a batch; 256 KiB to 1 MiB is a good size. Returns the new [`received`](Self::received).
    ///
    /// Whoever leaves before it returns finds out with an empty batch how far the ingest has come.
    ///
    /// # Errors
    /// If the disk or the account has no room, if the disk fails, or if more comes than was announced. Nothing of the batch
    /// counts then; the ingest can be discarded, or dropped for a later resume.
    pub async fn write(&mut self, batch: Bytes) -> Result<u64, StoreError> {
        let step = self.carrier.idle().and_then(|state| state.step(batch.len() as u64));
        if let Some(step) = step.filter(|step| !self.inner.space.has_room(*step)) {
            self.inner.make_way(step).await?;
        }
        self.run(move |state| state.write(&batch)).await?;
        Ok(self.received)
    }

    /// Compares length and digest. On a mismatch the file is removed.
    pub async fn verify(self) -> Result<Verified, VerifyError> {
        let mut state = self.carrier.take().await?;
        let Err(error) = state.check() else { return Ok(Verified { state, givers: Vec::new(), inner: self.inner }) };
        if matches!(error, VerifyError::Digest { .. }) {
            self.inner.metrics.digest_failures.with_label_values(&["fill"]).inc();
        }
        let removed = self.inner.writers.run(move || state.remove()).await;
        if let Err(failed) = removed {
            tracing::warn!(error = %failed, "cannot remove what was received wrongly; it is hashed again if it is ever resumed");
        }
        Err(error)
    }

    /// Removes what was received.
    pub async fn discard(mut self) {
        // Whatever the last job met, the file goes.
        let _ = self.carrier.settle().await;
        let Ok(mut state) = self.carrier.take().await else { return };
        if let Err(error) = self.inner.writers.run(move || state.remove()).await {
            tracing::warn!(%error, "cannot discard a partial download; it is resumed or removed later");
        }
    }

    async fn run(
        &mut self,
        work: impl FnOnce(&mut State) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let result = self.carrier.run(work).await;
        if let Some(state) = self.carrier.idle() {
            self.received = state.received;
        }
        self.inner.health.heed(result)
    }
}

impl State {
    /// Opens the file kept from earlier, or a new one; how many of its bytes are to be hashed again.
    fn open(inner: Arc<Inner>, mut claim: Claim, length: Option<u64>) -> Result<(Self, u64), StoreError> {
        let (digest, path) = (claim.part.digest, layout::ingest(&claim.part));
        // Whoever gives back the unused space of an idle ingest has this lock, too.
        let guard = inner.digest_locks.lock(&digest);
        inner.take_over(&mut claim);
        let kept = Self::open_kept(&inner, &mut claim, &path, length)?;
        drop(guard);
        let received = claim.len.unwrap_or_default();
        let missing = length.map_or(0, |length| length - received);
        let reservation = inner.reserve_announced(missing)?;
        let file = match kept {
            Some(file) => file,
            None => inner.with_room(missing, || {
                inner.files.disk.open(&path, Access::CreateNew).map_err(StoreError::io("create", &path))
            })?,
        };
        claim.len = Some(received);
        let file = BlobFile::new(file, inner.general.clone());
        let hasher = Hasher::new(digest.algorithm());
        let (received, too_long) = (0, false);
        let kept = claim.len.unwrap_or_default();
        let sums = Summing::default();
        let mut state =
            Self { inner, claim, reservation, digest, length, hasher, sums, received, too_long, file, path };
        state.allocate()?;
        Ok((state, kept))
    }

    fn expect_length(&mut self, length: u64) -> Result<(), StoreError> {
        let missing = length.checked_sub(self.received).ok_or(StoreError::TooLong { digest: self.digest, length })?;
        if let Some(more) = missing.checked_sub(self.reservation.bytes()) {
            self.reservation.merge(self.inner.reserve_announced(more)?);
        }
        self.length = Some(length);
        self.allocate()
    }

    /// Has the file system set aside what is reserved of a content of known length, where that is worth it.
    fn allocate(&mut self) -> Result<(), StoreError> {
        let (end, room) = (self.received.saturating_add(self.reservation.bytes()), self.reservation.bytes());
        if self.length.is_some_and(|length| end <= length)
            && room >= WORTH_ALLOCATING
            && !self.reservation.is_allocated()
            && self.inner.allocate(&self.file, end, room, &self.path)?
        {
            self.reservation.set_allocated();
            self.claim.allocated = true;
        }
        Ok(())
    }

    /// What has to be reserved before so many bytes can be written.
    fn step(&self, bytes: u64) -> Option<u64> {
        let lacking = bytes.checked_sub(self.reservation.bytes()).filter(|lacking| *lacking > 0)?;
        let left = self.length.map_or(u64::MAX, |length| length.saturating_sub(self.received));
        Some(left.saturating_sub(self.reservation.bytes()).min(STEP).max(lacking))
    }

    /// Opens what an earlier ingest left, unless it is longer than the content can be.
    fn open_kept(
        inner: &Inner,
        claim: &mut Claim,
        path: &std::path::Path,
        length: Option<u64>,
    ) -> Result<Option<Box<dyn crate::store::disk::DiskFile>>, StoreError> {
        let file = match inner.files.disk.open(path, Access::ReadWrite) {
            Err(error) if is_absent(&error) => {
                inner.space.sub(claim.len.take().unwrap_or_default());
                return Ok(None);
            }
            other => other.map_err(StoreError::io("open", path))?,
        };
        let len = file.len().map_err(StoreError::io("read", path))?;
        inner.space.add(len);
        inner.space.sub(claim.len.replace(len).unwrap_or_default());
        if length.is_none_or(|length| len <= length) {
            return Ok(Some(file));
        }
        inner.files.disk.remove(path).map_err(StoreError::io("remove", path))?;
        inner.space.sub(claim.len.take().unwrap_or_default());
        Ok(None)
    }

    fn hash_again(&mut self, kept: u64) -> Result<(), StoreError> {
        let mut buffer = vec![0; PIECE];
        for _ in 0..PIECES_PER_JOB {
            let left = usize::try_from(kept - self.received).unwrap_or(usize::MAX).min(PIECE);
            if left == 0 {
                break;
            }
            read_exact_at(self.file.disk_file(), &mut buffer[..left], self.received)
                .map_err(StoreError::io("read", &self.path))?;
            self.hasher.update(&buffer[..left]);
            self.sums.update(&buffer[..left]);
            self.received += left as u64;
        }
        Ok(())
    }

    fn write(&mut self, batch: &[u8]) -> Result<(), StoreError> {
        let bytes = batch.len() as u64;
        if let Some(length) = self.length
            && self.received + bytes > length
        {
            self.too_long = true;
            return Err(StoreError::TooLong { digest: self.digest, length });
        }
        if let Some(step) = self.step(bytes) {
            self.reservation.merge(self.inner.reserve(step)?);
            self.allocate()?;
        }
        self.inner.with_room(self.reservation.bytes(), || {
            self.file.disk_file().write_at(batch, self.received).map_err(StoreError::io("write", &self.path))
        })?;
        self.hasher.update(batch);
        self.sums.update(batch);
        self.received += bytes;
        self.reservation.spend(bytes);
        self.claim.len = Some(self.received);
        Ok(())
    }

    fn check(&self) -> Result<(), VerifyError> {
        let digest = self.digest;
        if let Some(expected) = self.length
            && (self.received != expected || self.too_long)
        {
            let received = self.received + u64::from(self.too_long);
            return Err(VerifyError::Length { digest, expected, received });
        }
        let actual = self.hasher.clone().finish();
        if actual == digest { Ok(()) } else { Err(VerifyError::Digest { expected: digest, actual: actual.into() }) }
    }

    fn remove(&mut self) -> Result<(), StoreError> {
        match self.inner.files.disk.remove(&self.path) {
            Err(error) if !is_absent(&error) => return Err(StoreError::io("remove", &self.path)(error)),
            _ => {}
        }
        self.inner.space.sub(self.claim.len.take().unwrap_or_default());
        Ok(())
    }

    fn commit(&mut self, givers: &[Giver]) -> Result<Blob, StoreError> {
        let release = self.file.disk_file().release();
        release.map_err(StoreError::io("give back unused space of", &self.path))?;
        self.inner.seal(&self.file, &self.path)?;
        self.inner.keep_pieces(&self.digest, &self.sums.pieces());
        let blob = self.inner.placing(&self.digest, givers, || {
            self.inner.place(&self.path, self.digest, self.received, self.file.clone(), false)
        })?;
        // Its bytes belong to the blob from here on.
        self.claim.len = None;
        self.inner.files.sync_folder(&layout::blobs(self.digest.algorithm()))?;
        Ok(blob)
    }
}

impl Inner {
    /// Allocates a file's space; no room for it is a refusal, not a failure.
    pub(crate) fn allocate(
        &self,
        file: &BlobFile,
        length: u64,
        missing: u64,
        path: &std::path::Path,
    ) -> Result<bool, StoreError> {
        let allocate = || file.disk_file().allocate(length).map_err(StoreError::io("allocate space for", path));
        match self.with_room(missing, allocate) {
            Err(StoreError::Io { source, .. }) if is_full(&source) => {
                Err(self.space.refusal(missing, self.files.disk.free().unwrap_or_default()).into())
            }
            other => other,
        }
    }

    /// A larder that kept one partial download for all registries has left it without a registry's name: the first who goes on with it
    /// has it. Its digest is locked.
    fn take_over(&self, claim: &mut Claim) {
        let plain = Part { origin: None, ..claim.part };
        if claim.len.is_some() || claim.part == plain || !self.partials.has(&plain) {
            return;
        }
        let Some(mut left) = self.partials.claim(plain) else { return };
        if self.files.disk.rename(&layout::ingest(&plain), &layout::ingest(&claim.part)).is_ok() {
            claim.len = left.len.take();
        }
    }

    /// Gives back what is allocated behind the end of ingests that nobody is writing.
    pub(crate) fn tidy_ingests(&self) {
        for part in self.partials.untidy() {
            let _guard = self.digest_locks.lock(&part.digest);
            if self.partials.set_tidy(&part)
                && let Ok(file) = self.files.disk.open(&layout::ingest(&part), Access::ReadWrite)
            {
                let _ = file.release();
            }
        }
    }
}

/// Content that has the digest it was asked for, not yet in its place.
pub struct Verified {
    state: Box<State>,
    givers: Vec<Giver>,
    inner: Arc<Inner>,
}

impl Verified {
    /// The open file; all of it may be read.
    #[must_use]
    pub fn file(&self) -> BlobFile {
        self.state.file.clone()
    }

    /// Says whom it came from: that is written down before it is a blob.
    #[must_use]
    pub fn given_by(self, givers: Vec<Giver>) -> Self {
        Self { givers, ..self }
    }

    /// Makes it a blob: syncs as configured, renames, syncs the folder. On an error the file stays for a later ingest.
    pub async fn commit(self) -> Result<Blob, StoreError> {
        let Self { mut state, givers, inner } = self;
        // However long that takes: nobody waits for it.
        let committed = inner.writers.place().await?.start(move || state.commit(&givers)).await;
        inner.health.heed(committed.unwrap_or(Err(StoreError::Closed)))
    }
}

impl fmt::Debug for Ingest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingest").field("received", &self.received).finish_non_exhaustive()
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Verified").field(&self.state.digest).finish()
    }
}
