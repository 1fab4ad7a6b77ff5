//! Answers to HEAD of a manifest. What is stored answers as it does to GET; of what is not, upstream's own HEAD is enough: registries count
//! GETs against a quota, and whoever only watches tags sends none.

use crate::cache::answer::{ManifestAnswer, Provenance};
use crate::cache::documents::manifests::ManifestRequest;
use crate::cache::epochs::Epoch;
use crate::cache::error::CacheError;
use crate::cache::freshness::{Age, Freshness, TagState};
use crate::cache::negative::Object;
use crate::cache::{Cache, Inner, log_and_ignore};
use crate::oci::{Digest, MediaType, Reference, Repository, Tag};
use crate::telemetry::CacheStatus;
use crate::upstream::ManifestHead;
use quick_cache::sync;
use std::sync::Arc;
use std::time::SystemTime;

/// The type of what comes without one.
const OCTETS: &str = "application/octet-stream";

/// What the head of an answer says of a manifest.
#[derive(Clone, Debug)]
pub struct ManifestPresence {
    /// Its digest.
    pub digest: Digest,
    /// Its type.
    pub media_type: MediaType,
    /// Its size in bytes.
    pub length: u64,
    /// Why the answer came from where it came.
    pub provenance: Provenance,
}

impl From<ManifestAnswer> for ManifestPresence {
    fn from(ManifestAnswer { manifest, provenance }: ManifestAnswer) -> Self {
        let (digest, media_type) = (manifest.digest, manifest.media_type.clone());
        Self { digest, media_type, length: manifest.content.len() as u64, provenance }
    }
}

/// What upstream has said to HEADs of manifests that are not stored.
///
/// Most clients then fetch the manifest by its digest, and the tag is kept with it. Who only watches the tag is answered from here for
/// as long as a stored one would be good.
#[derive(Debug)]
pub(in crate::cache) struct Named {
    tags: sync::Cache<(Repository, Tag), NamedTag>,
    by_digest: sync::Cache<(Repository, Digest), (Tag, SystemTime, Epoch)>,
}

#[derive(Clone, Debug)]
struct NamedTag {
    presence: ManifestPresence,
    age: Age,
    begun: Epoch,
}

impl Named {
    /// Remembers at most `entries` tags at once.
    pub(in crate::cache) fn new(entries: usize) -> Self {
        Self { tags: sync::Cache::new(entries), by_digest: sync::Cache::new(entries) }
    }

    /// What a tag named when it was `seen`.
    fn note(&self, repository: &Repository, tag: &Tag, presence: &ManifestPresence, seen: SystemTime, begun: Epoch) {
        let said = NamedTag { presence: presence.clone(), age: Age::since(seen), begun };
        self.tags.insert((repository.clone(), tag.clone()), said);
        self.by_digest.insert((repository.clone(), presence.digest), (tag.clone(), seen, begun));
    }

    /// What a tag names, if upstream has said so lately and there was no write since.
    fn recall(&self, repository: &Repository, tag: &Tag, rules: &Freshness, now: Epoch) -> Option<ManifestPresence> {
        if self.tags.is_empty() {
            return None;
        }
        let NamedTag { mut presence, age, begun } = self.tags.get(&(repository.clone(), tag.clone()))?;
        let state = TagState { digest: presence.digest, age };
        if begun != now || !rules.is_fresh(tag, &state) {
            return None;
        }
        presence.provenance = Provenance::new(CacheStatus::Hit).with_ttl(rules.left(tag, &age));
        Some(presence)
    }

    /// The tag of a manifest that has come, and when upstream named it, unless there was a write since.
    pub(in crate::cache) fn take(
        &self,
        repository: &Repository,
        digest: Digest,
        now: Epoch,
    ) -> Option<(Tag, SystemTime)> {
        if self.by_digest.is_empty() {
            return None;
        }
        let (_, (tag, seen, begun)) = self.by_digest.remove(&(repository.clone(), digest))?;
        (begun == now).then_some((tag, seen))
    }
}

