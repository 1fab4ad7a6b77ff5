//! Several parts of one blob, in the order that the reader asked for them: each comes the best way at its turn.

use super::answer::Content;
use super::range::{Way, way_to};
use crate::cache::error::CacheError;
use crate::cache::fill::{Candidates, End, Fill, Opened, Transfer};
use crate::oci::{ByteRange, Digest};
use crate::store::BlobFile;
use std::fmt;
use std::sync::Arc;

/// Ranged requests of its own that one answer of several parts may send upstream, one at a time.
pub(super) const OWN_REQUESTS: usize = 16;

/// What is left to come of an answer of several parts.
pub struct MultiRange {
    digest: Digest,
    /// Length of the whole blob in bytes.
    length: u64,
    ranges: Vec<ByteRange>,
    next: usize,
    origin: Origin,
}

enum Origin {
    /// A complete, verified file.
    Stored(BlobFile),
    /// A fill under way, and how many requests beside it this answer may still send.
    Filling { fill: Arc<Fill>, opened: Opened, own: usize },
    /// Nothing is kept: each part is a request of its own.
    Passing(Arc<Candidates>),
}

impl MultiRange {
    pub(super) fn stored(digest: Digest, file: BlobFile, length: u64, ranges: Vec<ByteRange>) -> Self {
        Self { digest, length, ranges, next: 0, origin: Origin::Stored(file) }
    }

    pub(super) fn filling(fill: &Arc<Fill>, opened: Opened, ranges: Vec<ByteRange>) -> Self {
        let (digest, length) = (fill.digest, opened.length);
        let origin = Origin::Filling { fill: Arc::clone(fill), opened, own: OWN_REQUESTS };
        Self { digest, length, ranges, next: 0, origin }
    }

    pub(super) fn passing(digest: Digest, candidates: Arc<Candidates>, length: u64, ranges: Vec<ByteRange>) -> Self {
        Self { digest, length, ranges, next: 0, origin: Origin::Passing(candidates) }
    }

    /// Digest of the whole blob.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Length of the whole blob in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// All parts of the answer, in their order.
    #[must_use]
    pub fn ranges(&self) -> &[ByteRange] {
        &self.ranges
    }

    /// The file, if all of it is stored.
    pub(super) fn file(&self) -> Option<&BlobFile> {
        match &self.origin {
            Origin::Stored(file) => Some(file),
            Origin::Filling { .. } | Origin::Passing(_) => None,
        }
    }

    /// The bytes of the next part; `None` behind the last one.
    ///
    /// # Errors
    /// If they cannot be had; the answer must then not end cleanly.
    pub async fn next(&mut self) -> Result<Option<Content>, CacheError> {
        let Some(range) = self.ranges.get(self.next).copied() else { return Ok(None) };
        self.next += 1;
        let content = match &mut self.origin {
            Origin::Stored(file) => Content::File(file.clone(), range),
            Origin::Filling { fill, opened, own } => of_fill(fill, opened, range, own).await?,
            Origin::Passing(candidates) => own_request(self.digest, candidates, range).await?,
        };
        Ok(Some(content))
    }
}

/// A part of what a fill is bringing. Behind the bound on requests of its own, a part waits for the fill.
async fn of_fill(fill: &Arc<Fill>, opened: &Opened, range: ByteRange, own: &mut usize) -> Result<Content, CacheError> {
    Ok(match way_to(fill, opened, range, *own > 0).await? {
        Way::Follow(follower) => Content::Follow(follower),
        Way::Own(transfer) => {
            *own -= 1;
            Content::Transfer(transfer)
        }
        Way::Ended(End::Verified(Opened { file, .. })) => Content::File(file, range),
        Way::Ended(End::Failed(error)) => return Err(error),
        Way::Ended(End::Bypassed(_)) => own_request(fill.digest, &fill.candidates, range).await?,
    })
}

async fn own_request(digest: Digest, candidates: &Arc<Candidates>, range: ByteRange) -> Result<Content, CacheError> {
    Ok(Content::Transfer(Box::new(Transfer::of_range(digest, candidates, range).await?)))
}

impl fmt::Debug for MultiRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MultiRange")
            .field("ranges", &self.ranges.len())
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
