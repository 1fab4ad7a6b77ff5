//! What an upstream says of content, and what it gives of it, before anybody has verified it.

use super::error::UpstreamError;
use crate::oci::{Digest, MediaType};
use crate::upstream::protocol::relayed::Relayed;
use crate::upstream::transport::body::UpstreamBody;
use bytes::Bytes;

/// What a registry says of a manifest without sending it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    /// Its digest, if the registry names one that can be verified.
    pub digest: Option<Digest>,
    pub media_type: Option<MediaType>,
    /// Its size in bytes.
    pub length: Option<u64>,
    /// The manifest itself, where only that could tell.
    pub document: Option<FetchedManifest>,
    /// What caches on the way say of it.
    pub relayed: Relayed,
}

/// A manifest as it came, unverified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedManifest {
    pub content: Bytes,
    /// Its type, without parameters.
    pub media_type: MediaType,
    /// The digest that the registry claims, if it can be verified.
    pub digest: Option<Digest>,
    /// What caches on the way say of it.
    pub relayed: Relayed,
}

/// What an upstream says of a blob that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobHead {
    /// Its length, if that was said.
    pub length: Option<u64>,
    /// Whether a registry said it, and of this digest.
    pub speaks: bool,
}

impl BlobHead {
    /// Whether it is a registry's word that it has the content of this length that is stored here.
    #[must_use]
    pub fn vouches_for(&self, length: u64) -> bool {
        self.speaks && self.length == Some(length)
    }
}

/// A blob, or the end of one, that is arriving.
#[derive(Debug)]
pub struct FetchedBlob {
    /// Offset of the body's first byte: 0 if a range was asked for and the whole blob came.
    pub start: u64,
    /// Length of the whole blob, if it was said.
    pub length: Option<u64>,
    /// The bytes.
    pub body: UpstreamBody,
    /// Which of the upstream's addresses gives them, for [`super::Upstream::blame`]; 0 is its own.
    pub address: usize,
    /// The failure to report if the bytes are not the blob's: the answer is labelled as a web page, and its sender has not shown to be a registry.
    pub page: Option<UpstreamError>,
    /// What caches on the way say of it.
    pub relayed: Relayed,
}
