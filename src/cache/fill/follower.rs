use super::super::answer::CacheError;
use super::{End, HELD_BACK, Progress};
use crate::oci::ByteRange;
use crate::store::BlobFile;
use std::ops::Range;
use tokio::sync::watch;

/// A reader of a growing file: gives out the parts of its range as they come to be there.
#[derive(Debug)]
pub struct Follower {
    progress: watch::Receiver<Progress>,
    file: BlobFile,
    length: u64,
    range: ByteRange,
    position: u64,
}

impl Follower {
    pub(in super::super) fn new(
        progress: watch::Receiver<Progress>,
        file: BlobFile,
        length: u64,
        range: ByteRange,
    ) -> Self {
        Self { progress, file, length, range, position: range.start }
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
    pub async fn next(&mut self) -> Result<Option<Range<u64>>, CacheError> {
        if self.position >= self.range.end {
            return Ok(None);
        }
        let (length, position) = (self.length, self.position);
        let ready = |progress: &Progress| progress.end.is_some() || released(progress, length) > position;
        let (end, released) = match self.progress.wait_for(|progress| ready(progress)).await {
            Ok(progress) => (progress.end.clone(), released(&progress, length)),
            Err(_) => (Some(End::Failed(CacheError::Aborted)), 0),
        };
        let until = released.min(self.range.end);
        if until > self.position {
            let part = self.position..until;
            self.position = until;
            return Ok(Some(part));
        }
        Err(match end {
            Some(End::Failed(error)) => error,
            _ => CacheError::Aborted,
        })
    }
}

/// How far the file may be read: up to its mark, but for the last bytes, which wait for the digest.
fn released(progress: &Progress, length: u64) -> u64 {
    match progress.end {
        Some(End::Verified) => length,
        _ => progress.written.min(length.saturating_sub(HELD_BACK)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_waits_for_the_digest() {
        let length = 10 * HELD_BACK;
        let at = |written, end| released(&Progress { opened: None, written, end }, length);
        assert_eq!(at(7, None), 7);
        assert_eq!(at(length, None), length - HELD_BACK);
        assert_eq!(at(length, Some(End::Failed(CacheError::Aborted))), length - HELD_BACK);
        assert_eq!(at(length, Some(End::Verified)), length);
        assert_eq!(released(&Progress { opened: None, written: 5, end: None }, 5), 0, "a small blob waits whole");
    }
}
