use super::availability::Availability;
use super::condition::Condition;
use super::denied::{Denial, DeniedRepositories};
use crate::cache::freshness::FreshnessRules;
use crate::config::UpstreamSettings;
use crate::oci::{Accept, Digest, Name, Reference, Registry, Repository};
use crate::telemetry::Metrics;
use crate::upstream::{
    AcrAnswer, AcrRequest, BlobHead, BodyHeaders, Denied, ErrorKind, FetchedBlob, FetchedList, FetchedManifest,
    ListRequest, ManifestHead, PutManifest, UploadAnswer, UploadError, UploadSource, UploadStart, UploadStep, Upstream,
    UpstreamError,
};
use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A request to an upstream. On the heap, since its state is large and would be a part of every caller's.
type Asking<'a, T, E = UpstreamError> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// One upstream, with what its answers have said about it so far.
///
/// The cache asks an upstream through these methods alone: each notes how the request ended.
#[derive(Debug)]
pub(in crate::cache) struct UpstreamState {
    client: Upstream,
    pub(in crate::cache) metrics: Arc<Metrics>,
    /// Whether it is never asked.
    pub(in crate::cache) sealed: bool,
    /// Whether it shares no bytes with others.
    pub(in crate::cache) isolated: bool,
    pub(in crate::cache) freshness: FreshnessRules,
    /// How long a download that was cut may gain nothing.
    pub(in crate::cache) resume_timeout: Duration,
    pub(super) availability: Availability,
    denied: Mutex<DeniedRepositories>,
}

