//! Answers to requests for manifests: by digest, which never changes, and by tag, which may.

use crate::cache::answer::{ManifestAnswer, Provenance, StoredManifest};
use crate::cache::documents::presence::ManifestPresence;
use crate::cache::epochs::Epoch;
use crate::cache::error::CacheError;
use crate::cache::freshness::{Age, Freshness, TagState};
use crate::cache::negative::Object;
use crate::cache::upstream_state::state::UpstreamState;
use crate::cache::{Cache, Inner, log_and_ignore};
use crate::oci::{self, Accept, Algorithm, Code, Digest, Reference, Registry, Repository, Tag};
use crate::store::TagLink;
use crate::telemetry::CacheStatus;
use crate::upstream::{ErrorKind, FetchedManifest, ManifestHead, Relayed, Room, Unconfirmed, UpstreamError, parse};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long a client that cannot read the stored type waits for upstream to say what it has instead.
const CONVERSION_WAIT: Duration = Duration::from_secs(5);

/// A request for a manifest.
#[derive(Clone, Copy, Debug)]
pub struct ManifestRequest<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// Tag or digest.
    pub reference: &'a Reference,
    /// What the client can read.
    pub accept: &'a Accept,
    /// Whether a stored tag must be revalidated first (`Cache-Control: no-cache`).
    pub revalidate: bool,
}

/// How a fetch or a revalidation ended.
#[derive(Clone, Debug)]
pub(in crate::cache) struct Fetched {
    manifest: Arc<StoredManifest>,
    /// Whether upstream sent the document, rather than saying that the stored one holds.
    sent: bool,
    kept: bool,
    relayed: Relayed,
}

impl Cache {
    /// The manifest, from memory, disk or upstream. The answer to HEAD is the same.
    pub async fn manifest(&self, request: ManifestRequest<'_>) -> Result<ManifestAnswer, CacheError> {
        let ManifestRequest { repository, reference, accept, .. } = request;
        let upstream = self.0.upstream(repository)?;
        if upstream.is_denied(repository) {
            upstream.ask(Some(repository), upstream.client.head_manifest(&repository.name, reference)).await?;
        }
        let answer = match reference {
            Reference::Digest(digest) => self.by_digest(request, upstream, digest).await?,
            Reference::Tag(tag) => self.by_tag(request, upstream, tag).await?,
        };
        if accept.allows(&answer.manifest.media_type) || upstream.sealed {
            return Ok(answer);
        }
        let Some(converted) = self.converted(request, upstream).await else { return Ok(answer) };
        match converted {
            Ok(fetched) => {
                let manifest = Arc::new(verified(&repository.registry, reference, fetched)?.manifest);
                Ok(ManifestAnswer { manifest, provenance: Provenance::new(CacheStatus::Bypass) })
            }
            Err(error) if error.is_outage() => Ok(answer),
            Err(error) => Err(error.into()),
        }
    }

    /// Upstream's own answer to what the client can read; `None`: not in time. The request goes on: it may find upstream well again.
    async fn converted(
        &self,
        request: ManifestRequest<'_>,
        upstream: &Arc<UpstreamState>,
    ) -> Option<Result<FetchedManifest, UpstreamError>> {
        let limit = if upstream.is_slow() { Duration::ZERO } else { CONVERSION_WAIT };
        let (repository, reference, accept) =
            (request.repository.clone(), request.reference.clone(), request.accept.clone());
        let (sender, receiver) = oneshot::channel();
        let asked = Arc::clone(upstream);
        self.0.tasks.spawn(async move {
            let get = asked.client.get_manifest(&repository.name, &reference, &accept);
            // Whoever asked may have stopped waiting.
            let _ = sender.send(asked.ask(Some(&repository), get).await);
        });
        let converted = timeout(limit, receiver).await.inspect_err(|_| upstream.kept_waiting());
        converted.ok()?.ok()
    }

    async fn by_digest(
        &self,
        request: ManifestRequest<'_>,
        upstream: &UpstreamState,
        digest: &Digest,
    ) -> Result<ManifestAnswer, CacheError> {
        let epoch = self.0.epochs.current(request.repository);
        if let Some(manifest) = self.0.stored_manifest(request.repository, digest).await? {
            return Ok(ManifestAnswer { manifest, provenance: Provenance::new(CacheStatus::Hit) });
        }
        self.cold(request, upstream, epoch).await
    }

