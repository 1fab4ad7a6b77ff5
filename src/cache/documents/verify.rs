use super::answer::StoredManifest;
use crate::cache::error::CacheError;
use crate::oci::{self, Algorithm, Digest, Reference, Registry};
use crate::upstream::FetchedManifest;

/// A document that is what was asked for.
pub(super) struct Verified {
    pub(super) manifest: StoredManifest,
    /// Whether its digest is that of its payload (Docker's schema 1), and not of its bytes.
    pub(super) signed: bool,
}

/// The document, if it is what was asked for.
pub(super) fn verified(
    registry: &Registry,
    reference: &Reference,
    fetched: FetchedManifest,
) -> Result<Verified, CacheError> {
    let FetchedManifest { content, media_type, digest: announced, .. } = fetched;
    let asked = match reference {
        Reference::Digest(digest) => Some(*digest),
        Reference::Tag(_) => announced,
    };
    if let Some(digest) = asked.filter(|digest| digest.matches(&content)) {
        return Ok(Verified { manifest: StoredManifest { content, digest, media_type }, signed: false });
    }
    let payload = oci::signed_payload(&content);
    let digest = asked.unwrap_or_else(|| Digest::of(Algorithm::Sha256, payload.as_deref().unwrap_or(&content)));
    let signed = payload.as_deref().is_some_and(|payload| digest.matches(payload));
    if signed || asked.is_none() {
        return Ok(Verified { manifest: StoredManifest { content, digest, media_type }, signed });
    }
    let problem = format!("{} bytes with the digest {}", content.len(), Digest::of(digest.algorithm(), &content));
    Err(CacheError::Mismatch { upstream: registry.to_string(), digest, problem })
}
