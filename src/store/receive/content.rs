//! Content while it comes: a file, what is reserved for it, and the hash and checksums of what was written.

use super::intake::{Complete, Intake};
use crate::oci::{Algorithm, Digest, Hasher};
use crate::store::account::Reservation;
use crate::store::blobs::{Blob, BlobFile, Giver, Summing};
use crate::store::disk::{Access, DiskFile, is_absent, read_exact_at};
use crate::store::error::{StoreError, VerifyError};
use crate::store::files::layout;
use crate::store::files::partials::{Claim, Part};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Content of unknown length, and content that does not fit as it is, is reserved in such steps.
const STEP: u64 = 16 << 20;
/// Below this, allocating costs more than it saves.
const WORTH_ALLOCATING: u64 = 1 << 20;
/// A kept file is hashed again in such pieces, and so many to a job, so that others get their turn.
const PIECE: usize = 1 << 20;
const PIECES_PER_JOB: usize = 64;

pub(super) struct Content {
    intake: Arc<Intake>,
    place: Place,
    path: PathBuf,
    file: BlobFile,
    reservation: Reservation,
    /// How many bytes there will be, as far as that is known.
    length: Option<u64>,
    hasher: Hasher,
    sums: Summing,
    pub(super) received: u64,
    too_long: bool,
}

/// Where the file is until the content is complete.
enum Place {
    /// A partial download, which a later one continues.
    Partial(Claim),
    /// A temporary file.
    Temporary {
        /// Whether it is a blob by now, or removed.
        gone: bool,
    },
}

impl Content {
    /// Begins in a temporary file.
    pub(super) fn unnamed(intake: Arc<Intake>) -> Result<Self, StoreError> {
        let path = intake.blobs.files.temporary();
        let create = || intake.blobs.files.disk.open(&path, Access::CreateNew).map_err(StoreError::io("create", &path));
        let file = intake.evictor.evict_on_enospc(0, create)?;
        let (place, reservation) = (Place::Temporary { gone: false }, intake.blobs.files.space.reserve_nothing());
        Ok(Self::new(intake, place, path, file, reservation, Algorithm::Sha256, None))
    }

    /// Begins in the file of a partial download, or opens what an earlier one left; how many of its bytes are to be hashed again.
    pub(super) fn named(intake: Arc<Intake>, mut claim: Claim, length: Option<u64>) -> Result<(Self, u64), StoreError> {
        take_over(&intake, &mut claim);
        let path = claim.part.path();
        let kept = open_kept(&intake, &mut claim, &path, length)?;
        let kept_bytes = claim.len.unwrap_or_default();
        let missing = length.map_or(0, |length| length - kept_bytes);
        let reservation = intake.evictor.reserve_announced(missing)?;
        let file = match kept {
            Some(file) => file,
            None => intake.evictor.evict_on_enospc(missing, || {
                intake.blobs.files.disk.open(&path, Access::CreateNew).map_err(StoreError::io("create", &path))
            })?,
        };
        claim.len = Some(kept_bytes);
        let algorithm = claim.part.digest.algorithm();
        let mut content = Self::new(intake, Place::Partial(claim), path, file, reservation, algorithm, length);
        content.allocate()?;
        Ok((content, kept_bytes))
    }

    fn new(
        intake: Arc<Intake>,
        place: Place,
        path: PathBuf,
        file: Box<dyn DiskFile>,
        reservation: Reservation,
        algorithm: Algorithm,
        length: Option<u64>,
    ) -> Self {
        let (file, hasher, sums) = (intake.blobs.blob_file(file), Hasher::new(algorithm), Summing::default());
        let (received, too_long) = (0, false);
        Self { intake, place, path, file, reservation, length, hasher, sums, received, too_long }
    }

    pub(super) fn file(&self) -> BlobFile {
        self.file.clone()
    }

    pub(super) fn is_upload(&self) -> bool {
        self.name().is_none()
    }

    /// The digest that it was asked for by.
    fn name(&self) -> Option<Digest> {
        match &self.place {
            Place::Partial(claim) => Some(claim.part.digest),
            Place::Temporary { .. } => None,
        }
    }

