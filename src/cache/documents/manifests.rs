//! Answers to requests for manifests: by digest, which never changes, and by tag, which may.

use super::answer::{ManifestAnswer, StoredManifest};
use super::fetch::{Fetched, ManifestFetcher};
use super::verify::verified;
use crate::cache::epochs::Epoch;
use crate::cache::error::CacheError;
use crate::cache::freshness::TagState;
use crate::cache::negative::Object;
use crate::cache::offline_misses::OfflineMisses;
use crate::cache::provenance::Provenance;
use crate::cache::single_flight::{SingleFlight, Waiter};
use crate::cache::stale_on_error::{News, revalidate};
use crate::cache::tasks::Tasks;
use crate::cache::view::RepositoryView;
use crate::oci::{Accept, Code, Digest, Reference, Repository, Tag};
use crate::telemetry::CacheStatus;
use crate::upstream::{FetchedManifest, UpstreamError};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
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

/// Answers requests for manifests.
#[derive(Debug)]
pub(in crate::cache) struct Manifests {
    fetcher: Arc<ManifestFetcher>,
    flights: SingleFlight<((Repository, Epoch), Reference), Result<Fetched, CacheError>>,
    misses: Arc<OfflineMisses>,
    tasks: Arc<Tasks>,
}

impl Manifests {
    pub(in crate::cache) fn new(fetcher: Arc<ManifestFetcher>, misses: Arc<OfflineMisses>, tasks: Arc<Tasks>) -> Self {
        Self { fetcher, flights: SingleFlight::default(), misses, tasks }
    }

    /// The manifest, from memory, disk or upstream. The answer to HEAD is the same.
    pub(in crate::cache) async fn get(
        &self,
        view: &RepositoryView,
        request: ManifestRequest<'_>,
    ) -> Result<ManifestAnswer, CacheError> {
        let ManifestRequest { reference, accept, .. } = request;
        if view.is_denied() {
            view.upstream.head_manifest(view.repository(), reference).await?;
        }
        let answer = match reference {
            Reference::Digest(digest) => self.by_digest(view, request, digest).await?,
            Reference::Tag(tag) => self.by_tag(view, request, tag).await?,
        };
        if accept.allows(&answer.manifest.media_type) || view.upstream.sealed {
            return Ok(answer);
        }
        match self.converted(view, request).await {
            Some(Ok(fetched)) => {
                let manifest = Arc::new(verified(&view.repository().registry, reference, fetched)?.manifest);
                Ok(ManifestAnswer { manifest, provenance: Provenance::new(CacheStatus::Bypass) })
            }
            Some(Err(error)) if !error.is_outage() => Err(error.into()),
            Some(Err(_)) | None => Ok(answer),
        }
    }

    /// Upstream's own answer to what the client can read; `None`: not in time. The request continues: it may find that upstream
    /// answers again.
    async fn converted(
        &self,
        view: &RepositoryView,
        request: ManifestRequest<'_>,
    ) -> Option<Result<FetchedManifest, UpstreamError>> {
        let limit = if view.upstream.is_slow() { Duration::ZERO } else { CONVERSION_WAIT };
        let (asked, reference, accept) = (view.clone(), request.reference.clone(), request.accept.clone());
        let asking =
            self.tasks.run(async move { asked.upstream.get_manifest(asked.repository(), &reference, &accept).await });
        let converted = timeout(limit, asking).await.inspect_err(|_| view.upstream.kept_waiting());
        converted.ok()?
    }

    async fn by_digest(
        &self,
        view: &RepositoryView,
        request: ManifestRequest<'_>,
        digest: &Digest,
    ) -> Result<ManifestAnswer, CacheError> {
        match self.fetcher.table.manifest(view.repository(), digest).await? {
            Some(manifest) => Ok(ManifestAnswer { manifest, provenance: Provenance::new(CacheStatus::Hit) }),
            None => self.cold(view, request).await,
        }
    }

