//! The heart: decides whether what is stored may be the answer, and gets it from upstream if not.
//!
//! * A stored manifest or blob answers only for a repository that it is vouched for (`vouch`); without that, upstream decides once.
//! * Content that is asked for by many is fetched once: manifests and lists by flights (`documents`), blobs by fills (`fill`).
//! * What never changes (digests) is never asked for again. What can (tags, lists) is served for its time, then revalidated. When
//!   upstream fails or is slow, the stored answer goes out marked stale (`stale_on_error`).
//! * What clients push goes upstream as it comes; what upstream takes is stored, too (`write`).
//! * Nothing here knows HTTP: answers say what they are and why, and `server` turns them into responses.
//!
//! [`Cache`] takes one `View` per request and hands it to the component that answers. `assemble` joins the components.

mod assemble;
mod batch;
mod blob;
mod documents;
mod epochs;
mod error;
mod fill;
mod freshness;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod log;
mod negative;
mod offline_misses;
mod pending_commits;
mod provenance;
mod single_flight;
mod stale_on_error;
mod tasks;
mod upload_body;
mod upstream_state;
mod view;
mod vouch;
mod write;

pub use blob::{BlobAnswer, BlobQuery, Content, MultiRange};
pub use documents::{
    Entries, List, ListAnswer, ListPage, ManifestAnswer, ManifestPresence, ManifestRequest, MetadataAnswer,
    StoredManifest,
};
pub use error::CacheError;
pub use fill::{Follower, Step, Transfer};
pub use offline_misses::OfflineMiss;
pub use provenance::Provenance;
pub use upload_body::{BodyLost, UploadBody};
pub use upstream_state::Condition;
pub use write::{ArrivingTag, Purge, Purged, Put, Removal, Taken, Uploaded};

use crate::config::{AccessRule, Limits, UpstreamSettings};
use crate::oci::{Digest, MediaType, Reference, Registry, Repository};
use crate::store::{AwayRegistries, ListKey, Store};
use crate::telemetry::Metrics;
use crate::upstream::{AcrAnswer, AcrRequest, BodyHeaders, Documents, UploadStart, UploadStep, Upstream};
use assemble::{Components, assemble};
use documents::Question;
use http::HeaderMap;
use std::sync::Arc;
use view::RepositoryView;

/// The cache; a cheap clone.
#[derive(Clone)]
pub struct Cache(Arc<Components>);

impl Cache {
    /// Joins the store and the upstreams. `rules` say which repositories not every caller may pull. To be called in a runtime.
    #[must_use]
    pub fn new(
        store: Store,
        upstreams: Vec<(UpstreamSettings, Upstream)>,
        rules: &[AccessRule],
        limits: &Limits,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self(Arc::new(assemble(store, upstreams, rules, limits, metrics)))
    }

    /// The bounds of everything.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The memory for large documents, for those that hold one of their own.
    #[must_use]
    pub fn documents(&self) -> &Documents {
        &self.0.documents
    }

    /// Reads what earlier processes were asked for in vain; before the first request.
    pub async fn recall_missing(&self, store: &Store) {
        self.0.misses.recall(store).await;
    }

    /// Writes down what was asked for in vain, if that has changed.
    pub async fn keep_missing(&self, store: &Store) {
        self.0.misses.keep(store).await;
    }

    /// Writes it down again and again.
    pub async fn follow_missing(self, store: Store) {
        self.0.misses.follow(&store).await;
    }

    /// Forgets of what was asked for in vain what has come.
    pub fn forget_missing(&self, repository: &Repository, has_come: impl Fn(&Reference) -> bool) {
        self.0.misses.forget(repository, has_come);
    }

    /// What was asked of sealed upstreams and is not stored, most wanted first.
    #[must_use]
    pub fn missing(&self) -> Vec<OfflineMiss> {
        self.0.misses.list()
    }

    /// How an upstream does at the moment.
    #[must_use]
    pub fn condition(&self, registry: &Registry) -> Condition {
        self.0.upstreams.condition(registry)
    }

    /// What the store asks before it removes what registries have given.
    #[must_use]
    pub fn away_registries(&self) -> Arc<dyn AwayRegistries> {
        Arc::clone(&self.0.upstreams) as Arc<dyn AwayRegistries>
    }

    /// Notes the larders that a request for something of `registry` has passed (`Via`).
    ///
    /// # Errors
    /// If it has passed this one before.
    pub fn note_passers(&self, registry: &Registry, headers: &HeaderMap) -> Result<(), CacheError> {
        if self.0.upstreams.get(registry)?.note_passers(headers) {
            return Ok(());
        }
        Err(CacheError::Circle { registry: registry.clone() })
    }

