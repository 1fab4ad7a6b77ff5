//! An upstream and its endpoints: its own address and its mirrors. A read asks the own address first, then the mirrors in their order.
//!
//! larder believes everything that the own address says. It believes a mirror only about what the mirror has: a mirror may lag, so after its
//! "not found" or refusal larder asks the next one, and at the end reports the outage of the own address. A refused login is no
//! reason to ask a mirror. No mirror is asked for what the own address refused or did not have, until the own address gives it again. An
//! endpoint that gave wrong bytes for a digest is asked last for that digest, for a while.

use super::answers::{BlobHead, FetchedBlob, FetchedManifest, ManifestHead};
use super::blamed::Blamed;
use super::denials::{Denied, OriginDenials};
use super::endpoint::{Endpoint, Parts};
use super::error::{ErrorKind, SetupError, UpstreamError};
use crate::config::{Environment, Limits, UpstreamSettings};
use crate::oci::{Accept, Digest, Name, Reference, Registry};
use crate::telemetry::Metrics;
use crate::upstream::limits::documents::Documents;
use crate::upstream::limits::rate::Rate;
use crate::upstream::protocol::list::{FetchedList, ListRequest};
use crate::upstream::transport::network::Network;
use http::HeaderMap;
use std::sync::Arc;

/// A configured registry that can be asked. Cloning is cheap; clones share connections and tokens.
#[derive(Clone)]
pub struct Upstream(Arc<Inner>);

struct Inner {
    own: Endpoint,
    /// Asked when its own address does not answer. A sealed upstream has none.
    mirrors: Vec<Endpoint>,
    blamed: Blamed,
    denials: OriginDenials,
    documents: Documents,
}

impl Upstream {
    /// An upstream with the environment of the process. Nothing is dialled and no secret is read.
    pub fn new(settings: &UpstreamSettings, limits: &Limits, metrics: Arc<Metrics>) -> Result<Self, SetupError> {
        Self::with_environment(settings, limits, metrics, &Environment::of_process())
    }

    /// An upstream with an environment of its own.
    pub fn with_environment(
        settings: &UpstreamSettings,
        limits: &Limits,
        metrics: Arc<Metrics>,
        environment: &Environment,
    ) -> Result<Self, SetupError> {
        Self::in_network(settings, limits, metrics, environment, &Network::new(&[], []))
    }

    /// The same, with a network of its own.
    pub fn in_network(
        settings: &UpstreamSettings,
        limits: &Limits,
        metrics: Arc<Metrics>,
        environment: &Environment,
        network: &Network,
    ) -> Result<Self, SetupError> {
        let rate = settings.max_rate.map(|rate| Arc::new(Rate::new(rate)));
        let passers = Arc::default();
        let parts = Parts { settings, limits, metrics, environment, network, rate, passers };
        let own = Endpoint::new(&parts, None)?;
        let mirrors = settings.mirrors.iter().map(|url| Endpoint::new(&parts, Some(url)));
        let mut mirrors = mirrors.collect::<Result<Vec<_>, _>>()?;
        mirrors.retain(|_| !settings.sealed);
        let documents = network.documents.clone();
        let (blamed, denials) = (Blamed::default(), OriginDenials::new(limits.negative_entries));
        Ok(Self(Arc::new(Inner { own, mirrors, blamed, denials, documents })))
    }

    /// Its canonical name.
    #[must_use]
    pub fn name(&self) -> &Registry {
        self.own().name()
    }

    /// Memory for large documents, which all upstreams share.
    #[must_use]
    pub fn documents(&self) -> &Documents {
        &self.0.documents
    }

    /// Its own address: the only one that is written to.
    pub(super) fn own(&self) -> &Endpoint {
        &self.0.own
    }