/// What the end of a request says something about, besides the upstream.
#[derive(Clone, Copy)]
enum About<'a> {
    /// Whether the repository may be pulled.
    Pulls(&'a Repository),
    /// The same, by a request for a blob's bytes.
    Bytes(&'a Repository),
    /// Nothing: a login that may not write, list or read metadata may still pull.
    Nothing,
}

impl UpstreamState {
    /// Remembers at most `refusals` repositories that are refused.
    pub(super) fn new(client: Upstream, settings: &UpstreamSettings, refusals: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            metrics,
            sealed: settings.sealed,
            isolated: settings.isolate,
            freshness: FreshnessRules::new(&settings.freshness),
            resume_timeout: settings.resume_timeout,
            availability: Availability::default(),
            denied: Mutex::new(DeniedRepositories::new(refusals)),
        }
    }

    fn ask<'a, T: Send + 'a>(
        &'a self,
        about: About<'a>,
        request: impl Future<Output = Result<T, UpstreamError>> + Send + 'a,
    ) -> Asking<'a, T> {
        Box::pin(async move {
            let answer = request.await;
            self.note(about, answer.as_ref().err());
            answer
        })
    }

    fn note(&self, about: About<'_>, error: Option<&UpstreamError>) {
        let (blob, repository) = match about {
            About::Pulls(repository) => (false, Some(repository)),
            About::Bytes(repository) => (true, Some(repository)),
            About::Nothing => (false, None),
        };
        let recovered = match error {
            None => self.availability.answered(blob),
            Some(error) => self.availability.failed(blob, error),
        };
        if recovered {
            tracing::info!(upstream = %self.client.name(), "upstream answers again");
        }
        match (repository, error) {
            (Some(repository), None) => self.allow(repository),
            (Some(repository), Some(error)) if matches!(error.kind(), ErrorKind::RepositoryRefused { .. }) => {
                self.deny(repository, error);
            }
            _ => {}
        }
    }

    pub(in crate::cache) fn head_manifest<'a>(
        &'a self,
        repository: &'a Repository,
        reference: &'a Reference,
    ) -> Asking<'a, ManifestHead> {
        self.ask(About::Pulls(repository), self.client.head_manifest(&repository.name, reference))
    }

    pub(in crate::cache) fn get_manifest<'a>(
        &'a self,
        repository: &'a Repository,
        reference: &'a Reference,
        accept: &'a Accept,
    ) -> Asking<'a, FetchedManifest> {
        self.ask(About::Pulls(repository), self.client.get_manifest(&repository.name, reference, accept))
    }

    pub(in crate::cache) fn head_blob<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> Asking<'a, BlobHead> {
        self.ask(About::Pulls(repository), self.client.head_blob(&repository.name, digest))
    }

    /// The bytes of a blob; `first` is the number of the address that is asked first.
    pub(in crate::cache) fn get_blob<'a>(
        &'a self,
        first: usize,
        repository: &'a Repository,
        digest: &'a Digest,
        range: Option<(u64, Option<u64>)>,
    ) -> Asking<'a, FetchedBlob> {
        self.ask(About::Bytes(repository), self.client.get_blob_from(first, &repository.name, digest, range))
    }

    /// A page of a list. `first`: a later one that cannot be had says nothing about the repository, which has given one.
    pub(in crate::cache) fn get_list<'a>(
        &'a self,
        repository: Option<&'a Repository>,
        first: bool,
        request: ListRequest,
    ) -> Asking<'a, FetchedList> {
        let about = repository.filter(|_| first).map_or(About::Nothing, About::Pulls);
        self.ask(about, self.client.get_list(request))
    }

    pub(in crate::cache) fn acr<'a>(&'a self, request: &'a AcrRequest) -> Asking<'a, AcrAnswer> {
        self.ask(About::Nothing, self.client.acr(request))
    }

    pub(in crate::cache) fn put_manifest<'a>(
        &'a self,
        repository: &'a Repository,
        reference: &'a Reference,
        media_type: Option<&'a str>,
        query: &'a str,
        content: Bytes,
    ) -> Asking<'a, PutManifest> {
        let put = self.client.put_manifest(&repository.name, reference, media_type, query, content);
        self.ask(About::Nothing, put)
    }

    pub(in crate::cache) fn delete_manifest<'a>(
        &'a self,
        repository: &'a Repository,
        reference: &'a Reference,
    ) -> Asking<'a, ()> {
        self.ask(About::Nothing, self.client.delete_manifest(&repository.name, reference))
    }

    pub(in crate::cache) fn delete_blob<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> Asking<'a, ()> {
        self.ask(About::Nothing, self.client.delete_blob(&repository.name, digest))
    }

    /// Whether upstream says that a manifest is not there.
    pub(in crate::cache) async fn lacks_manifest(&self, repository: &Repository, digest: &Digest) -> bool {
        let reference = Reference::Digest(*digest);
        let asking = self.ask(About::Nothing, self.client.head_manifest(&repository.name, &reference));
        asking.await.is_err_and(|error| matches!(error.kind(), ErrorKind::NotFound { .. }))
    }

    /// Whether upstream says that a blob is not there.
    pub(in crate::cache) async fn lacks_blob(&self, repository: &Repository, digest: &Digest) -> bool {
        let asking = self.ask(About::Nothing, self.client.head_blob(&repository.name, digest));
        asking.await.is_err_and(|error| matches!(error.kind(), ErrorKind::NotFound { .. }))
    }

    pub(in crate::cache) async fn start_upload<S: UploadSource>(
        &self,
        repository: &Name,
        start: &UploadStart,
        headers: &BodyHeaders,
        body: &mut S,
    ) -> Result<UploadAnswer, UploadError<S::Error>> {
        let answer = self.client.start_upload(repository, start, headers, body).await;
        self.note_upload(&answer);
        answer
    }

    pub(in crate::cache) async fn continue_upload<S: UploadSource>(
        &self,
        repository: &Name,
        location: &str,
        step: &UploadStep,
        headers: &BodyHeaders,
        body: &mut S,
    ) -> Result<UploadAnswer, UploadError<S::Error>> {
        let answer = self.client.continue_upload(repository, location, step, headers, body).await;
        self.note_upload(&answer);
        answer
    }

    /// A body that breaks off is the client's doing.
    fn note_upload<E>(&self, answer: &Result<UploadAnswer, UploadError<E>>) {
        match answer {
            Ok(_) => self.note(About::Nothing, None),
            Err(UploadError::Upstream(error, _)) => self.note(About::Nothing, Some(error)),
            Err(UploadError::Source(_)) => {}
        }
    }

    /// Asks whether it is there. How that ends is noted, and is no event: no client waits for it.
    pub(super) async fn ping(&self) {
        let _ = self.ask(About::Nothing, self.client.ping()).await;
    }
}

