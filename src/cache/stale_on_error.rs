//! What upstream may change at any time, and has no digest: given out while it is good, then as upstream says it, and as it was last
//! seen where upstream cannot say.

use crate::cache::answer::Provenance;
use crate::cache::error::CacheError;
use crate::cache::freshness::Age;
use crate::cache::single_flight::Waiter;
use crate::cache::upstream_state::state::UpstreamState;
use crate::telemetry::CacheStatus;
use crate::upstream::{ErrorKind, Relayed};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Something that is remembered with the time at which upstream said it.
pub(super) trait Aged: Clone {
    /// When that was.
    fn age(&self) -> Age;
    /// What caches on the way said of it then.
    fn relayed(&self) -> &Relayed;
}

/// A question that is on its way to upstream.
type Asking<S> = Waiter<Result<S, CacheError>>;

impl UpstreamState {
    /// What is so: `known` as long as it is younger than `ttl`, unless `revalidate` asks for upstream's word in any case. `ask`
    /// boards a flight that asks.
    pub(super) async fn current<S: Aged>(
        &self,
        known: Option<S>,
        ttl: Duration,
        revalidate: bool,
        ask: impl FnOnce() -> Asking<S>,
    ) -> Result<(S, Provenance), CacheError> {
        let said = |state: S, status: CacheStatus| {
            let provenance = Provenance::new(status).with_ttl(state.age().ttl(ttl));
            let comes_now = matches!(status, CacheStatus::Miss | CacheStatus::Coalesced);
            let provenance = if comes_now { provenance.relayed(state.relayed()) } else { provenance };
            (state, provenance)
        };
        let Some(state) = known else {
            let waiter = ask();
            let status = waiter.status();
            return Ok(said(waiter.result().await.ok_or(CacheError::Aborted)??, status));
        };
        if self.sealed || state.age().is_fresh(ttl) && !revalidate {
            return Ok(said(state, CacheStatus::Hit));
        }
        let outage = match self.news_of(&state, ask).await {
            Ok(Some((fresh, status))) => return Ok(said(fresh, status)),
            Err(error) if is_final(&error) => return Err(error),
            Ok(None) => self.outage(),
            Err(error) => Arc::from(error.to_string()),
        };
        let (state, provenance) = said(state, CacheStatus::Stale);
        Ok((state, provenance.with_outage(outage)))
    }

    /// News of what is out of date. `None`: not in time.
    async fn news_of<S: Aged>(
        &self,
        state: &S,
        ask: impl FnOnce() -> Asking<S>,
    ) -> Result<Option<(S, CacheStatus)>, CacheError> {
        if !state.age().may_ask() {
            return Ok(None);
        }
        let waiter = ask();
        let status = waiter.status();
        let Ok(result) = timeout(self.revalidate_wait(), waiter.result()).await else {
            self.kept_waiting();
            return Ok(None);
        };
        Ok(Some((result.ok_or(CacheError::Aborted)??, status)))
    }
}

impl<S> Waiter<S> {
    fn status(&self) -> CacheStatus {
        if self.first { CacheStatus::Miss } else { CacheStatus::Coalesced }
    }
}

/// Whether upstream has decided, so that what is stored must not stand in.
pub(super) fn is_final(error: &CacheError) -> bool {
    let CacheError::Upstream(error) = error else { return false };
    matches!(error.kind(), ErrorKind::NotFound { .. } | ErrorKind::RepositoryRefused { .. })
}
