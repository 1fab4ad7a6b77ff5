//! Reads content whatever its label: storage and registries send manifests and blobs with useless media types.
//!
//! A document is a manifest if its digest or its structure says so. A blob is known by its digest alone, which the cache checks.

use super::answer::Answer;
use super::classify;
use super::relayed::Relayed;
use crate::oci::{self, Digest, MediaType, Reference, Shape};
use crate::upstream::answers::FetchedManifest;
use crate::upstream::error::Failure;
use crate::upstream::limits::documents::Documents;
use crate::upstream::parse;
use http::StatusCode;
use http::header::CONTENT_LENGTH;

/// Every type of manifest there is: ACR answers 404 for one that is not listed, whatever `*/*` says.
pub(in crate::upstream) const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.oci.artifact.manifest.v1+json, application/vnd.cncf.oras.artifact.manifest.v1+json, */*";

/// Reads a manifest that `reference` was asked for.
pub(in crate::upstream) async fn manifest(
    answer: Answer,
    reference: &Reference,
    documents: &Documents,
) -> Result<FetchedManifest, Failure> {
    let (said, digest, origin) = (answer.media_type(), answer.digest(), answer.origin.to_string());
    let (page, relayed) = (classify::is_page(&answer.headers), Relayed::of(&answer.headers));
    let content = answer.collect_document(oci::MAX_MANIFEST, documents).await?;
    let shape = parse::read(&content, Shape::of).await.unwrap_or_default();
    // Without a digest there is nothing else to tell a manifest from what a filter or a cut left of it.
    if !shape.is_manifest() && !is_vouched_for(&content, reference, digest.as_ref(), page) {
        return Err(no_manifest(&origin, page));
    }
    let own = || shape.media_type().filter(MediaType::is_specific);
    let Some(media_type) = said.clone().filter(MediaType::is_specific).or_else(own).or(said) else {
        return Err(Failure::foreign(format!("{origin} sent a manifest without saying its type")));
    };
    Ok(FetchedManifest { content, media_type, digest, relayed })
}

/// Whether a digest says that this is what was asked for. One that the registry names and that is not the content's is for the cache
/// to refuse, in better words.
fn is_vouched_for(content: &[u8], reference: &Reference, named: Option<&Digest>, page: bool) -> bool {
    match reference {
        Reference::Digest(digest) => digest.matches(content) || named.is_some() && !page,
        Reference::Tag(_) => named.is_some_and(|named| !page || named.matches(content)),
    }
}

fn no_manifest(origin: &str, page: bool) -> Failure {
    Failure::foreign(if page {
        format!("{origin} answered with a web page; {}", classify::LOOK)
    } else {
        format!("{origin} answered 200 with something that is no manifest")
    })
}

/// Whether the bytes of a blob are said to be a page: the failure to report if they are not the blob's. One by somebody who has not shown to
/// be a registry, which could only be told from the blob when readers have had much of it, is refused at once.
pub(in crate::upstream) fn doubtful_page(
    answer: &Answer,
    in_part: bool,
    others: bool,
) -> Result<Option<Failure>, Failure> {
    if !classify::is_page(&answer.headers) {
        return Ok(None);
    }
    let page = Failure::foreign(format!("{} answered with a web page; {}", answer.origin, classify::LOOK));
    let whole = answer.status == StatusCode::OK && answer.headers.contains_key(CONTENT_LENGTH) && !in_part;
    let part = answer.status == StatusCode::PARTIAL_CONTENT;
    let shown = answer.spoken || answer.digest().is_some();
    if shown || (whole || part) && !others { Ok(Some(page)) } else { Err(page) }
}
