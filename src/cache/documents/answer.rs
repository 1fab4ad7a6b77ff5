use crate::cache::provenance::Provenance;
use crate::oci::{Digest, MediaType};
use crate::upstream::AcrAnswer;
use bytes::Bytes;
use std::sync::Arc;

/// A manifest, byte for byte as upstream has it.
#[derive(Clone, Debug)]
pub struct StoredManifest {
    /// The document.
    pub content: Bytes,
    /// Its digest, in the algorithm that it is known by here.
    pub digest: Digest,
    /// The type that upstream gave it in this repository.
    pub media_type: MediaType,
}

/// The answer to a request for a manifest.
#[derive(Clone, Debug)]
pub struct ManifestAnswer {
    /// The manifest.
    pub manifest: Arc<StoredManifest>,
    /// Where it came from.
    pub provenance: Provenance,
}

/// What the head of an answer says of a manifest.
#[derive(Clone, Debug)]
pub struct ManifestPresence {
    /// Its digest.
    pub digest: Digest,
    /// Its type.
    pub media_type: MediaType,
    /// Its size in bytes.
    pub length: u64,
    /// Where the answer came from.
    pub provenance: Provenance,
}

impl From<ManifestAnswer> for ManifestPresence {
    fn from(ManifestAnswer { manifest, provenance }: ManifestAnswer) -> Self {
        let (digest, media_type) = (manifest.digest, manifest.media_type.clone());
        Self { digest, media_type, length: manifest.content.len() as u64, provenance }
    }
}

/// The answer to a question to ACR's own API.
#[derive(Clone, Debug)]
pub struct MetadataAnswer {
    /// What upstream said.
    pub answer: Arc<AcrAnswer>,
    /// Where it came from.
    pub provenance: Provenance,
}
