//! Answers to HEAD of a manifest. What is stored answers as it does to GET. For what is not, upstream's own HEAD is enough:
//! registries count GETs against a quota, and a client that only watches tags sends none.

use super::answer::ManifestPresence;
use super::fetch::{ManifestFetcher, seen};
use super::manifests::{ManifestRequest, Manifests};
use crate::cache::epochs::Epoch;
use crate::cache::error::CacheError;
use crate::cache::negative::Object;
use crate::cache::provenance::Provenance;
use crate::cache::single_flight::SingleFlight;
use crate::cache::tasks::Tasks;
use crate::cache::view::RepositoryView;
use crate::oci::{Digest, MediaType, Reference, Repository, Tag};
use crate::telemetry::CacheStatus;
use crate::upstream::{ManifestHead, Relayed};
use std::sync::Arc;

/// The type of what comes without one.
const OCTETS: &str = "application/octet-stream";

/// Answers HEADs of manifests.
#[derive(Debug)]
pub(in crate::cache) struct Presences {
    manifests: Arc<Manifests>,
    fetcher: Arc<ManifestFetcher>,
    flights: SingleFlight<((Repository, Epoch), Reference), Result<ManifestPresence, CacheError>>,
    tasks: Arc<Tasks>,
}

impl Presences {
    pub(in crate::cache) fn new(manifests: Arc<Manifests>, fetcher: Arc<ManifestFetcher>, tasks: Arc<Tasks>) -> Self {
        Self { manifests, fetcher, flights: SingleFlight::default(), tasks }
    }

    /// What the head of the answer to GET would say.
    pub(in crate::cache) async fn head(
        &self,
        view: &RepositoryView,
        request: ManifestRequest<'_>,
    ) -> Result<ManifestPresence, CacheError> {
        let ManifestRequest { reference, accept, revalidate, .. } = request;
        let is_absent = || self.fetcher.negatives.recall(view, Object::Manifest(reference.clone())).is_some();
        // Of a repository that is denied upstream is asked in any case; its own answer is one that may go out.
        let denied = view.is_denied();
        if !revalidate && is_absent() || view.upstream.sealed || !denied && self.is_stored(view, reference).await? {
            return Ok(self.manifests.get(view, request).await?.into());
        }
        if let Reference::Tag(tag) = reference
            && !revalidate
            && !denied
            && let Some(known) = self.fetcher.named.recall(view, tag)
            && accept.allows(&known.media_type)
        {
            return Ok(known);
        }
        let (fetcher, begun, of) = (Arc::clone(&self.fetcher), view.clone(), reference.clone());
        let work = || async move { ask(&fetcher, &begun, &of).await };
        let waiter = self.flights.join((view.key(), reference.clone()), &self.tasks, work);
        let first = waiter.first;
        let mut presence = waiter.answer().await?;
        if presence.media_type.is_specific() && !accept.allows(&presence.media_type) {
            return Ok(self.manifests.get(view, request).await?.into());
        }
        if !first && presence.provenance.status == CacheStatus::Miss {
            presence.provenance.status = CacheStatus::Coalesced;
        }
        Ok(presence)
    }

    async fn is_stored(&self, view: &RepositoryView, reference: &Reference) -> Result<bool, CacheError> {
        let table = &self.fetcher.table;
        let digest = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(tag) => table.tag(view.repository(), tag).await.map(|state| state.digest),
        };
        Ok(match digest {
            Some(digest) => table.manifest(view.repository(), &digest).await?.is_some(),
            None => false,
        })
    }
}

/// Upstream's own answer to a HEAD; the whole manifest only where that says too little.
async fn ask(
    fetcher: &ManifestFetcher,
    view: &RepositoryView,
    reference: &Reference,
) -> Result<ManifestPresence, CacheError> {
    let head = match view.upstream.head_manifest(view.repository(), reference).await {
        Ok(head) => head,
        Err(error) => {
            fetcher.negatives.note_absence(view, Object::Manifest(reference.clone()), &error).await;
            return Err(error.into());
        }
    };
    match head {
        ManifestHead { document: Some(document), .. } => Ok(fetcher.take_in(view, reference, document).await?.into()),
        ManifestHead { digest: Some(digest), media_type, length: Some(length), relayed, .. }
            if is_of(reference, &digest) =>
        {
            of_head(fetcher, view, reference, (digest, media_type, length, relayed)).await
        }
        _ => Ok(fetcher.fetch(view, reference).await?.into()),
    }
}

/// What a HEAD says. A type that says nothing is the document's business. Where that cannot be had the registry's word stands.
async fn of_head(
    fetcher: &ManifestFetcher,
    view: &RepositoryView,
    reference: &Reference,
    (digest, media_type, length, relayed): (Digest, Option<MediaType>, u64, Relayed),
) -> Result<ManifestPresence, CacheError> {
    let Some(media_type) = media_type.or_else(|| OCTETS.parse().ok()) else { return Err(CacheError::Aborted) };
    let provenance = Provenance { stored: false, ..Provenance::new(CacheStatus::Miss) }.relayed(&relayed);
    let said = ManifestPresence { digest, media_type, length, provenance };
    if !said.media_type.is_specific() {
        return Ok(fetcher.fetch(view, reference).await.map_or(said, Into::into));
    }
    if let Reference::Tag(tag) = reference {
        note_named(fetcher, view, tag, &said, &relayed).await;
    }
    Ok(said)
}

/// A tag names a manifest: that is stored with the manifest, which may be here already.
async fn note_named(
    fetcher: &ManifestFetcher,
    view: &RepositoryView,
    tag: &Tag,
    said: &ManifestPresence,
    relayed: &Relayed,
) {
    let (repository, seen) = (view.repository(), seen(view, tag, relayed));
    let Some(permit) = view.store_permit().await else { return };
    fetcher.negatives.forget(repository, Object::Manifest(Reference::Tag(tag.clone())));
    if fetcher.table.is_linked(repository, &said.digest).await {
        fetcher.table.keep_tag(&permit, repository, tag, said.digest, seen).await;
    } else {
        fetcher.named.note(&permit, view, tag, said, seen);
    }
}

/// Whether an answer that names `digest` is one to `reference`.
fn is_of(reference: &Reference, digest: &Digest) -> bool {
    match reference {
        Reference::Digest(asked) => asked == digest,
        Reference::Tag(_) => true,
    }
}