    /// The blob, or what is wanted of it.
    pub async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        query: BlobQuery<'_>,
    ) -> Result<BlobAnswer, CacheError> {
        self.0.blobs.get(self.0.views.of(repository)?, digest, query).await
    }

    /// The manifest, from memory, disk or upstream.
    pub async fn manifest(&self, request: ManifestRequest<'_>) -> Result<ManifestAnswer, CacheError> {
        self.0.manifests.get(&self.0.views.of(request.repository)?, request).await
    }

    /// What the head of the answer to GET would say.
    pub async fn manifest_head(&self, request: ManifestRequest<'_>) -> Result<ManifestPresence, CacheError> {
        self.0.presences.head(&self.0.views.of(request.repository)?, request).await
    }

    /// The list. `query` goes to upstream where the list is too long to be kept.
    pub async fn list(&self, key: &ListKey, query: &str, revalidate: bool) -> Result<ListAnswer, CacheError> {
        let view = self.0.views.take(key.registry(), key.clone())?;
        self.0.lists.get(&view, query, revalidate).await
    }

    /// What ACR's own API of `registry` says to a question.
    pub async fn metadata(
        &self,
        registry: &Registry,
        request: AcrRequest,
        revalidate: bool,
    ) -> Result<MetadataAnswer, CacheError> {
        let view = self.0.views.take(registry, Question::new(registry, &request))?;
        self.0.metadata.get(&view, request, revalidate).await
    }
}

/// Writes. Those that are sent whole run to their end, though the client may leave: what upstream was sent is then known here.
impl Cache {
    fn writable(&self, repository: &Repository) -> Result<RepositoryView, CacheError> {
        self.0.upstreams.writable(&repository.registry)?;
        self.0.views.of(repository)
    }

    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, CacheError>> + Send + 'static,
    ) -> Result<T, CacheError> {
        self.0.tasks.run(work).await.unwrap_or(Err(CacheError::Aborted))
    }

    /// Puts a manifest upstream, and stores it here.
    pub async fn put_manifest(&self, put: Put) -> Result<Taken, CacheError> {
        let (puts, view) = (Arc::clone(&self.0.puts), self.writable(&put.repository)?);
        self.to_its_end(async move { puts.put(&view.upstream, &put).await }).await
    }

    /// Deletes a manifest with its tags, or a tag.
    pub async fn delete_manifest(&self, repository: &Repository, reference: &Reference) -> Result<(), CacheError> {
        self.delete(match reference {
            Reference::Tag(tag) => Removal::Tag(repository.clone(), tag.clone()),
            Reference::Digest(digest) => Removal::Manifest(repository.clone(), *digest),
        })
        .await
    }

    /// Deletes a blob.
    pub async fn delete_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), CacheError> {
        self.delete(Removal::Blob(repository.clone(), *digest)).await
    }

    async fn delete(&self, what: Removal) -> Result<(), CacheError> {
        let (removals, view) = (Arc::clone(&self.0.removals), self.writable(what.repository())?);
        self.to_its_end(async move { removals.delete(&view, &what).await }).await
    }

    /// Changes or deletes something of `repository` by ACR's own API. `removal` is what the request removes, or hides.
    pub async fn change_acr(
        &self,
        repository: &Repository,
        request: AcrRequest,
        removal: Option<Removal>,
    ) -> Result<AcrAnswer, CacheError> {
        let (removals, view) = (Arc::clone(&self.0.removals), self.writable(repository)?);
        self.to_its_end(async move { removals.acr(&view, &request, removal.as_ref()).await }).await
    }

    /// Begins an upload, mounts a blob, or takes one whole.
    pub async fn begin_upload(
        &self,
        repository: &Repository,
        start: &UploadStart,
        headers: &BodyHeaders,
        body: impl UploadBody,
    ) -> Result<Uploaded, CacheError> {
        let upstream = self.0.upstreams.writable(&repository.registry)?;
        self.0.uploads.begin(upstream, repository, start, headers, body).await
    }

    /// Continues a session.
    pub async fn continue_upload(
        &self,
        repository: &Repository,
        session: &str,
        step: &UploadStep,
        headers: &BodyHeaders,
        body: impl UploadBody,
    ) -> Result<Uploaded, CacheError> {
        let upstream = self.0.upstreams.writable(&repository.registry)?;
        self.0.uploads.proceed(upstream, repository, session, step, headers, body).await
    }

    /// Forgets. Downloads that run continue, and link nothing there; answers that are under way are not stored.
    pub async fn purge(&self, what: &Purge) -> Result<Purged, CacheError> {
        self.0.purges.purge(what).await
    }

    /// Links manifests that are stored, children first, then a tag. `false`: the tag here is newer, and stays.
    pub async fn arrive(
        &self,
        repository: &Repository,
        manifests: &[(Digest, MediaType)],
        tag: Option<&ArrivingTag>,
        force: bool,
    ) -> Result<bool, CacheError> {
        self.0.arrivals.arrive(repository, manifests, tag, force).await
    }
}