impl Cache {
    /// What the head of the answer to GET would say.
    pub async fn manifest_head(&self, request: ManifestRequest<'_>) -> Result<ManifestPresence, CacheError> {
        let ManifestRequest { repository, reference, accept, revalidate } = request;
        let upstream = self.0.upstream(repository)?;
        let epoch = self.0.epochs.current(repository);
        let absent = !revalidate && self.0.negatives.recall(repository, Object::Manifest(reference.clone())).is_some();
        // Of a repository that is withheld upstream is asked in any case; its own answer is one that may go out.
        let withheld = upstream.is_denied(repository);
        if absent || upstream.sealed || !withheld && self.0.is_stored(repository, reference).await? {
            return Ok(self.manifest(request).await?.into());
        }
        if let Reference::Tag(tag) = reference
            && !revalidate
            && !withheld
            && let Some(known) = self.0.named.recall(repository, tag, upstream.freshness.of(repository), epoch)
            && accept.allows(&known.media_type)
        {
            return Ok(known);
        }
        let inner = Arc::clone(&self.0);
        let key = (repository.clone(), reference.clone(), epoch);
        let (of, what, begun) = key.clone();
        let work = || async move { inner.ask_presence(&of, &what, begun).await };
        let waiter = self.0.presence_flights.join(key, &self.0.tasks, work);
        let first = waiter.first;
        let mut presence = waiter.result().await.ok_or(CacheError::Aborted)??;
        if presence.media_type.is_specific() && !accept.allows(&presence.media_type) {
            return Ok(self.manifest(request).await?.into());
        }
        if !first && presence.provenance.status == CacheStatus::Miss {
            presence.provenance.status = CacheStatus::Coalesced;
        }
        Ok(presence)
    }
}

impl Inner {
    async fn is_stored(&self, repository: &Repository, reference: &Reference) -> Result<bool, CacheError> {
        let digest = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(tag) => self.tag_state(repository, tag).await.map(|state| state.digest),
        };
        Ok(match digest {
            Some(digest) => self.stored_manifest(repository, &digest).await?.is_some(),
            None => false,
        })
    }

    /// Upstream's own answer to a HEAD; the whole manifest only where that says too little.
    async fn ask_presence(
        &self,
        repository: &Repository,
        reference: &Reference,
        begun: Epoch,
    ) -> Result<ManifestPresence, CacheError> {
        let upstream = self.upstream(repository)?;
        let head = upstream.ask(Some(repository), upstream.client.head_manifest(&repository.name, reference)).await;
        let head = match head {
            Ok(head) => head,
            Err(error) => {
                self.note_absence(repository, Object::Manifest(reference.clone()), &error, begun).await;
                return Err(error.into());
            }
        };
        let fetched = match head {
            ManifestHead { document: Some(document), .. } => {
                self.take_in(repository, reference, document, begun).await?
            }
            ManifestHead { digest: Some(digest), media_type, length: Some(length), relayed, .. }
                if is_of(reference, &digest) =>
            {
                let Some(media_type) = media_type.or_else(|| OCTETS.parse().ok()) else {
                    return Err(CacheError::Aborted);
                };
                let said = ManifestPresence { digest, media_type, length, provenance: of_head().relayed(&relayed) };
                // A type of no use is the document's business; that may not be had, and then the registry's word stands.
                let fetched = if said.media_type.is_specific() {
                    None
                } else {
                    Some(self.fetch(repository, reference, begun).await)
                };
                match fetched {
                    Some(Ok(fetched)) => fetched,
                    Some(Err(_)) => return Ok(said),
                    None => {
                        if let Reference::Tag(tag) = reference {
                            let seen = self.seen(repository, tag, &relayed);
                            self.note_named((repository, tag), &said, seen, begun).await;
                        }
                        return Ok(said);
                    }
                }
            }
            _ => self.fetch(repository, reference, begun).await?,
        };
        Ok(fetched.into())
    }

    /// A tag names a manifest: that is kept with the manifest, which may be here already.
    async fn note_named(
        &self,
        (repository, tag): (&Repository, &Tag),
        said: &ManifestPresence,
        seen: SystemTime,
        begun: Epoch,
    ) {
        let Some(_keeping) = self.epochs.keep(repository, begun).await else { return };
        self.negatives.forget(repository, Object::Manifest(Reference::Tag(tag.clone())));
        if self.memory.get(repository, &said.digest).is_some() || self.is_linked(repository, &said.digest).await {
            self.keep_tag(repository, tag, said.digest, seen).await;
        } else {
            self.named.note(repository, tag, said, seen, begun);
        }
    }

    async fn is_linked(&self, repository: &Repository, digest: &Digest) -> bool {
        log_and_ignore("read the link of", digest, self.store.manifest_type(repository, digest).await)
            .flatten()
            .is_some()
    }
}

/// Upstream's own answer to a HEAD, of which nothing is stored.
fn of_head() -> Provenance {
    Provenance { stored: false, ..Provenance::new(CacheStatus::Miss) }
}

/// Whether an answer that names `digest` is one to `reference`.
fn is_of(reference: &Reference, digest: &Digest) -> bool {
    match reference {
        Reference::Digest(asked) => asked == digest,
        Reference::Tag(_) => true,
    }
}
