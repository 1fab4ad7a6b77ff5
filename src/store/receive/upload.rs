use super::content::Content;
use super::intake::Intake;
use super::receiver::{Receiver, Verified};
use crate::oci::{Algorithm, Digest};
use crate::store::blobs::BlobFile;
use crate::store::error::{StoreError, VerifyError};
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// A blob being received from a client, whose digest comes at its end. No later process resumes it. Dropped without
/// [`verify`](Self::verify) it leaves nothing.
pub struct Upload(Receiver);

impl Upload {
    pub(crate) async fn begin(intake: &Arc<Intake>) -> Result<Self, StoreError> {
        intake.jobs.health.admit()?;
        let theirs = Arc::clone(intake);
        let content = intake.jobs.writers.run(move || Content::unnamed(theirs)).await;
        Ok(Self(Receiver::new(intake, intake.jobs.health.heed(content)?, Algorithm::Sha256)))
    }

    /// Bytes that are on disk and hashed.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.0.received()
    }

    /// The open file. It may be read below [`received`](Self::received).
    #[must_use]
    pub fn file(&self) -> BlobFile {
        self.0.file()
    }

    /// Reserves room for `bytes` more, once it is known how many come, if they fit as it is. If they do not, room is made as they
    /// come.
    pub async fn expect(&mut self, bytes: u64) -> Result<(), StoreError> {
        self.0.run(move |content| content.expect(content.received.saturating_add(bytes))).await
    }

    /// Writes and hashes a batch; 256 KiB to 1 MiB is a good size.
    ///
    /// # Errors
    /// If the disk or the account has no room, or if the disk fails. The upload cannot continue then.
    pub async fn write(&mut self, batch: Bytes) -> Result<(), StoreError> {
        self.0.write(batch).await.map(drop)
    }

    /// Compares the digest. One that is not sha256 is taken from the disk.
    pub async fn verify(self, digest: &Digest) -> Result<Verified, VerifyError> {
        self.0.verify(*digest, "push").await
    }

    pub async fn discard(self) {
        self.0.discard().await;
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("received", &self.received()).finish_non_exhaustive()
    }
}