    /// Its own address, then its mirrors.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        std::iter::once(&self.0.own).chain(&self.0.mirrors)
    }

    fn mirrors(&self) -> &[Endpoint] {
        &self.0.mirrors
    }

    /// Asks whether the registry answers at all, and takes the login if there is one.
    pub async fn ping(&self) -> Result<(), UpstreamError> {
        self.own().ping().await
    }

    /// Notes the larders that a request for it has passed. `false`: it has passed this one, and goes in a circle.
    #[must_use]
    pub fn note_passers(&self, headers: &HeaderMap) -> bool {
        let Some(news) = self.own().client().passers().note(headers) else { return false };
        if news {
            self.endpoints().for_each(|endpoint| endpoint.client().name_passers());
        }
        true
    }

    /// Notes that something was deleted or withdrawn: no mirror is asked for it until the upstream's own address has given it again.
    pub fn deny(&self, repository: &Name, what: Denied) {
        if !self.mirrors().is_empty() {
            self.0.denials.add(repository, what);
        }
    }

    /// The upstream's own address has taken something new: it may have now what it did not have.
    pub(super) fn lift_all(&self, repository: &Name) {
        self.0.denials.forget(repository);
    }

    /// Asks whether a manifest is there, and which one a tag means.
    pub async fn head_manifest(&self, repository: &Name, reference: &Reference) -> Result<ManifestHead, UpstreamError> {
        let about = Some((repository, Denied::Manifest(reference.clone())));
        self.first_to_answer(about, |at| async move { at.head_manifest(repository, reference).await }).await
    }

    /// Fetches a manifest; without `accept` as whatever type it is stored.
    pub async fn get_manifest(
        &self,
        repository: &Name,
        reference: &Reference,
        accept: &Accept,
    ) -> Result<FetchedManifest, UpstreamError> {
        let about = Some((repository, Denied::Manifest(reference.clone())));
        self.first_to_answer(about, |at| async move { at.get_manifest(repository, reference, accept).await }).await
    }

    /// Asks whether a blob is there.
    pub async fn head_blob(&self, repository: &Name, digest: &Digest) -> Result<BlobHead, UpstreamError> {
        let about = Some((repository, Denied::Blob(*digest)));
        self.first_to_answer(about, |at| async move { at.head_blob(repository, digest).await }).await
    }

    /// Fetches a blob, or the bytes from a first to a last one, inclusive and perhaps open.
    pub async fn get_blob(
        &self,
        repository: &Name,
        digest: &Digest,
        range: Option<(u64, Option<u64>)>,
    ) -> Result<FetchedBlob, UpstreamError> {
        self.get_blob_from(0, repository, digest, range).await
    }

    /// As [`Self::get_blob`], but asks the address with the number `first` ([`FetchedBlob::address`]) before the others. The addresses before
    /// it have shown that the repository may be read, and have failed.
    pub async fn get_blob_from(
        &self,
        first: usize,
        repository: &Name,
        digest: &Digest,
        range: Option<(u64, Option<u64>)>,
    ) -> Result<FetchedBlob, UpstreamError> {
        let count = self.mirrors().len() + 1;
        let mut order: Vec<usize> = (0..count).map(|step| (first + step) % count).collect();
        order.sort_by_key(|address| self.0.blamed.is(digest, *address));
        let ask = |at: &'_ Endpoint| {
            let at = at.clone();
            async move { at.get_blob(repository, digest, range).await }
        };
        let (address, fetched) = self.first_of(&order, Some((repository, Denied::Blob(*digest))), ask).await?;
        Ok(FetchedBlob { address, ..fetched })
    }

    /// Notes that an address gave wrong bytes: it is asked last for this digest for a while.
    pub fn blame(&self, digest: &Digest, address: usize) {
        if !self.mirrors().is_empty() {
            tracing::warn!(blob.digest = %digest, from = self.address(address), "wrong bytes: others are asked first for it now");
            self.0.blamed.add(digest, address);
        }
    }

    /// Whether there is an address that has not given wrong bytes for this content.
    #[must_use]
    pub fn has_another(&self, digest: &Digest) -> bool {
        !self.mirrors().is_empty() && (0..=self.mirrors().len()).any(|address| !self.0.blamed.is(digest, address))
    }

    /// What an address is called in messages.
    #[must_use]
    pub fn address(&self, address: usize) -> &str {
        let mirror = address.checked_sub(1).and_then(|number| self.mirrors().get(number));
        mirror.unwrap_or(self.own()).shown()
    }

    /// Fetches one page of a list.
    pub async fn get_list(&self, request: ListRequest) -> Result<FetchedList, UpstreamError> {
        let request = &request;
        let about = request.repository().map(|repository| (repository, Denied::Repository));
        self.first_to_answer(about, |at| async move { at.get_list(request.clone()).await }).await
    }

    async fn first_to_answer<'a, T, F>(
        &'a self,
        about: Option<(&Name, Denied)>,
        ask: impl Fn(&'a Endpoint) -> F,
    ) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>> + 'a,
    {
        let order: Vec<usize> = (0..=self.mirrors().len()).collect();
        self.first_of(&order, about, ask).await.map(|(_, answer)| answer)
    }

    /// Asks the addresses in this order (0 is the own one) until one answers, and returns its number.
    async fn first_of<'a, T, F>(
        &'a self,
        order: &[usize],
        about: Option<(&Name, Denied)>,
        ask: impl Fn(&'a Endpoint) -> F,
    ) -> Result<(usize, T), UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>> + 'a,
    {
        let denied = || about.as_ref().is_some_and(|(repository, what)| self.0.denials.stands(repository, what));
        let mut outage = None;
        for address in order {
            let mirror = address.checked_sub(1).and_then(|number| self.mirrors().get(number));
            if mirror.is_some() && denied() {
                continue;
            }
            let answer = ask(mirror.unwrap_or(self.own())).await;
            if let (None, Some((repository, what)), true) = (mirror, &about, order.len() > 1) {
                self.0.denials.note(repository, what, &answer);
            }
            match (answer, mirror) {
                (Ok(answer), _) => return Ok((*address, answer)),
                (Err(error), None) if order.len() == 1 || !may_be_asked_elsewhere(&error) => return Err(error),
                (Err(error), None) => outage = Some(error),
                (Err(error), Some(_)) => tracing::debug!(upstream = %self.name(), %error, "a mirror does not help"),
            }
        }
        match outage {
            Some(outage) => Err(outage),
            None => ask(self.own()).await.map(|answer| (0, answer)),
        }
    }
}

fn may_be_asked_elsewhere(error: &UpstreamError) -> bool {
    error.is_outage() && !matches!(error.kind(), ErrorKind::CredentialRefused { .. })
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("name", self.name()).finish_non_exhaustive()
    }
}