    async fn by_tag(
        &self,
        request: ManifestRequest<'_>,
        upstream: &UpstreamState,
        tag: &Tag,
    ) -> Result<ManifestAnswer, CacheError> {
        let repository = request.repository;
        let epoch = self.0.epochs.current(repository);
        let Some(state) = self.0.tag_state(repository, tag).await else {
            return self.cold(request, upstream, epoch).await;
        };
        let Some(manifest) = self.0.stored_manifest(repository, &state.digest).await? else {
            return self.cold(request, upstream, epoch).await;
        };
        let freshness = upstream.freshness.of(repository);
        let ttl = freshness.left(tag, &state.age);
        if upstream.sealed || freshness.is_fresh(tag, &state) && !request.revalidate {
            return Ok(ManifestAnswer { manifest, provenance: Provenance::new(CacheStatus::Hit).with_ttl(ttl) });
        }
        let too_old = freshness.max_stale.filter(|limit| state.age.exceeds(*limit));
        let stand_in = |why: Arc<str>| {
            if let Some(limit) = too_old {
                return Err(CacheError::TooOld { age: state.age.words(), limit, outage: why });
            }
            let provenance = Provenance::new(CacheStatus::Stale).with_ttl(ttl).with_outage(why);
            Ok(ManifestAnswer { manifest: Arc::clone(&manifest), provenance })
        };
        if !state.age.may_ask() {
            return stand_in(upstream.outage());
        }
        let inner = Arc::clone(&self.0);
        let key = (repository.clone(), request.reference.clone(), epoch);
        let (for_task, for_tag) = (repository.clone(), tag.clone());
        let current = Arc::clone(&manifest);
        let waiter = self.0.manifest_flights.join(key, &self.0.tasks, || async move {
            inner.revalidate(&for_task, &for_tag, state, current, epoch).await
        });
        let first = waiter.first;
        let patience = if too_old.is_some() { Duration::MAX } else { upstream.revalidate_wait() };
        match timeout(patience, waiter.result()).await {
            Ok(Some(Ok(Fetched { relayed: Relayed { stale: Some(unconfirmed), .. }, .. }))) if too_old.is_some() => {
                stand_in(unconfirmed.why)
            }
            Ok(Some(Ok(fetched))) => {
                let provenance = fetched.provenance(first, freshness, tag);
                Ok(ManifestAnswer { manifest: fetched.manifest, provenance })
            }
            Ok(Some(Err(CacheError::Upstream(error)))) => match error.kind() {
                ErrorKind::NotFound { .. } | ErrorKind::RepositoryRefused { .. } => Err(error.into()),
                _ => stand_in(error.to_string().into()),
            },
            Ok(Some(Err(error))) => stand_in(error.to_string().into()),
            Ok(None) => stand_in(upstream.outage()),
            Err(_) => {
                upstream.kept_waiting();
                stand_in(upstream.outage())
            }
        }
    }

    /// Nothing is stored: upstream is asked, once for everybody who asks meanwhile.
    async fn cold(
        &self,
        request: ManifestRequest<'_>,
        upstream: &UpstreamState,
        epoch: Epoch,
    ) -> Result<ManifestAnswer, CacheError> {
        let ManifestRequest { repository, reference, .. } = request;
        if !request.revalidate
            && let Some(absence) = self.0.negatives.recall(repository, Object::Manifest(reference.clone()))
        {
            return Err(absence.into());
        }
        if upstream.sealed {
            return Err(self.0.sealed(repository, reference, Code::ManifestUnknown));
        }
        let inner = Arc::clone(&self.0);
        let key = (repository.clone(), reference.clone(), epoch);
        let (of, what, begun) = key.clone();
        let waiter =
            self.0.manifest_flights.join(key, &self.0.tasks, || async move { inner.fetch(&of, &what, begun).await });
        let first = waiter.first;
        let fetched = waiter.result().await.ok_or(CacheError::Aborted)??;
        let mut provenance = match reference {
            Reference::Tag(tag) => fetched.provenance(first, upstream.freshness.of(repository), tag),
            Reference::Digest(_) => Provenance::new(fetched.status(first)).relayed(&fetched.relayed),
        };
        provenance.stored = fetched.kept;
        Ok(ManifestAnswer { manifest: fetched.manifest, provenance })
    }
}

impl Fetched {
    /// Where what `tag` names came from, and for how long it is good.
    fn provenance(&self, first: bool, freshness: &Freshness, tag: &Tag) -> Provenance {
        let unconfirmed = self.relayed.stale.as_ref();
        let age = unconfirmed.map_or_else(Age::new, |stale| Age::since(last_confirmed(stale, freshness.ttl_of(tag))));
        Provenance::new(self.status(first)).with_ttl(freshness.left(tag, &age)).relayed(&self.relayed)
    }

