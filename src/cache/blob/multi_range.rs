//! Several parts of one blob, in the order that the reader asked for them: each comes from the best candidate at its turn.

use crate::cache::answer::Content;
use crate::cache::error::CacheError;
use crate::cache::fill::candidates::Candidates;
use crate::cache::fill::download::Download;
use crate::cache::fill::transfer::Transfer;
use crate::cache::fill::{End, Fill, Follower, Opened};
use crate::oci::{ByteRange, Digest};
use crate::store::BlobFile;
use std::fmt;
use std::sync::Arc;

/// Ranged requests of its own that one answer of several parts may send upstream, one at a time.
pub(in crate::cache) const OWN_REQUESTS: usize = 16;

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
    pub(in crate::cache) fn stored(digest: Digest, file: BlobFile, length: u64, ranges: Vec<ByteRange>) -> Self {
        Self { digest, length, ranges, next: 0, origin: Origin::Stored(file) }
    }

    pub(in crate::cache) fn filling(fill: &Arc<Fill>, opened: Opened, ranges: Vec<ByteRange>) -> Self {
        let (digest, length) = (fill.digest, opened.length);
        let origin = Origin::Filling { fill: Arc::clone(fill), opened, own: OWN_REQUESTS };
        Self { digest, length, ranges, next: 0, origin }
    }

    pub(in crate::cache) fn passing(
        digest: Digest,
        candidates: Arc<Candidates>,
        length: u64,
        ranges: Vec<ByteRange>,
    ) -> Self {
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
    pub(in crate::cache) fn file(&self) -> Option<&BlobFile> {
        match &self.origin {
            Origin::Stored(file) => Some(file),
            Origin::Filling { .. } | Origin::Passing(_) => None,
        }
    }

    /// The bytes of the next part; `None` behind the last one.
    ///
    /// # Errors
    /// If they cannot be had any more; the answer must then not end cleanly.
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

/// By the same rule as for one range, with a bound on the requests of its own: behind that, a part waits for the fill.
async fn of_fill(fill: &Arc<Fill>, opened: &Opened, range: ByteRange, own: &mut usize) -> Result<Content, CacheError> {
    let reached = fill.gets_to(range.start).await;
    let end = fill.progress.now(|progress| progress.end.clone());
    match end {
        Some(End::Verified) => return Ok(Content::File(opened.file.clone(), range)),
        Some(End::Failed(error)) => return Err(error),
        Some(End::Bypassed(_)) => return own_request(fill.digest, &fill.candidates, range).await,
        None => {}
    }
    if !reached
        && *own > 0
        && let Ok(permit) = Arc::clone(&fill.beside).try_acquire_owned()
    {
        *own -= 1;
        let mut download = Download::of_range(fill.digest, Arc::clone(&fill.candidates), range);
        download.open().await?;
        return Ok(Content::Transfer(Box::new(Transfer::of_range(download, range).holding(permit))));
    }
    Ok(Content::Follow(Box::new(Follower::new(fill, opened.clone(), range))))
}

async fn own_request(digest: Digest, candidates: &Arc<Candidates>, range: ByteRange) -> Result<Content, CacheError> {
    let mut download = Download::of_range(digest, Arc::clone(candidates), range);
    download.open().await?;
    Ok(Content::Transfer(Box::new(Transfer::of_range(download, range))))
}

impl fmt::Debug for MultiRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MultiRange")
            .field("ranges", &self.ranges.len())
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
