use super::content::Content;
use super::intake::Intake;
use super::receiver::{Receiver, Verified};
use crate::oci::Digest;
use crate::store::blobs::BlobFile;
use crate::store::error::{IngestError, StoreError, VerifyError};
use crate::store::files::partials::{Claim, Part};
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How often, and at what distance, a partial download that another writer has is claimed again.
const CLAIMS: u32 = 20;
const CLAIM_PAUSE: Duration = Duration::from_millis(10);

/// A blob being received whose digest is known. One per digest at a time.
///
/// Dropped without [`verify`](Self::verify) or [`discard`](Self::discard), its file stays for a later resume, and what was
/// reserved and not written is given back.
pub struct Ingest {
    receiver: Receiver,
    digest: Digest,
}

impl Ingest {
    pub(crate) async fn begin(intake: &Arc<Intake>, part: Part, length: Option<u64>) -> Result<Self, IngestError> {
        intake.jobs.health.admit()?;
        let claim = claim(intake, part).await?;
        let theirs = Arc::clone(intake);
        let opened = intake.jobs.writers.run(move || Content::named(theirs, claim, length)).await;
        let (content, kept) = intake.jobs.health.heed(opened)?;
        let mut receiver = Receiver::new(intake, content, part.digest.algorithm());
        while receiver.received() < kept {
            receiver.run(move |content| content.hash_again(kept)).await?;
        }
        Ok(Self { receiver, digest: part.digest })
    }

    /// Bytes that are on disk and hashed. After opening: those of a file kept from earlier.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.receiver.received()
    }

    /// Whether all of the content is here: an earlier process may have ended between the last byte and the commit.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.receiver.idle().is_some_and(Content::is_whole)
    }

    /// The open file. Others may read it below [`received`](Self::received).
    #[must_use]
    pub fn file(&self) -> BlobFile {
        self.receiver.file()
    }

    /// Says how long the content is, once that is known, and reserves what is missing of it if it fits as it is. If it does not,
    /// room is made as the bytes come.
    pub async fn expect_length(&mut self, length: u64) -> Result<(), IngestError> {
        Ok(self.receiver.run(move |content| content.expect(length)).await?)
    }

    /// Writes and hashes a batch; 256 KiB to 1 MiB is a good size. Returns the new [`received`](Self::received).
    ///
    /// A caller that leaves before it returns finds out with an empty batch how far the ingest has come.
    ///
    /// # Errors
    /// If the disk or the account has no room, if the disk fails, or if more comes than was announced. Nothing of the batch
    /// counts then; the ingest can be discarded, or dropped for a later resume.
    pub async fn write(&mut self, batch: Bytes) -> Result<u64, StoreError> {
        self.receiver.write(batch).await
    }

    /// Compares length and digest. On a mismatch the file is removed.
    pub async fn verify(self) -> Result<Verified, VerifyError> {
        self.receiver.verify(self.digest, "fill").await
    }

    pub async fn discard(self) {
        self.receiver.discard().await;
    }
}

/// An eviction has a partial download for a moment, and so has a dropped writer until its last job is done: both are waited for,
/// another writer is not.
async fn claim(intake: &Intake, part: Part) -> Result<Claim, IngestError> {
    for _ in 0..CLAIMS {
        if let Some(claim) = intake.partials.claim(part) {
            return Ok(claim);
        }
        tokio::time::sleep(CLAIM_PAUSE).await;
    }
    intake.partials.claim(part).ok_or(IngestError::Busy(part.digest))
}

impl fmt::Debug for Ingest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingest").field("received", &self.received()).finish_non_exhaustive()
    }
}