    /// Notes that there will be `length` bytes, and reserves what is missing of them if it fits as it is.
    pub(super) fn expect(&mut self, length: u64) -> Result<(), StoreError> {
        let missing = length.checked_sub(self.received).ok_or_else(|| self.too_long(length))?;
        if let Some(more) = missing.checked_sub(self.reservation.bytes()) {
            self.reservation.merge(self.intake.evictor.reserve_announced(more)?);
        }
        self.length = Some(length);
        self.allocate()
    }

    fn too_long(&self, length: u64) -> StoreError {
        let digest = self.name().unwrap_or_else(|| self.hasher.clone().finish());
        StoreError::TooLong { digest, length }
    }

    /// Has the file system set aside what is reserved of a content of known length, where that is worth it.
    fn allocate(&mut self) -> Result<(), StoreError> {
        let (end, room) = (self.received.saturating_add(self.reservation.bytes()), self.reservation.bytes());
        if self.length.is_some_and(|length| end <= length)
            && room >= WORTH_ALLOCATING
            && !self.reservation.is_allocated()
            && self.intake.allocate(&self.file, end, room, &self.path)?
        {
            self.reservation.set_allocated();
            if let Place::Partial(claim) = &mut self.place {
                claim.allocated = true;
            }
        }
        Ok(())
    }

    /// What has to be reserved before so many bytes can be written.
    pub(super) fn step(&self, bytes: u64) -> Option<u64> {
        let lacking = bytes.checked_sub(self.reservation.bytes()).filter(|lacking| *lacking > 0)?;
        let left = self.length.map(|length| length.saturating_sub(self.received));
        // An upload in several requests announces the length of each.
        let left = left.filter(|left| *left > 0 || self.name().is_some()).unwrap_or(u64::MAX);
        Some(left.saturating_sub(self.reservation.bytes()).min(STEP).max(lacking))
    }

