//! The heart: decides whether what is stored may be the answer, and gets it from upstream if not.
//!
//! * A stored manifest or blob answers only for a repository that it is vouched for (`vouch`); without that, upstream decides once.
//! * Content that is asked for by many is fetched once: manifests and lists by flights, blobs by fills.
//! * What never changes (digests) is never asked for again. What can (tags, lists) is served for its time, then revalidated; when
//!   upstream fails or is slow, the stored answer goes out marked stale.
//! * What clients push goes upstream as it comes; what upstream takes is kept, too.
//! * Nothing here knows HTTP: answers say what they are and why, and `server` turns them into responses.

mod answer;
mod batch;
mod blob;
mod documents;
mod epochs;
mod error;
mod fill;
mod freshness;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod negative;
mod offline_misses;
mod single_flight;
mod stale_on_error;
mod tasks;
mod upstream_state;
mod write;

pub use answer::{BlobAnswer, Content, ListAnswer, ManifestAnswer, MetadataAnswer, Provenance, StoredManifest};
pub use blob::multi_range::MultiRange;
pub use blob::query::BlobQuery;
pub use documents::lists::{Entries, List, ListPage};
pub use documents::manifests::ManifestRequest;
pub use documents::presence::ManifestPresence;
pub use error::CacheError;
pub use fill::transfer::Transfer;
pub use fill::{Follower, Step};
pub use offline_misses::OfflineMiss;
pub use upstream_state::condition::Condition;
pub use write::arrive::ArrivingTag;
pub use write::purge::{Purge, Purged};
pub use write::put::{Put, Taken};
pub use write::removal::Removal;
pub use write::upload::{BodyLost, UploadBody, Uploaded};

use crate::config::{AccessRule, Limits, UpstreamSettings};
use crate::oci::{Code, Digest, Reference, Registry, Repository, Tag};
use crate::store::{ListKey, Store, StoreError};
use crate::telemetry::Metrics;
use crate::upstream::{BlobHead, Documents, Upstream, UpstreamError};
use epochs::{Epoch, Epochs};
use freshness::TagState;
use http::HeaderMap;
use single_flight::SingleFlight;
use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use tokio::sync::Semaphore;
use upstream_state::state::UpstreamState;

/// The cache; a cheap clone.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    store: Store,
    metrics: Arc<Metrics>,
    limits: Limits,
    upstreams: HashMap<Registry, Arc<UpstreamState>>,
    restrictions: blob::vouch::Restrictions,
    documents: Documents,
    memory: documents::memory::ManifestMemory,
    tags: quick_cache::sync::Cache<(Repository, Tag), TagState>,
    lists: documents::memory::ListMemory,
    metadata: documents::metadata::Metadata,
    negatives: negative::Negatives,
    named: documents::presence::Named,
    missing: offline_misses::OfflineMisses,
    epochs: Arc<Epochs>,
    manifest_flights: SingleFlight<(Repository, Reference, Epoch), Result<documents::manifests::Fetched, CacheError>>,
    presence_flights:
        SingleFlight<(Repository, Reference, Epoch), Result<documents::presence::ManifestPresence, CacheError>>,
    head_flights: SingleFlight<(Repository, Digest, Epoch), Result<BlobHead, UpstreamError>>,
    list_flights: SingleFlight<(ListKey, Epoch), Result<documents::lists::ListState, CacheError>>,
    fills: fill::Fills,
    uploads: write::upload::Uploads,
    list_readers: Semaphore,
    tasks: tasks::Tasks,
}

