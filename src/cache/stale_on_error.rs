//! Serving what upstream may change at any time and what has no digest (RFC 5861): from the cache while it is fresh, then as
//! upstream says it, and as it was last seen where upstream cannot say.

use super::error::CacheError;
use super::freshness::Age;
use super::provenance::Provenance;
use super::single_flight::Waiter;
use super::upstream_state::UpstreamState;
use crate::telemetry::CacheStatus;
use crate::upstream::{ErrorKind, Relayed};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// What a request learns about something that is out of date.
pub(super) enum News<T> {
    /// Upstream's answer, and whether this request began the flight that brought it.
    Fresh(T, bool),
    /// What is stored has to do, for this reason.
    Stale(Arc<str>),
}

/// Asks about something of this `age`, and waits for the answer for at most `wait`. The flight continues without the request. An
/// error is upstream's decision, for which nothing that is stored may stand in.
pub(super) async fn revalidate<T: Clone>(
    upstream: &UpstreamState,
    age: &Age,
    wait: Duration,
    ask: impl FnOnce() -> Waiter<Result<T, CacheError>>,
) -> Result<News<T>, CacheError> {
    if !age.may_ask() {
        return Ok(News::Stale(upstream.outage()));
    }
    let waiter = ask();
    let first = waiter.first;
    let Ok(result) = timeout(wait, waiter.result()).await else {
        upstream.kept_waiting();
        return Ok(News::Stale(upstream.outage()));
    };
    match result {
        Some(Ok(answer)) => Ok(News::Fresh(answer, first)),
        Some(Err(error)) if is_final(&error) => Err(error),
        Some(Err(error)) => Ok(News::Stale(error.to_string().into())),
        None => Ok(News::Stale(upstream.outage())),
    }
}

/// Something that is remembered with the time at which upstream said it.
pub(super) trait Aged: Clone {
    fn age(&self) -> Age;
    /// What caches on the way said of it then.
    fn relayed(&self) -> &Relayed;
}

/// What is true: `known` as long as it is younger than `ttl`, unless `no_cache` asks for upstream's word in any case. `ask` joins a
/// flight that asks.
pub(super) async fn serve<S: Aged>(
    upstream: &UpstreamState,
    known: Option<S>,
    ttl: Duration,
    no_cache: bool,
    ask: impl FnOnce() -> Waiter<Result<S, CacheError>>,
) -> Result<(S, Provenance), CacheError> {
    let with = |state: S, provenance: Provenance| {
        let provenance = provenance.with_ttl(state.age().ttl(ttl));
        (state, provenance)
    };
    let fresh = |state: S, first: bool| {
        let status = if first { CacheStatus::Miss } else { CacheStatus::Coalesced };
        let (state, provenance) = with(state, Provenance::new(status));
        let provenance = provenance.relayed(state.relayed());
        (state, provenance)
    };
    let Some(state) = known else {
        let waiter = ask();
        let first = waiter.first;
        return Ok(fresh(waiter.answer().await?, first));
    };
    if upstream.sealed || state.age().is_fresh(ttl) && !no_cache {
        return Ok(with(state, Provenance::new(CacheStatus::Hit)));
    }
    Ok(match revalidate(upstream, &state.age(), upstream.revalidate_wait(), ask).await? {
        News::Fresh(state, first) => fresh(state, first),
        News::Stale(why) => with(state, Provenance::new(CacheStatus::Stale).with_outage(why)),
    })
}

/// Whether upstream has decided, so that what is stored must not stand in.
pub(super) fn is_final(error: &CacheError) -> bool {
    let CacheError::Upstream(error) = error else { return false };
    matches!(error.kind(), ErrorKind::NotFound { .. } | ErrorKind::RepositoryRefused { .. })
}
