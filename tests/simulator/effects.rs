//! What went wrong on purpose, counted where it took effect: an answer that was given instead of the real one, a byte that was
//! wrong when it left, a body when it broke off. A fault that nobody met is not in here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// The counts of one simulator; they survive `clear_log`.
#[derive(Default)]
pub(super) struct Effects(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    by_name: BTreeMap<String, u64>,
    /// Blobs of which wrong bytes or a wrong length have left.
    spoiled: BTreeSet<String>,
}

impl Effects {
    pub(super) fn count(&self, name: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).by_name.entry(name.into()).or_default() += 1;
    }

    pub(super) fn spoil(&self, digest: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spoiled.insert(digest.to_owned());
    }

    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).by_name.clone()
    }

    pub(super) fn is_spoiled(&self, digest: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spoiled.contains(digest)
    }
}

/// Damage of a body that takes effect once so many of its bytes have left.
pub(super) struct Pending {
    pub(super) effects: Arc<Effects>,
    pub(super) name: &'static str,
    pub(super) after: u64,
    /// The blob, if one of these bytes is wrong.
    pub(super) spoils: Option<String>,
}

impl Pending {
    pub(super) fn take_effect(self) {
        if let Some(digest) = &self.spoils {
            self.effects.spoil(digest);
        }
        self.effects.count(self.name);
    }
}