/// What it is, and what it was told before: nothing is sent.
impl UpstreamState {
    pub(in crate::cache) fn name(&self) -> &Registry {
        self.client.name()
    }

    /// What an address is called in messages.
    pub(in crate::cache) fn address(&self, address: usize) -> &str {
        self.client.address(address)
    }

    /// Whether it is asked as its callers, and never as larder.
    pub(in crate::cache) fn is_asked_as_callers(&self) -> bool {
        self.client.is_asked_as_callers()
    }

    /// Whether there is an address that has not given wrong bytes for this content.
    pub(in crate::cache) fn has_another(&self, digest: &Digest) -> bool {
        self.client.has_another(digest)
    }

    /// The bytes that an address gave are not the content's: it is asked last for it from now on.
    pub(in crate::cache) fn blame(&self, digest: &Digest, address: usize) {
        self.client.blame(digest, address);
    }

    /// No mirror is asked for what has been removed.
    pub(in crate::cache) fn deny_at_mirrors(&self, repository: &Repository, what: Denied) {
        self.client.deny(&repository.name, what);
    }

    /// Notes the larders that a request has passed (`Via`); whether this one is not among them.
    pub(in crate::cache) fn note_passers(&self, headers: &HeaderMap) -> bool {
        self.client.note_passers(headers)
    }

    /// How long a request that could be answered from the store waits for a fresher answer: not at all where the last one waited
    /// in vain.
    pub(in crate::cache) fn revalidate_wait(&self) -> Duration {
        if self.is_slow() { Duration::ZERO } else { self.freshness.other.revalidate_wait }
    }

    pub(in crate::cache) fn is_slow(&self) -> bool {
        self.availability.is_slow()
    }

    /// Why stored content goes out although it is out of date.
    pub(in crate::cache) fn outage(&self) -> Arc<str> {
        self.availability.problem().unwrap_or_else(|| "no answer in time".into())
    }

    /// A request waited in vain.
    pub(in crate::cache) fn kept_waiting(&self) {
        if self.availability.kept_waiting() {
            tracing::warn!(
                upstream = %self.client.name(),
                "upstream does not answer in time: stored content goes out stale, at once, until it does"
            );
        }
    }

    /// Whether what it has given cannot be had again now.
    pub(in crate::cache) fn is_away(&self) -> bool {
        self.sealed || self.availability.is_away()
    }

    /// How it does, for a person.
    pub(in crate::cache) fn condition(&self) -> Condition {
        let mut withheld: Vec<_> = self.denied.lock().refused().cloned().collect();
        withheld.sort();
        Condition {
            sealed: self.sealed,
            away: self.is_away(),
            problem: self.availability.problem(),
            blocked: self.client.blocked(),
            withheld,
        }
    }

    /// Whether `repository` was, or may have been, refused to a working token and has not been allowed since.
    pub(in crate::cache) fn is_denied(&self, repository: &Repository) -> bool {
        self.denied.lock().contains(repository)
    }

    /// Whether any repository was refused and has not been allowed since.
    pub(in crate::cache) fn has_denied(&self) -> bool {
        self.denied.lock().any()
    }

    fn deny(&self, repository: &Repository, error: &UpstreamError) {
        let denial = self.denied.lock().refuse(repository);
        match denial {
            Denial::First => tracing::warn!(
                repo.name = %repository, %error,
                "upstream refuses the repository: what is stored of it is withheld"
            ),
            Denial::Repeated => {}
            Denial::TooMany => tracing::warn!(
                repo.name = %repository, %error,
                "upstream refuses more repositories than negative_entries allows to remember: from now on what is stored of any \
                 repository is withheld until upstream has allowed it once; a restart begins anew"
            ),
        }
    }

    fn allow(&self, repository: &Repository) {
        if self.denied.lock().allow(repository) {
            tracing::info!(repo.name = %repository, "upstream allows the repository again");
        }
    }
}
