//! Holds: content that an export reads for minutes is kept as if it were pinned, as long as the guard lives.

use crate::oci::Digest;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::{Arc, Weak};

/// What is held, by all who hold something.
#[derive(Default)]
pub(crate) struct Holds(Mutex<Vec<Weak<HashSet<Digest>>>>);

/// Keeps content from being evicted until it is dropped.
#[derive(Debug)]
pub struct Hold(#[expect(dead_code, reason = "it is held")] Arc<HashSet<Digest>>);

impl Holds {
    pub(crate) fn add(&self, digests: HashSet<Digest>) -> Hold {
        let digests = Arc::new(digests);
        let mut holds = self.0.lock();
        holds.retain(|hold| hold.strong_count() > 0);
        holds.push(Arc::downgrade(&digests));
        Hold(digests)
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.0.lock().iter().any(|hold| hold.upgrade().is_some_and(|hold| hold.contains(digest)))
    }
}
