//! Stored blobs as bodies for another listener than the registry's.

use super::content;
use crate::cache::Content;
use crate::oci::ByteRange;
use crate::server::Body;
use crate::store::Blob;

/// Bytes of a stored blob, read past the read check and sent by the kernel where that is possible.
#[must_use]
pub fn stored(blob: &Blob, range: ByteRange) -> Body {
    content::body(Content::File(blob.file().clone(), range))
}
