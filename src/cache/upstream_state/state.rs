use crate::config::UpstreamSettings;
use crate::oci::{Registry, Repository};
use crate::store::AwayRegistries;
use crate::telemetry::Metrics;
use crate::upstream::{ErrorKind, Upstream, UpstreamError};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

use crate::cache::freshness::FreshnessRules;
use crate::cache::upstream_state::availability::Availability;
use crate::cache::upstream_state::condition::Condition;
use crate::cache::upstream_state::denied::{Denial, DeniedRepositories};

/// One upstream, with what the cache expects of it at the moment.
#[derive(Debug)]
pub(in crate::cache) struct UpstreamState {
    /// The connection to it.
    pub(in crate::cache) client: Upstream,
    pub(in crate::cache) metrics: Arc<Metrics>,
    /// Whether it is never asked.
    pub(in crate::cache) sealed: bool,
    /// Whether it shares no bytes with others.
    pub(in crate::cache) isolated: bool,
    /// How long its tags are good.
    pub(in crate::cache) freshness: FreshnessRules,
    /// How long a download that was cut may gain nothing.
    pub(in crate::cache) resume_timeout: Duration,
    /// Whether it has lately kept a request waiting in vain: then nobody waits until it answers again.
    slow: AtomicBool,
    /// Why the last request to it failed, if that says nothing about content.
    trouble: Mutex<Option<Arc<str>>>,
    /// Repositories that a working token was refused for: their content is withheld until it works again.
    denied: Mutex<DeniedRepositories>,
    /// Whether it could give again what is stored.
    pub(in crate::cache) availability: Availability,
    /// Whether it is being asked whether it is there.
    pinging: watch::Sender<bool>,
}