    fn status(&self, first: bool) -> CacheStatus {
        match (self.sent, first, self.kept) {
            (false, ..) => CacheStatus::Revalidated,
            (true, true, true) => CacheStatus::Miss,
            (true, true, false) => CacheStatus::Bypass,
            (true, false, _) => CacheStatus::Coalesced,
        }
    }
}

impl From<Fetched> for ManifestPresence {
    fn from(fetched: Fetched) -> Self {
        let mut provenance = Provenance::new(fetched.status(true)).relayed(&fetched.relayed);
        provenance.stored = fetched.kept;
        ManifestAnswer { manifest: fetched.manifest, provenance }.into()
    }
}

impl Inner {
    /// The manifest, if it may answer for `repository`: memory first, then a link and the blob behind it.
    ///
    /// # Errors
    /// If it is large and there is no room for it.
    pub(in crate::cache) async fn stored_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Arc<StoredManifest>>, CacheError> {
        if let Some(manifest) = self.memory.get(repository, digest) {
            self.store.used(digest);
            return Ok(Some(manifest));
        }
        let length = self.store.length(digest).and_then(|length| usize::try_from(length).ok());
        // What is longer is no manifest, and is not read.
        let room = self.documents.room(length.unwrap_or_default().min(oci::MAX_MANIFEST)).await?;
        let _looking = self.epochs.look(repository).await;
        let media_type = log_and_ignore("read the link of", digest, self.store.manifest_type(repository, digest).await);
        let Some(media_type) = media_type.flatten() else { return Ok(None) };
        let content = log_and_ignore("read", digest, self.store.read_small(digest).await).flatten();
        let Some(content) = content.map(|content| Room::around(room, content)) else { return Ok(None) };
        let manifest = Arc::new(StoredManifest { content, digest: *digest, media_type });
        self.memory.insert(repository, Arc::clone(&manifest));
        Ok(Some(manifest))
    }

    pub(in crate::cache) async fn tag_state(&self, repository: &Repository, tag: &Tag) -> Option<TagState> {
        let key = (repository.clone(), tag.clone());
        if let Some(state) = self.tags.get(&key) {
            return Some(state);
        }
        let _looking = self.epochs.look(repository).await;
        let link = log_and_ignore("read the tag", tag, self.store.tag(repository, tag).await)??;
        let state = TagState::from(link);
        self.tags.insert(key, state);
        Some(state)
    }

    /// Asks upstream whether `tag` still names `current`; a HEAD, and the document only if it moved.
    async fn revalidate(
        &self,
        repository: &Repository,
        tag: &Tag,
        state: TagState,
        current: Arc<StoredManifest>,
        begun: Epoch,
    ) -> Result<Fetched, CacheError> {
        let upstream = self.upstream(repository)?;
        let reference = Reference::Tag(tag.clone());
        let head = upstream.ask(Some(repository), upstream.client.head_manifest(&repository.name, &reference)).await;
        match head {
            Ok(head) if head.digest == Some(state.digest) => {
                let keeping = self.epochs.keep(repository, begun).await;
                if keeping.is_some() && head.relayed.stale.is_none() {
                    self.keep_tag(repository, tag, state.digest, SystemTime::now()).await;
                }
                Ok(Fetched { manifest: current, sent: false, kept: keeping.is_some(), relayed: head.relayed })
            }
            Ok(ManifestHead { document: Some(document), .. }) => {
                self.take_in(repository, &reference, document, begun).await
            }
            Ok(_) => self.fetch(repository, &reference, begun).await,
            Err(error) => {
                self.note_failure(repository, tag, state, &error, begun).await;
                Err(error.into())
            }
        }
    }

    async fn note_failure(
        &self,
        repository: &Repository,
        tag: &Tag,
        state: TagState,
        error: &UpstreamError,
        begun: Epoch,
    ) {
        let key = (repository.clone(), tag.clone());
        self.note_absence(repository, Object::Manifest(Reference::Tag(tag.clone())), error, begun).await;
        let Some(_keeping) = self.epochs.keep(repository, begun).await else { return };
        if let ErrorKind::NotFound { .. } = error.kind() {
            self.tags.remove(&key);
            log_and_ignore("forget the tag", tag, self.store.remove_tag(repository, tag).await);
        } else {
            self.tags.insert(key, TagState { age: state.age.postponed(), ..state });
        }
    }