impl Cache {
    /// Joins the store and the upstreams. `rules` say which repositories are not for everybody to pull. To be called in a runtime.
    #[must_use]
    pub fn new(
        store: Store,
        upstreams: Vec<(UpstreamSettings, Upstream)>,
        rules: &[AccessRule],
        limits: &Limits,
        metrics: Arc<Metrics>,
    ) -> Self {
        let registries: Vec<Registry> = upstreams.iter().map(|(settings, _)| settings.name.clone()).collect();
        let documents = upstreams.first().map(|(_, upstream)| upstream.documents().clone());
        let upstreams = upstreams.into_iter().map(|(settings, upstream)| {
            metrics.expect_upstream(settings.name.as_str());
            let upstream = UpstreamState::new(upstream, &settings, limits.negative_entries, Arc::clone(&metrics));
            (settings.name.clone(), Arc::new(upstream))
        });
        let inner = Arc::new(Inner {
            upstreams: upstreams.collect(),
            restrictions: blob::vouch::Restrictions::new(rules),
            documents: documents.unwrap_or_else(|| Documents::new(limits.document_memory)),
            memory: documents::memory::ManifestMemory::new(limits.manifest_memory),
            tags: quick_cache::sync::Cache::new(limits.tag_entries),
            lists: documents::memory::ListMemory::new(limits.list_memory),
            metadata: documents::metadata::Metadata::new(limits.metadata_memory),
            negatives: negative::Negatives::new(limits.negative_entries),
            named: documents::presence::Named::new(limits.negative_entries),
            missing: offline_misses::OfflineMisses::default(),
            epochs: Arc::new(Epochs::new(registries)),
            manifest_flights: SingleFlight::default(),
            presence_flights: SingleFlight::default(),
            head_flights: SingleFlight::default(),
            list_flights: SingleFlight::default(),
            fills: fill::Fills::new(limits.fills),
            uploads: write::upload::Uploads::new(limits.uploads),
            list_readers: Semaphore::new(documents::lists::READERS),
            tasks: tasks::Tasks::default(),
            limits: limits.clone(),
            store,
            metrics,
        });
        let watching = Arc::downgrade(&inner);
        inner.tasks.spawn(upstream_state::availability::watch(watching));
        Self(inner)
    }

    /// What the store asks before it removes what registries have given.
    #[must_use]
    pub fn away_registries(&self) -> Arc<dyn crate::store::AwayRegistries> {
        Arc::new(upstream_state::state::Upstreams(self.0.upstreams.clone()))
    }

    /// The bounds of everything.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Memory for large documents, for whoever holds one of its own.
    #[must_use]
    pub fn documents(&self) -> &Documents {
        &self.0.documents
    }

    /// What was asked of sealed upstreams since the start and is not stored, most wanted first.
    #[must_use]
    pub fn missing(&self) -> Vec<OfflineMiss> {
        self.0.missing.list()
    }

    /// Notes the larders that a request for something of `registry` has passed (`Via`).
    ///
    /// # Errors
    /// If it has passed this one before.
    pub fn note_passers(&self, registry: &Registry, headers: &HeaderMap) -> Result<(), CacheError> {
        if self.0.upstream_of(registry)?.client.note_passers(headers) {
            return Ok(());
        }
        Err(CacheError::Circle { registry: registry.clone() })
    }
}

impl Inner {
    fn upstream(&self, repository: &Repository) -> Result<&Arc<UpstreamState>, CacheError> {
        self.upstream_of(&repository.registry)
    }

    /// Every registry that a request can name is configured, since requests are resolved against the same list.
    fn upstream_of(&self, registry: &Registry) -> Result<&Arc<UpstreamState>, CacheError> {
        self.upstreams.get(registry).ok_or(CacheError::Aborted)
    }

    /// The answer to a request for what a sealed upstream would have to be asked for.
    fn sealed(&self, repository: &Repository, reference: &Reference, code: Code) -> CacheError {
        self.missing.note(repository, reference);
        let what = match reference {
            Reference::Tag(tag) => format!("{repository}:{tag}"),
            Reference::Digest(digest) => format!("{repository}@{digest}"),
        };
        CacheError::Sealed { what, registry: repository.registry.clone(), code }
    }

    /// Remembers for a moment that upstream does not have it, if that is what `error` says and was so since `begun`.
    async fn note_absence(
        &self,
        repository: &Repository,
        object: negative::Object,
        error: &UpstreamError,
        begun: Epoch,
    ) {
        if let (Ok(upstream), Some(_keeping)) = (self.upstream(repository), self.epochs.keep(repository, begun).await) {
            self.negatives.note(repository, object, error, upstream.freshness.of(repository).negative_ttl);
        }
    }
}

/// Logs a failure of the store, which never fails a pull: what cannot be read is absent, what cannot be kept is not kept.
fn log_and_ignore<T>(attempt: &str, what: impl Display, result: Result<T, StoreError>) -> Option<T> {
    result.inspect_err(|error| tracing::error!(%error, "could not {attempt} {what}")).ok()
}