impl UpstreamState {
    /// Remembers at most `refusals` repositories that are refused.
    pub(in crate::cache) fn new(
        client: Upstream,
        settings: &UpstreamSettings,
        refusals: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            client,
            metrics,
            sealed: settings.sealed,
            isolated: settings.isolate,
            freshness: FreshnessRules::new(&settings.freshness),
            resume_timeout: settings.resume_timeout,
            slow: AtomicBool::new(false),
            trouble: Mutex::default(),
            denied: Mutex::new(DeniedRepositories::new(refusals)),
            availability: Availability::default(),
            pinging: watch::Sender::new(false),
        }
    }

    /// How long a request that could be answered from the store waits for a fresher answer.
    pub(in crate::cache) fn revalidate_wait(&self) -> Duration {
        if self.is_slow() { Duration::ZERO } else { self.freshness.other.revalidate_wait }
    }

    /// Whether it has lately kept a request waiting in vain, and not answered since.
    pub(in crate::cache) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Why stored content goes out although it is out of date.
    pub(in crate::cache) fn outage(&self) -> Arc<str> {
        self.trouble.lock().clone().unwrap_or_else(|| "no answer in time".into())
    }

    /// A request waited in vain.
    pub(in crate::cache) fn kept_waiting(&self) {
        if !self.slow.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                upstream = %self.client.name(),
                "upstream does not answer in time: stored content goes out stale, at once, until it does"
            );
        }
    }

    /// Runs a request to this upstream about `repository` and draws the conclusions of how it ended. `None`: about none in particular,
    /// or one whose refusal says nothing about pulling, as that of a write.
    ///
    /// On the heap, since the state of a request upstream is large and would be a part of every caller's.
    pub(in crate::cache) fn ask<'a, T: Send + 'a>(
        &'a self,
        repository: Option<&'a Repository>,
        request: impl Future<Output = Result<T, UpstreamError>> + Send + 'a,
    ) -> Pin<Box<dyn Future<Output = Result<T, UpstreamError>> + Send + 'a>> {
        self.send(repository, false, request)
    }

    /// The same, for a request that brings a blob's bytes.
    pub(in crate::cache) fn ask_for_bytes<'a, T: Send + 'a>(
        &'a self,
        repository: &'a Repository,
        request: impl Future<Output = Result<T, UpstreamError>> + Send + 'a,
    ) -> Pin<Box<dyn Future<Output = Result<T, UpstreamError>> + Send + 'a>> {
        self.send(Some(repository), true, request)
    }

    fn send<'a, T: Send + 'a>(
        &'a self,
        repository: Option<&'a Repository>,
        bytes: bool,
        request: impl Future<Output = Result<T, UpstreamError>> + Send + 'a,
    ) -> Pin<Box<dyn Future<Output = Result<T, UpstreamError>> + Send + 'a>> {
        Box::pin(async move {
            let answer = request.await;
            match &answer {
                Ok(_) => {
                    self.availability.answered(bytes);
                    self.succeeded(repository);
                }
                Err(error) => {
                    self.availability.failed(bytes, error);
                    self.failed(repository, error);
                }
            }
            answer
        })
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
            problem: self.trouble.lock().clone(),
            blocked: self.client.blocked(),
            withheld,
        }
    }

    /// Whether nobody is asking it already whether it is there.
    pub(in crate::cache) fn begin_ping(&self) -> bool {
        self.pinging.send_if_modified(|pinging| !std::mem::replace(pinging, true))
    }

    /// Asks whether it is there.
    pub(in crate::cache) async fn ping(&self) {
        // How it ends has been noted, and is no event: nobody waited for it.
        let _ = self.ask(None, self.client.ping()).await;
        self.pinging.send_replace(false);
    }

    /// Waits until nobody is asking it.
    pub(in crate::cache) async fn pinged(&self) {
        // The sender is this upstream's own: it cannot be gone.
        let _ = self.pinging.subscribe().wait_for(|pinging| !*pinging).await;
    }

    /// Draws the conclusions of a push, of which none is about who may pull.
    pub(in crate::cache) fn record_result(&self, error: Option<&UpstreamError>) {
        if let Some(error) = error {
            self.availability.failed(false, error);
            self.failed(None, error);
        } else {
            self.availability.answered(false);
            self.answered();
        }
    }

    fn succeeded(&self, repository: Option<&Repository>) {
        self.answered();
        if let Some(repository) = repository {
            self.restore(repository);
        }
    }

    fn failed(&self, repository: Option<&Repository>, error: &UpstreamError) {
        match (error.kind(), repository) {
            (ErrorKind::RepositoryRefused { .. }, Some(repository)) => self.deny(repository, error),
            _ if error.is_outage() => *self.trouble.lock() = Some(error.to_string().into()),
            _ => self.answered(),
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

    fn answered(&self) {
        *self.trouble.lock() = None;
        if self.slow.load(Ordering::Relaxed) && self.slow.swap(false, Ordering::Relaxed) {
            tracing::info!(upstream = %self.client.name(), "upstream answers again");
        }
    }

    fn deny(&self, repository: &Repository, error: &UpstreamError) {
        let refusal = self.denied.lock().refuse(repository);
        match refusal {
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

    fn restore(&self, repository: &Repository) {
        if self.denied.lock().allow(repository) {
            tracing::info!(repo.name = %repository, "upstream allows the repository again");
        }
    }
}

/// All upstreams, as the store asks for them before it removes what they have given.
pub(in crate::cache) struct Upstreams(pub(in crate::cache) HashMap<Registry, Arc<UpstreamState>>);

impl Upstreams {
    fn those(&self, which: impl Fn(&UpstreamState) -> bool) -> Vec<Registry> {
        let those = self.0.iter().filter(|(_, upstream)| which(upstream));
        those.map(|(registry, _)| registry.clone()).collect()
    }
}

impl AwayRegistries for Upstreams {
    fn away(&self) -> Vec<Registry> {
        self.those(UpstreamState::is_away)
    }

    fn away_or_silent(&self) -> Vec<Registry> {
        self.those(|upstream| upstream.is_away() || upstream.availability.is_unheard_of())
    }
}