    async fn by_tag(
        &self,
        view: &RepositoryView,
        request: ManifestRequest<'_>,
        tag: &Tag,
    ) -> Result<ManifestAnswer, CacheError> {
        let table = &self.fetcher.table;
        let Some(state) = table.tag(view.repository(), tag).await else { return self.cold(view, request).await };
        let Some(manifest) = table.manifest(view.repository(), &state.digest).await? else {
            return self.cold(view, request).await;
        };
        let freshness = view.upstream.freshness.of(view.repository());
        let ttl = freshness.left(tag, &state.age);
        if view.upstream.sealed || freshness.is_fresh(tag, &state) && !request.revalidate {
            return Ok(ManifestAnswer { manifest, provenance: Provenance::new(CacheStatus::Hit).with_ttl(ttl) });
        }
        let too_old = freshness.max_stale.filter(|limit| state.age.exceeds(*limit));
        // One that is too old must not go out stale: upstream is waited for as long as it takes.
        let wait = if too_old.is_some() { Duration::MAX } else { view.upstream.revalidate_wait() };
        let ask = || self.revalidation(view, tag, state, &manifest);
        let why = match revalidate(&view.upstream, &state.age, wait, ask).await? {
            News::Fresh(Fetched { relayed, .. }, _) if too_old.is_some() && relayed.stale.is_some() => {
                relayed.stale.map(|unconfirmed| unconfirmed.why).unwrap_or_default()
            }
            News::Fresh(fetched, first) => {
                let provenance = fetched.provenance(first, freshness, tag);
                return Ok(ManifestAnswer { manifest: fetched.manifest, provenance });
            }
            News::Stale(why) => why,
        };
        if let Some(limit) = too_old {
            return Err(CacheError::TooOld { age: state.age.words(), limit, outage: why });
        }
        let provenance = Provenance::new(CacheStatus::Stale).with_ttl(ttl).with_outage(why);
        Ok(ManifestAnswer { manifest, provenance })
    }

    fn revalidation(
        &self,
        view: &RepositoryView,
        tag: &Tag,
        state: TagState,
        manifest: &Arc<StoredManifest>,
    ) -> Waiter<Result<Fetched, CacheError>> {
        let (begun, reference) = (view.clone(), Reference::Tag(tag.clone()));
        let (fetcher, tag, current) = (Arc::clone(&self.fetcher), tag.clone(), Arc::clone(manifest));
        self.fly(view, reference, async move { fetcher.revalidate(&begun, &tag, state, current).await })
    }

    /// One fetch or revalidation under way per reference.
    fn fly(
        &self,
        view: &RepositoryView,
        reference: Reference,
        work: impl Future<Output = Result<Fetched, CacheError>> + Send + 'static,
    ) -> Waiter<Result<Fetched, CacheError>> {
        self.flights.join((view.key(), reference), &self.tasks, || work)
    }

    /// Nothing is stored: upstream is asked.
    async fn cold(&self, view: &RepositoryView, request: ManifestRequest<'_>) -> Result<ManifestAnswer, CacheError> {
        let ManifestRequest { reference, .. } = request;
        if !request.revalidate
            && let Some(absence) = self.fetcher.negatives.recall(view, Object::Manifest(reference.clone()))
        {
            return Err(absence.into());
        }
        if view.upstream.sealed {
            return Err(self.misses.refuse(view.repository(), reference, Code::ManifestUnknown));
        }
        let (fetcher, begun, of) = (Arc::clone(&self.fetcher), view.clone(), reference.clone());
        let waiter = self.fly(view, reference.clone(), async move { fetcher.fetch(&begun, &of).await });
        let first = waiter.first;
        let answer = waiter.answer().await?;
        let mut provenance = match reference {
            Reference::Tag(tag) => answer.provenance(first, view.upstream.freshness.of(view.repository()), tag),
            Reference::Digest(_) => Provenance::new(answer.status(first)).relayed(&answer.relayed),
        };
        provenance.stored = answer.kept;
        Ok(ManifestAnswer { manifest: answer.manifest, provenance })
    }
}
