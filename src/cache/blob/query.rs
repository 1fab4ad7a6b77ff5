//! What a request wants of a blob, and what that is of a blob of known length.

use super::answer::{BlobAnswer, Content};
use super::multi_range::MultiRange;
use crate::cache::error::CacheError;
use crate::cache::fill::{HELD_BACK, Opened};
use crate::cache::log::log_and_ignore;
use crate::cache::provenance::Provenance;
use crate::oci::{ByteRange, Digest, RangeRequest, resolve_many};
use crate::store::BlobFile;

/// Of a stored blob, bytes that are checked before the answer begins.
const CHECKED_FIRST: u64 = 4 << 20;
/// What the check of a part reads at least: a piece.
const CHECKED_PIECE: u64 = 1 << 20;

/// What is wanted of a blob.
#[derive(Clone, Copy, Debug)]
pub enum BlobQuery<'a> {
    /// Whether it is there, and its length.
    Head,
    /// All of it.
    Whole,
    /// A part.
    Range(RangeRequest),
    /// Several parts, in this order.
    Ranges(&'a [RangeRequest]),
}

/// What is wanted, once the blob's length is known.
pub(super) enum Selection {
    Whole,
    Range(ByteRange),
    Ranges(Vec<ByteRange>),
}

/// What `query` means in a blob of `length` bytes.
pub(super) fn resolve(query: BlobQuery<'_>, length: u64) -> Result<Selection, CacheError> {
    match query {
        BlobQuery::Range(range) => {
            range.resolve(length).map(Selection::Range).map_err(|_| CacheError::Unsatisfiable { length })
        }
        BlobQuery::Ranges(asked) => Ok(match resolve_many(asked, length) {
            None => Selection::Whole,
            Some(parts) => match parts[..] {
                [only] => Selection::Range(only),
                _ => Selection::Ranges(parts),
            },
        }),
        BlobQuery::Head | BlobQuery::Whole => Ok(Selection::Whole),
    }
}

/// The answer from a complete, verified file.
pub(super) fn from_file(
    digest: &Digest,
    Opened { file, length }: Opened,
    query: BlobQuery<'_>,
    provenance: Provenance,
) -> Result<BlobAnswer, CacheError> {
    let answer = |range, content| BlobAnswer { length, range, content, provenance };
    if let BlobQuery::Head = query {
        return Ok(answer(None, Content::Nothing));
    }
    Ok(match resolve(query, length)? {
        Selection::Whole => answer(None, Content::File(file, ByteRange { start: 0, end: length })),
        Selection::Range(range) => answer(Some(range), Content::File(file, range)),
        Selection::Ranges(ranges) => {
            answer(None, Content::Ranges(Box::new(MultiRange::stored(*digest, file, length, ranges))))
        }
    })
}

/// Whether what comes from the file first, a few MiB of it, is what was stored.
pub(super) async fn is_sound(digest: &Digest, content: &Content, well: bool) -> bool {
    match content {
        Content::File(file, range) => begins_sound(digest, file, &[*range], well).await,
        Content::Ranges(parts) => match parts.file() {
            Some(file) => begins_sound(digest, file, parts.ranges(), well).await,
            None => true,
        },
        _ => true,
    }
}

async fn begins_sound(digest: &Digest, file: &BlobFile, ranges: &[ByteRange], well: bool) -> bool {
    let mut left = CHECKED_FIRST;
    for range in ranges {
        let first = range.start..range.end.min(range.start.saturating_add(left));
        if !file.is_checked(&first) && log_and_ignore("check", digest, file.check(first).await).is_none() {
            return false;
        }
        // A disk in trouble may not even give out what was checked: an answer that has begun could only break.
        let beginning = usize::try_from(range.len().min(HELD_BACK)).unwrap_or_default();
        if !well && file.read(range.start, beginning).await.is_err() {
            return false;
        }
        left = left.saturating_sub(range.len().max(CHECKED_PIECE));
        if left == 0 {
            break;
        }
    }
    true
}
