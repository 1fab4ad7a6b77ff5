use super::multi_range::MultiRange;
use crate::cache::fill::{Follower, Transfer};
use crate::cache::provenance::Provenance;
use crate::oci::ByteRange;
use crate::store::BlobFile;
use bytes::Bytes;

/// The answer to a request for a blob.
#[derive(Debug)]
pub struct BlobAnswer {
    /// Length of the whole blob in bytes; 0 for [`Content::Unmeasured`].
    pub length: u64,
    /// The one part that `content` is; `None`: all of it, or the several parts that it names.
    pub range: Option<ByteRange>,
    /// The bytes.
    pub content: Content,
    /// Where they came from.
    pub provenance: Provenance,
}

/// The bytes of an answer, by how they come to be there.
#[derive(Debug)]
pub enum Content {
    /// None were asked for.
    Nothing,
    /// None were asked for, and upstream does not say how long the blob is.
    Unmeasured,
    /// All of them, verified, in memory.
    Memory(Bytes),
    /// A part of a complete, verified file.
    File(BlobFile, ByteRange),
    /// Several parts, one after another.
    Ranges(Box<MultiRange>),
    /// A part of a file that is being written.
    Follow(Box<Follower>),
    /// A download of this request's own, which nothing keeps.
    Transfer(Box<Transfer>),
}
