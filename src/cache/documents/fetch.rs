use super::answer::{ManifestAnswer, ManifestPresence, StoredManifest};
use super::manifest_table::ManifestTable;
use super::named::Named;
use super::verify::{Verified, verified};
use crate::cache::error::CacheError;
use crate::cache::freshness::{Age, Freshness, TagState, last_confirmed};
use crate::cache::log::log_and_ignore;
use crate::cache::negative::{Negatives, Object};
use crate::cache::provenance::Provenance;
use crate::cache::view::RepositoryView;
use crate::oci::{Accept, Reference, Tag};
use crate::telemetry::{CacheStatus, Metrics};
use crate::upstream::{ErrorKind, FetchedManifest, ManifestHead, Relayed, UpstreamError};
use std::sync::Arc;
use std::time::SystemTime;

/// Gets manifests from upstream and stores them.
#[derive(Debug)]
pub(in crate::cache) struct ManifestFetcher {
    pub(super) table: Arc<ManifestTable>,
    pub(super) named: Named,
    pub(super) negatives: Arc<Negatives>,
    metrics: Arc<Metrics>,
}

/// How a fetch or a revalidation ended.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    pub(super) manifest: Arc<StoredManifest>,
    /// Whether upstream sent the document, rather than saying that the stored one holds.
    sent: bool,
    pub(super) kept: bool,
    pub(super) relayed: Relayed,
}

impl Fetched {
    /// Where what `tag` names came from, and for how long it is fresh.
    pub(super) fn provenance(&self, first: bool, freshness: &Freshness, tag: &Tag) -> Provenance {
        let unconfirmed = self.relayed.stale.as_ref();
        let age = unconfirmed.map_or_else(Age::new, |stale| Age::since(last_confirmed(stale, freshness.ttl_of(tag))));
        Provenance::new(self.status(first)).with_ttl(freshness.left(tag, &age)).relayed(&self.relayed)
    }

    pub(super) fn status(&self, first: bool) -> CacheStatus {
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

impl ManifestFetcher {
    pub(in crate::cache) fn new(
        table: Arc<ManifestTable>,
        named: Named,
        negatives: Arc<Negatives>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { table, named, negatives, metrics }
    }

    /// Asks upstream whether `tag` still names `current`: a HEAD, and the document only if the tag has moved.
    pub(super) async fn revalidate(
        &self,
        view: &RepositoryView,
        tag: &Tag,
        state: TagState,
        current: Arc<StoredManifest>,
    ) -> Result<Fetched, CacheError> {
        if let Some(manifest) = self.confirmed_since(view, tag, &state).await? {
            return Ok(Fetched { manifest, sent: false, kept: true, relayed: Relayed::default() });
        }
        let reference = Reference::Tag(tag.clone());
        match view.upstream.head_manifest(view.repository(), &reference).await {
            Ok(head) if head.digest == Some(state.digest) => {
                let permit = view.store_permit().await;
                if let (Some(permit), None) = (&permit, &head.relayed.stale) {
                    self.table.keep_tag(permit, view.repository(), tag, state.digest, SystemTime::now()).await;
                }
                Ok(Fetched { manifest: current, sent: false, kept: permit.is_some(), relayed: head.relayed })
            }
            Ok(ManifestHead { document: Some(document), .. }) => self.take_in(view, &reference, document).await,
            Ok(_) => self.fetch(view, &reference).await,
            Err(error) => {
                self.note_failure(view, tag, state, &error).await;
                Err(error.into())
            }
        }
    }

    /// What the tag names if another flight has ended since the request looked at `state`: upstream is not asked twice.
    async fn confirmed_since(
        &self,
        view: &RepositoryView,
        tag: &Tag,
        state: &TagState,
    ) -> Result<Option<Arc<StoredManifest>>, CacheError> {
        match self.table.tag(view.repository(), tag).await {
            Some(now) if now.age.is_newer_than(&state.age) => self.table.manifest(view.repository(), &now.digest).await,
            _ => Ok(None),
        }
    }

    async fn note_failure(&self, view: &RepositoryView, tag: &Tag, state: TagState, error: &UpstreamError) {
        let Some(permit) = view.store_permit().await else { return };
        let repository = view.repository();
        if let ErrorKind::NotFound { .. } = error.kind() {
            let object = Object::Manifest(Reference::Tag(tag.clone()));
            self.negatives.note(&permit, view, repository, object, error);
            log_and_ignore("forget the tag", tag, self.table.forget_tag(&permit, repository, tag).await);
        } else {
            self.table.postpone_tag(&permit, repository, tag, state);
        }
    }

    /// Gets the document from upstream, verifies it, stores it and links it.
    pub(super) async fn fetch(&self, view: &RepositoryView, reference: &Reference) -> Result<Fetched, CacheError> {
        match view.upstream.get_manifest(view.repository(), reference, &Accept::default()).await {
            Ok(fetched) => self.take_in(view, reference, fetched).await,
            Err(error) => {
                self.negatives.note_absence(view, Object::Manifest(reference.clone()), &error).await;
                Err(error.into())
            }
        }
    }

    /// Verifies what upstream has sent, stores it and links it.
    pub(super) async fn take_in(
        &self,
        view: &RepositoryView,
        reference: &Reference,
        fetched: FetchedManifest,
    ) -> Result<Fetched, CacheError> {
        let (repository, relayed) = (view.repository(), fetched.relayed.clone());
        let Verified { manifest, signed } = verified(&repository.registry, reference, fetched).inspect_err(|_| {
            self.metrics.digest_failures.with_label_values(&["fill"]).inc();
        })?;
        let manifest = Arc::new(manifest);
        let Some(permit) = view.store_permit().await else {
            return Ok(Fetched { manifest, sent: true, kept: false, relayed });
        };
        self.negatives.forget(repository, Object::Manifest(reference.clone()));
        // A file is named by the digest of all its bytes.
        let kept = !signed && self.table.keep_manifest(&permit, repository, &manifest).await;
        let named = match reference {
            Reference::Tag(tag) => Some((tag.clone(), seen(view, tag, &relayed))),
            Reference::Digest(digest) => self.named.take(view, *digest),
        };
        if let (Some((tag, seen)), true) = (named, kept) {
            self.table.keep_tag(&permit, repository, &tag, manifest.digest, seen).await;
        }
        Ok(Fetched { manifest, sent: true, kept, relayed })
    }
}

/// When upstream has confirmed what it says of `tag` now.
pub(super) fn seen(view: &RepositoryView, tag: &Tag, relayed: &Relayed) -> SystemTime {
    let ttl = || view.upstream.freshness.of(view.repository()).ttl_of(tag);
    relayed.stale.as_ref().map_or_else(SystemTime::now, |stale| last_confirmed(stale, ttl()))
}
