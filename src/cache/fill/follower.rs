use super::download::Download;
use super::shared::{End, Fill, Opened, Progress, Reader};
use super::transfer::Transfer;
use crate::cache::error::CacheError;
use crate::oci::{ByteRange, Hasher};
use crate::store::BlobFile;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Bytes that are read again at once.
const PIECE: usize = 1 << 20;

/// What comes next for a reader.
#[derive(Debug)]
pub enum Step {
    /// These bytes of the file.
    Part(Range<u64>),
    /// The file will not grow any further: everything else comes from here.
    Rest(Box<Transfer>),
}

/// A reader of a growing file: gives out the parts of its range as they come to be there.
#[derive(Debug)]
pub struct Follower {
    fill: Arc<Fill>,
    progress: Reader,
    file: BlobFile,
    length: u64,
    range: ByteRange,
    position: u64,
}

impl Follower {
    pub(in crate::cache) fn new(fill: &Arc<Fill>, opened: Opened, range: ByteRange) -> Self {
        let Opened { file, length } = opened;
        let progress = fill.progress.subscribe();
        Self { fill: Arc::clone(fill), progress, file, length, range, position: range.start }
    }

    /// The file that the parts are of.
    #[must_use]
    pub fn file(&self) -> &BlobFile {
        &self.file
    }

    /// All that this reader gets, in bytes of the file.
    #[must_use]
    pub fn range(&self) -> ByteRange {
        self.range
    }

    /// Waits for the next part of the range that may be sent; `None` when all of it was given.
    ///
    /// # Errors
    /// If the fill failed; the answer must then not end cleanly.
    pub async fn next(&mut self) -> Result<Option<Step>, CacheError> {
        if self.position >= self.range.end {
            return Ok(None);
        }
        let position = self.position;
        let ready = |progress: &Progress| {
            let released = progress.released();
            (released > position || progress.end.is_some()).then(|| (released, progress.end.clone()))
        };
        let (released, end) = self.progress.wait(ready).await;
        let until = released.min(self.range.end);
        if until > self.position {
            let part = self.position..until;
            self.position = until;
            return Ok(Some(Step::Part(part)));
        }
        match end {
            Some(End::Failed(error)) => Err(error),
            Some(End::Bypassed(_)) => self.rest().await.map(Some),
            _ => Err(CacheError::Aborted),
        }
    }

    /// The store gave up in the middle. This reader continues where it is. What it already has came from the file, so the digest is
    /// that of the file's beginning and what follows.
    async fn rest(&mut self) -> Result<Step, CacheError> {
        let (digest, lacking) = (self.fill.digest, ByteRange { start: self.position, end: self.range.end });
        let beginning = self.hash_beginning().await.map_err(|error| {
            tracing::warn!(blob.digest = %digest, %error, "a reader is cut off: what it has of a failed download cannot be read again");
            CacheError::Aborted
        })?;
        let download = Download::new(digest, Arc::clone(&self.fill.candidates), self.position).going_on(self.length);
        self.position = self.range.end;
        Ok(Step::Rest(Box::new(Transfer::going_on(download, digest, beginning, lacking))))
    }

    /// Hashes the content up to where this reader is.
    async fn hash_beginning(&self) -> io::Result<Hasher> {
        let mut hasher = Hasher::new(self.fill.digest.algorithm());
        let mut at = 0;
        while at < self.position {
            let length = usize::try_from(self.position - at).map_or(PIECE, |left| left.min(PIECE));
            hasher.update(&self.file.read(at, length).await?);
            at += length as u64;
        }
        Ok(hasher)
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared::{HELD_BACK, before_digest};
    use super::*;

    #[test]
    fn the_tail_waits_for_the_digest() {
        let length = 10 * HELD_BACK;
        let at =
            |written, length, end| Progress { opened: None, written, limit: before_digest(length), end }.released();
        assert_eq!(at(7, length, None), 7);
        assert_eq!(at(length, length, None), length - HELD_BACK);
        assert_eq!(at(length, length, Some(End::Failed(CacheError::Aborted))), length - HELD_BACK);
        assert_eq!(at(5, 5, None), 0, "a small blob waits whole");
    }
}
