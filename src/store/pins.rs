//! Pins: what the repositories that match `[store] pin` have here is never removed to make room.
//!
//! A manifest pins all that it refers to. What links say at the start is found by a walk, before which nothing is removed at all;
//! what is linked later is pinned at once. What is unlinked stays pinned until the next start.

use super::files::lock;
use crate::oci::{Digest, Repository, RepositoryPattern};
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// The patterns and what they have pinned so far.
pub(super) struct Pins {
    patterns: Vec<RepositoryPattern>,
    digests: Mutex<HashSet<Digest>>,
    ready: AtomicBool,
}

impl Pins {
    pub(super) fn new(patterns: &[String]) -> Self {
        let ready = AtomicBool::new(patterns.is_empty());
        Self {
            patterns: patterns.iter().map(|pattern| RepositoryPattern::new(pattern)).collect(),
            digests: Mutex::default(),
            ready,
        }
    }

    /// Whether all that is pinned is known.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub(super) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    pub(super) fn concern(&self, repository: &Repository) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(repository))
    }

    /// Content that a repository has.
    pub(super) fn add(&self, repository: &Repository, digests: impl IntoIterator<Item = Digest>) {
        if self.concern(repository) {
            lock(&self.digests).extend(digests);
        }
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        !self.patterns.is_empty() && lock(&self.digests).contains(digest)
    }
}
