//! The ways to one content: every repository through which somebody who may have it came.

use crate::cache::epochs::Epoch;
use crate::cache::upstream_state::state::UpstreamState;
use crate::oci::Repository;
use crate::upstream::{CallerLogin, UpstreamError, for_caller};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;

/// A way to a content through which an allowed reader came.
#[derive(Clone, Debug)]
pub(in crate::cache) struct Candidate {
    pub(in crate::cache) upstream: Arc<UpstreamState>,
    pub(in crate::cache) repository: Repository,
    /// Who came, where upstream is asked as its callers.
    pub(in crate::cache) caller: Option<CallerLogin>,
    /// Whether a link of the repository vouches for the content.
    pub(in crate::cache) member: bool,
    /// When that was found out: what upstream says is good for those who ask since then.
    pub(in crate::cache) epoch: Epoch,
}

impl Candidate {
    fn is_same(&self, other: &Self) -> bool {
        self.repository == other.repository && self.caller == other.caller
    }

    /// Asks as who came by this way.
    pub(in crate::cache) async fn ask<T>(&self, work: impl Future<Output = T>) -> T {
        for_caller(self.caller.clone(), work).await
    }
}

/// The candidates of one content, shared by its readers and its download.
#[derive(Debug, Default)]
pub(in crate::cache) struct Candidates(Mutex<Ways>);

#[derive(Debug, Default)]
struct Ways {
    open: Vec<Candidate>,
    /// Repositories whose upstream has answered with the content.
    proven: Vec<(Repository, Epoch)>,
    /// Repositories whose upstream would not give it, with what it said.
    closed: Vec<(Repository, Epoch, UpstreamError)>,
}

impl Candidates {
    pub(in crate::cache) fn of(candidate: Candidate) -> Self {
        let candidates = Self::default();
        candidates.add(candidate);
        candidates
    }

    /// Adds a candidate, unless it is known.
    pub(in crate::cache) fn add(&self, candidate: Candidate) {
        let mut ways = self.lock();
        match ways.open.iter_mut().find(|known| known.is_same(&candidate)) {
            // What upstream said before the last write proves nothing to those who came after it.
            Some(known) if known.epoch != candidate.epoch => *known = candidate,
            Some(_) => {}
            None => ways.open.push(candidate),
        }
    }

    /// Whether upstream has given the content for `repository`, and nothing was written to it since.
    pub(in crate::cache) fn is_proven(&self, repository: &Repository, now: Epoch) -> bool {
        self.lock().proven.iter().any(|(proven, begun)| proven == repository && *begun == now)
    }

    /// What upstream said when it would not give the content for `repository`, if nothing was written to it since.
    pub(in crate::cache) fn refusal(&self, repository: &Repository, now: Epoch) -> Option<UpstreamError> {
        let ways = self.lock();
        let refusal = ways.closed.iter().find(|(closed, begun, _)| closed == repository && *begun == now);
        refusal.map(|(_, _, error)| error.clone())
    }

    /// Repositories for which upstream has given the content, and when it was asked.
    pub(in crate::cache) fn proven(&self) -> Vec<(Repository, Epoch)> {
        self.lock().proven.clone()
    }

    /// The candidate to try on attempt `attempt`: each in its turn.
    pub(in crate::cache) fn choose(&self, attempt: u32) -> Option<Candidate> {
        let ways = self.lock();
        let count = ways.open.len().max(1);
        ways.open.get(attempt as usize % count).cloned()
    }

    /// Upstream has answered with the content.
    pub(in crate::cache) fn prove(&self, candidate: &Candidate) {
        let mut ways = self.lock();
        let proof = (candidate.repository.clone(), candidate.epoch);
        if !ways.proven.contains(&proof) {
            ways.proven.push(proof);
        }
    }

    /// Upstream would not give the content.
    pub(in crate::cache) fn close(&self, candidate: &Candidate, error: &UpstreamError) {
        let mut ways = self.lock();
        ways.open.retain(|open| !open.is_same(candidate));
        ways.closed.push((candidate.repository.clone(), candidate.epoch, error.clone()));
    }

    /// How many there are.
    pub(in crate::cache) fn count(&self) -> usize {
        self.lock().open.len()
    }

    /// What the last one said that would not give the content.
    pub(in crate::cache) fn last_refusal(&self) -> Option<UpstreamError> {
        self.lock().closed.last().map(|(_, _, error)| error.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Ways> {
        self.0.lock()
    }
}
