//! The ways to one content: every repository through which a request came that may have it.

use crate::cache::view::RepositoryView;
use crate::upstream::{CallerLogin, UpstreamError, for_caller};
use parking_lot::Mutex;

/// A way to a content, through which an allowed request came.
#[derive(Clone, Debug)]
pub(in crate::cache) struct Candidate {
    /// The repository, as of when it was found that the request may have the content: what upstream says is good for requests since
    /// then.
    pub(in crate::cache) view: RepositoryView,
    /// Whose request it was, where upstream is asked as its callers.
    pub(in crate::cache) caller: Option<CallerLogin>,
    /// Whether a link of the repository vouches for the content.
    pub(in crate::cache) member: bool,
}

impl Candidate {
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.view.repository() == other.view.repository() && self.caller == other.caller
    }

    /// Asks in the name of the caller who came by this way.
    pub(super) async fn ask<T>(&self, work: impl Future<Output = T>) -> T {
        for_caller(self.caller.clone(), work).await
    }
}

/// The candidates for one content, shared by its readers and its download.
#[derive(Debug, Default)]
pub(in crate::cache) struct Candidates(Mutex<Ways>);

#[derive(Debug, Default)]
struct Ways {
    open: Vec<Candidate>,
    /// Repositories whose upstream has answered with the content.
    proven: Vec<RepositoryView>,
    /// Repositories whose upstream would not give it, with what it said.
    closed: Vec<(RepositoryView, UpstreamError)>,
}

/// Whether what was said of the one holds for the other: no write came between.
fn is_same(one: &RepositoryView, other: &RepositoryView) -> bool {
    one.repository() == other.repository() && one.epoch == other.epoch
}

impl Candidates {
    pub(in crate::cache) fn of(candidate: Candidate) -> Self {
        let candidates = Self::default();
        candidates.add(candidate);
        candidates
    }

    /// Adds a candidate, unless it is known.
    pub(in crate::cache) fn add(&self, candidate: Candidate) {
        let mut ways = self.0.lock();
        match ways.open.iter_mut().find(|known| known.is_same(&candidate)) {
            // What upstream said before the last write proves nothing to a request after it.
            Some(known) if known.view.epoch != candidate.view.epoch => *known = candidate,
            Some(_) => {}
            None => ways.open.push(candidate),
        }
    }

    /// Whether upstream has given the content for this repository, and nothing was written to it since.
    pub(in crate::cache) fn is_proven(&self, view: &RepositoryView) -> bool {
        self.0.lock().proven.iter().any(|proven| is_same(proven, view))
    }

    /// What upstream said when it would not give the content for this repository, if nothing was written to it since.
    pub(in crate::cache) fn refusal(&self, view: &RepositoryView) -> Option<UpstreamError> {
        let ways = self.0.lock();
        let refusal = ways.closed.iter().find(|(closed, _)| is_same(closed, view));
        refusal.map(|(_, error)| error.clone())
    }

    /// Repositories for which upstream has given the content.
    pub(in crate::cache) fn proven(&self) -> Vec<RepositoryView> {
        self.0.lock().proven.clone()
    }

    /// The candidate to try on attempt `attempt`: each in its turn.
    pub(super) fn choose(&self, attempt: u32) -> Option<Candidate> {
        let ways = self.0.lock();
        let count = ways.open.len().max(1);
        ways.open.get(attempt as usize % count).cloned()
    }

    /// Upstream has answered with the content.
    pub(super) fn prove(&self, candidate: &Candidate) {
        let mut ways = self.0.lock();
        if !ways.proven.iter().any(|proven| is_same(proven, &candidate.view)) {
            ways.proven.push(candidate.view.clone());
        }
    }

    /// Upstream would not give the content.
    pub(super) fn close(&self, candidate: &Candidate, error: &UpstreamError) {
        let mut ways = self.0.lock();
        ways.open.retain(|open| !open.is_same(candidate));
        ways.closed.push((candidate.view.clone(), error.clone()));
    }

    pub(super) fn count(&self) -> usize {
        self.0.lock().open.len()
    }

    /// What the last one said that would not give the content.
    pub(super) fn last_refusal(&self) -> Option<UpstreamError> {
        self.0.lock().closed.last().map(|(_, error)| error.clone())
    }
}
