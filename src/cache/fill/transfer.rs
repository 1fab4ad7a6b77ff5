use super::candidates::Candidates;
use super::download::Download;
use crate::cache::error::CacheError;
use crate::oci::{ByteRange, Digest, Hasher};
use crate::upstream::Relayed;
use bytes::{Buf, Bytes, BytesMut};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// A download for one reader alone, at its pace, of which nothing is kept.
///
/// A whole content is hashed on the way and its last bytes are held back until the digest holds, so that a wrong one never
/// ends cleanly. A part by itself cannot be verified, and its answer is marked.
#[derive(Debug)]
pub struct Transfer {
    download: Download,
    check: Option<Check>,
    /// What the reader is to get of the content, and the next byte of the content to come.
    deliver: ByteRange,
    position: u64,
    /// Its place among those that may run at once.
    place: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
struct Check {
    digest: Digest,
    hasher: Hasher,
    held: Option<Bytes>,
}

impl Transfer {
    /// All of the content is read and hashed; the reader gets `deliver` of it.
    pub(in crate::cache) fn verified(download: Download, digest: Digest, deliver: ByteRange) -> Self {
        let check = Check { digest, hasher: Hasher::new(digest.algorithm()), held: None };
        Self { download, check: Some(check), deliver, position: 0, place: None }
    }

    /// What follows the part that `beginning` has hashed; `deliver` begins there.
    pub(in crate::cache) fn going_on(
        download: Download,
        digest: Digest,
        beginning: Hasher,
        deliver: ByteRange,
    ) -> Self {
        let check = Check { digest, hasher: beginning, held: None };
        Self { download, check: Some(check), deliver, position: deliver.start, place: None }
    }

    /// A request of its own for `range` alone, which cannot be verified.
    pub(in crate::cache) async fn of_range(
        digest: Digest,
        candidates: &Arc<Candidates>,
        range: ByteRange,
    ) -> Result<Self, CacheError> {
        let mut download = Download::of_range(digest, Arc::clone(candidates), range);
        download.open().await?;
        Ok(Self { download, check: None, deliver: range, position: range.start, place: None })
    }

    /// What caches on the way said of it.
    pub(in crate::cache) fn relayed(&self) -> &Relayed {
        self.download.relayed()
    }

    /// Gives `place` back when the transfer is over.
    pub(in crate::cache) fn holding(mut self, place: OwnedSemaphorePermit) -> Self {
        self.place = Some(place);
        self
    }

    /// Number of bytes that the reader gets.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.deliver.len()
    }

    /// The next bytes for the reader; `None` at the end.
    ///
    /// # Errors
    /// If upstream fails for good or the content is not what its digest names; the answer must then not end cleanly.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CacheError> {
        loop {
            let Some(chunk) = self.download.chunk().await? else { return self.finish() };
            let Some(check) = &mut self.check else { return Ok(Some(chunk)) };
            check.hasher.update(&chunk);
            let wanted = cut(chunk, self.position, self.deliver, &mut self.position);
            if wanted.is_empty() {
                continue;
            }
            if let Some(ready) = check.held.replace(wanted) {
                return Ok(Some(ready));
            }
        }
    }

    /// All that is left, once it is verified.
    pub(in crate::cache) async fn collect(&mut self) -> Result<Bytes, CacheError> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.next().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    fn finish(&mut self) -> Result<Option<Bytes>, CacheError> {
        let Some(check) = self.check.take() else { return Ok(None) };
        let found = check.hasher.finish();
        if found == check.digest {
            Ok(check.held)
        } else {
            Err(self.download.mismatch(&format!("{} bytes with the digest {found}", self.position)))
        }
    }
}

/// The part of `chunk`, which begins at `start` of the content, that lies in `deliver`.
fn cut(mut chunk: Bytes, start: u64, deliver: ByteRange, position: &mut u64) -> Bytes {
    let end = start + chunk.len() as u64;
    *position = end;
    let index = |at: u64| usize::try_from(at.clamp(start, end) - start).unwrap_or(usize::MAX);
    let (from, to) = (index(deliver.start), index(deliver.end));
    chunk.truncate(to);
    chunk.advance(from.min(chunk.len()));
    chunk
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_cut_to_what_is_wanted() {
        let mut position = 0;
        let deliver = ByteRange { start: 3, end: 8 };
        let content = Bytes::from_static(b"0123456789");
        let got: Vec<u8> = [0..2, 2..5, 5..6, 6..10]
            .into_iter()
            .flat_map(|part| cut(content.slice(part), position, deliver, &mut position).to_vec())
            .collect();
        assert_eq!(got, b"34567");
        assert_eq!(position, 10);
    }
}