    /// Gets the document from upstream, verifies it, keeps it and links it.
    pub(in crate::cache) async fn fetch(
        &self,
        repository: &Repository,
        reference: &Reference,
        begun: Epoch,
    ) -> Result<Fetched, CacheError> {
        let upstream = self.upstream(repository)?;
        let everything = Accept::default();
        let request = upstream.client.get_manifest(&repository.name, reference, &everything);
        match upstream.ask(Some(repository), request).await {
            Ok(fetched) => self.take_in(repository, reference, fetched, begun).await,
            Err(error) => {
                self.note_absence(repository, Object::Manifest(reference.clone()), &error, begun).await;
                Err(error.into())
            }
        }
    }

    /// Verifies what upstream has sent, keeps it and links it.
    pub(in crate::cache) async fn take_in(
        &self,
        repository: &Repository,
        reference: &Reference,
        fetched: FetchedManifest,
        begun: Epoch,
    ) -> Result<Fetched, CacheError> {
        let relayed = fetched.relayed.clone();
        let (manifest, signed) = match verified(&repository.registry, reference, fetched) {
            Ok(Verified { manifest, signed }) => (Arc::new(manifest), signed),
            Err(error) => {
                self.metrics.digest_failures.with_label_values(&["fill"]).inc();
                return Err(error);
            }
        };
        let Some(_keeping) = self.epochs.keep(repository, begun).await else {
            return Ok(Fetched { manifest, sent: true, kept: false, relayed });
        };
        self.negatives.forget(repository, Object::Manifest(reference.clone()));
        // A file is named by the digest of all its bytes.
        let kept = !signed && self.keep_manifest(repository, &manifest).await;
        let named = match reference {
            Reference::Tag(tag) => Some((tag.clone(), self.seen(repository, tag, &relayed))),
            Reference::Digest(digest) => self.named.take(repository, *digest, begun),
        };
        if let (Some((tag, seen)), true) = (named, kept) {
            self.keep_tag(repository, &tag, manifest.digest, seen).await;
        }
        Ok(Fetched { manifest, sent: true, kept, relayed })
    }

    /// When upstream has confirmed what it says of `tag` now.
    pub(in crate::cache) fn seen(&self, repository: &Repository, tag: &Tag, relayed: &Relayed) -> SystemTime {
        match (&relayed.stale, self.upstream(repository)) {
            (Some(stale), Ok(upstream)) => last_confirmed(stale, upstream.freshness.of(repository).ttl_of(tag)),
            _ => SystemTime::now(),
        }
    }

    /// Bytes first, then the link that vouches for them. A store that fails makes the answer one that is not kept. Only under leave to
    /// keep.
    pub(in crate::cache) async fn keep_manifest(
        &self,
        repository: &Repository,
        manifest: &Arc<StoredManifest>,
    ) -> bool {
        let StoredManifest { content, digest, media_type } = &**manifest;
        let children = parse(content).await.unwrap_or_default();
        let kept = match self.store.put_small(digest, content.clone()).await {
            Ok(()) => self.store.link_manifest(repository, digest, media_type, &children).await,
            Err(error) => Err(error),
        };
        let kept = log_and_ignore("keep the manifest", digest, kept).is_some();
        if kept {
            self.memory.insert(repository, Arc::clone(manifest));
        }
        kept
    }

    /// What `tag` named when it was seen.
    pub(in crate::cache) async fn keep_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: Digest,
        seen: SystemTime,
    ) {
        let link = TagLink { digest, seen };
        log_and_ignore("keep the tag", tag, self.store.set_tag(repository, tag, link).await);
        self.tags.insert((repository.clone(), tag.clone()), TagState { digest, age: Age::since(seen) });
    }
}

/// When another larder could last confirm what it calls stale, if content is good there for as long as here.
pub(in crate::cache) fn last_confirmed(stale: &Unconfirmed, ttl: Duration) -> SystemTime {
    SystemTime::now().checked_sub(ttl.saturating_add(stale.late)).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A document that is what was asked for.
struct Verified {
    manifest: StoredManifest,
    /// Whether its digest is that of its payload (Docker's schema 1), and not of its bytes.
    signed: bool,
}

/// The document, if it is what was asked for.
fn verified(registry: &Registry, reference: &Reference, fetched: FetchedManifest) -> Result<Verified, CacheError> {
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