    /// Hashes up to so many bytes of a kept file again, as many as one job may.
    pub(super) fn hash_again(&mut self, kept: u64) -> Result<(), StoreError> {
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

    /// Writes a batch, for which `room` may be reserved already.
    pub(super) fn write(&mut self, batch: &[u8], room: Option<Reservation>) -> Result<(), StoreError> {
        let bytes = batch.len() as u64;
        if let Some(length) = self.length.filter(|length| self.name().is_some() && self.received + bytes > *length) {
            self.too_long = true;
            return Err(self.too_long(length));
        }
        let room = match (room, self.step(bytes)) {
            (Some(room), _) => Some(room),
            (None, Some(step)) => Some(self.intake.evictor.reserve(step)?),
            (None, None) => None,
        };
        if let Some(room) = room {
            self.reservation.merge(room);
            self.allocate()?;
        }
        self.intake.evictor.evict_on_enospc(self.reservation.bytes(), || {
            self.file.disk_file().write_at(batch, self.received).map_err(StoreError::io("write", &self.path))
        })?;
        self.hasher.update(batch);
        self.sums.update(batch);
        self.received += bytes;
        self.reservation.spend(bytes);
        if let Place::Partial(claim) = &mut self.place {
            claim.len = Some(self.received);
        }
        Ok(())
    }

    /// Compares length and digest; `hashed` is the digest where it is of another algorithm than the one taken on the way.
    pub(super) fn check(&self, digest: Digest, hashed: Option<Digest>) -> Result<(), VerifyError> {
        if let (Some(_), Some(expected)) = (self.name(), self.length)
            && (self.received != expected || self.too_long)
        {
            let received = self.received + u64::from(self.too_long);
            return Err(VerifyError::Length { digest, expected, received });
        }
        let actual = hashed.unwrap_or_else(|| self.hasher.clone().finish());
        if actual == digest { Ok(()) } else { Err(VerifyError::Digest { expected: digest, actual: actual.into() }) }
    }

    /// Whether all of a download is here: an earlier process may have ended between the last byte and the commit.
    pub(super) fn is_whole(&self) -> bool {
        self.name().is_some_and(|digest| self.check(digest, None).is_ok())
    }

    pub(super) fn remove(&mut self) -> Result<(), StoreError> {
        match self.intake.blobs.files.disk.remove(&self.path) {
            Err(error) if !is_absent(&error) => return Err(StoreError::io("remove", &self.path)(error)),
            _ => {}
        }
        let bytes = match &mut self.place {
            Place::Partial(claim) => claim.len.take().unwrap_or_default(),
            Place::Temporary { gone } => {
                *gone = true;
                self.received
            }
        };
        self.intake.blobs.files.space.sub(bytes);
        Ok(())
    }

    pub(super) fn commit(&mut self, digest: Digest, givers: &[Giver]) -> Result<Blob, StoreError> {
        let intake = Arc::clone(&self.intake);
        self.reservation = intake.blobs.files.space.reserve_nothing();
        // A client may well push what is here.
        if self.name().is_none()
            && let Some(blob) = intake.blobs.open(&digest)?
        {
            intake.add_givers(&digest, givers)?;
            return Ok(blob);
        }
        let (path, file, len, pieces) = (&*self.path, &self.file, self.received, self.sums.pieces());
        let blob = intake.commit(Complete { path, file, digest, len, pieces }, givers)?;
        // Its bytes belong to the blob from here on.
        match &mut self.place {
            Place::Partial(claim) => claim.len = None,
            Place::Temporary { gone } => *gone = true,
        }
        intake.blobs.files.sync_folder(&layout::blobs(digest.algorithm()))?;
        Ok(blob)
    }
}

impl Drop for Content {
    /// Removes a temporary file, on the store's threads if there is room in their queue: it takes its time.
    fn drop(&mut self) {
        let Place::Temporary { gone: gone @ false } = &mut self.place else { return };
        *gone = true;
        let (intake, path, bytes) = (Arc::clone(&self.intake), std::mem::take(&mut self.path), self.received);
        let remove = move || match intake.blobs.files.disk.remove(&path) {
            Err(error) if !is_absent(&error) => {
                tracing::warn!(%error, file = %path.display(), "cannot remove an upload that ended; the next start does");
            }
            _ => intake.blobs.files.space.sub(bytes),
        };
        match self.intake.jobs.writers.try_place() {
            Some(place) => drop(place.start(remove)),
            None => remove(),
        }
    }
}

/// Opens what an earlier download left, unless it is longer than the content can be.
fn open_kept(
    intake: &Intake,
    claim: &mut Claim,
    path: &Path,
    length: Option<u64>,
) -> Result<Option<Box<dyn DiskFile>>, StoreError> {
    let file = match intake.blobs.files.disk.open(path, Access::ReadWrite) {
        Err(error) if is_absent(&error) => {
            intake.blobs.files.space.sub(claim.len.take().unwrap_or_default());
            return Ok(None);
        }
        other => other.map_err(StoreError::io("open", path))?,
    };
    let len = file.len().map_err(StoreError::io("read", path))?;
    intake.blobs.files.space.add(len);
    intake.blobs.files.space.sub(claim.len.replace(len).unwrap_or_default());
    if length.is_none_or(|length| len <= length) {
        return Ok(Some(file));
    }
    intake.blobs.files.disk.remove(path).map_err(StoreError::io("remove", path))?;
    intake.blobs.files.space.sub(claim.len.take().unwrap_or_default());
    Ok(None)
}

/// An older larder kept one partial download for all registries, without a registry's name. The first download that continues it
/// has it.
fn take_over(intake: &Intake, claim: &mut Claim) {
    let plain = Part { origin: None, ..claim.part };
    if claim.len.is_some() || claim.part == plain || !intake.partials.has(&plain) {
        return;
    }
    let Some(mut left) = intake.partials.claim(plain) else { return };
    if intake.blobs.files.disk.rename(&plain.path(), &claim.part.path()).is_ok() {
        claim.len = left.len.take();
    }
}
