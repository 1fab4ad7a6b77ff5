//! The writer of a content on its way in, as its owner sees it.
//!
//! It has at most one job in flight, so its memory is one batch and its source is read no faster than the disk takes. A caller that
//! leaves in the middle of a write breaks nothing (`SerialJob`).

use super::content::Content;
use super::intake::Intake;
use crate::oci::{Algorithm, Digest};
use crate::store::blobs::{Blob, BlobFile, Giver, Rehash};
use crate::store::error::{StoreError, VerifyError};
use crate::store::files::layout;
use crate::store::jobs::SerialJob;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// Bytes hashed from disk by one job, so that others get their turn.
const BYTES_PER_JOB: u64 = 64 << 20;

pub(super) struct Receiver {
    content: SerialJob<Content>,
    /// The algorithm of the hash that is taken on the way.
    algorithm: Algorithm,
    received: u64,
    file: BlobFile,
    intake: Arc<Intake>,
}

impl Receiver {
    pub(super) fn new(intake: &Arc<Intake>, content: Content, algorithm: Algorithm) -> Self {
        let file = content.file();
        let content = SerialJob::new(content, intake.jobs.writers.clone());
        Self { content, algorithm, received: 0, file, intake: Arc::clone(intake) }
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn file(&self) -> BlobFile {
        self.file.clone()
    }

    /// The content, unless a job has it.
    pub(super) fn idle(&self) -> Option<&Content> {
        self.content.idle()
    }

    pub(super) async fn write(&mut self, batch: Bytes) -> Result<u64, StoreError> {
        let step = self.idle().and_then(|content| content.step(batch.len() as u64));
        let room = match step.filter(|step| !self.intake.blobs.files.space.has_room(*step)) {
            Some(step) => self.intake.evictor.reserve_in_jobs(&self.intake.jobs, step).await?,
            None => None,
        };
        self.run(move |content| content.write(&batch, room)).await?;
        Ok(self.received)
    }

    pub(super) async fn run(
        &mut self,
        work: impl FnOnce(&mut Content) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let result = self.content.run(work).await;
        if let Some(content) = self.idle() {
            self.received = content.received;
        }
        self.intake.jobs.health.heed(result)
    }

    /// Compares length and digest. If they do not hold, the file is removed, and counted under `met`.
    pub(super) async fn verify(mut self, digest: Digest, met: &str) -> Result<Verified, VerifyError> {
        self.content.finish_running().await?;
        let hashed = if self.algorithm == digest.algorithm() { None } else { Some(self.rehash(digest).await?) };
        let mut content = self.content.take().await?;
        let Err(error) = content.check(digest, hashed) else {
            return Ok(Verified { content, digest, givers: Vec::new(), intake: self.intake });
        };
        if matches!(error, VerifyError::Digest { .. }) {
            self.intake.metrics.digest_failures.with_label_values(&[met]).inc();
        }
        if let Err(failed) = self.intake.jobs.writers.run(move || content.remove()).await {
            tracing::warn!(error = %failed, "cannot remove what was received wrongly; it is hashed again if it is ever resumed");
        }
        Err(error)
    }

    pub(super) async fn discard(mut self) {
        // The file goes even if the last job failed.
        let _ = self.content.finish_running().await;
        let Ok(mut content) = self.content.take().await else { return };
        if let Err(error) = self.intake.jobs.writers.run(move || content.remove()).await {
            tracing::warn!(%error, "cannot discard what was received; it is resumed or removed later");
        }
    }

    /// The digest by the algorithm of `digest`, from disk.
    async fn rehash(&self, digest: Digest) -> Result<Digest, StoreError> {
        let length = self.received;
        let mut rehash = Rehash::new(digest);
        loop {
            let file = self.file.clone();
            let step = self.intake.jobs.writers.run(move || {
                let done = rehash.step(file.disk_file(), length, BYTES_PER_JOB);
                done.map(|done| (rehash, done)).map_err(StoreError::io("hash", layout::blob(&digest)))
            });
            let (back, done) = step.await?;
            if done {
                return Ok(back.hashed());
            }
            rehash = back;
        }
    }
}

/// Content that has its digest, not yet in its place.
pub struct Verified {
    content: Box<Content>,
    digest: Digest,
    givers: Vec<Giver>,
    intake: Arc<Intake>,
}

impl Verified {
    /// The open file; all of it may be read.
    #[must_use]
    pub fn file(&self) -> BlobFile {
        self.content.file()
    }

    /// Bytes of it.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.content.received
    }

    /// Says whom it came from: that is written down before it is a blob.
    #[must_use]
    pub fn given_by(self, givers: Vec<Giver>) -> Self {
        Self { givers, ..self }
    }

    /// Makes it a blob: syncs as configured, renames, syncs the folder. On an error the file of a download stays for a later one,
    /// that of an upload goes.
    pub async fn commit(self) -> Result<Blob, StoreError> {
        let Self { mut content, digest, givers, intake } = self;
        let is_upload = content.is_upload();
        let committed = async {
            let place = intake.jobs.writers.place().await?;
            place.start(move || content.commit(digest, &givers)).await.unwrap_or(Err(StoreError::Closed))
        };
        // A client waits for the commit of its upload. No client waits for that of a download.
        let result = if is_upload { intake.jobs.writers.within(committed).await } else { committed.await };
        intake.jobs.health.heed(result)
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Verified").field(&self.digest).finish()
    }
}
