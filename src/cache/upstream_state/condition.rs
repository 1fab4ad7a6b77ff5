//! How an upstream does, for whoever asks the daemon.

use crate::cache::Cache;
use crate::oci::{Registry, Repository};
use crate::upstream::BlockedReason;
use std::sync::Arc;

/// How an upstream does at the moment.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// It is never asked.
    pub sealed: bool,
    /// What it has given is held in the store now, since it cannot give it again.
    pub away: bool,
    /// Why the last request to it failed, if that said nothing about content.
    pub problem: Option<Arc<str>>,
    /// Why requests are not sent.
    pub blocked: Vec<BlockedReason>,
    /// Repositories that it has refused to the login, in order: what is stored of them is withheld.
    pub withheld: Vec<Repository>,
}

impl Cache {
    /// How an upstream does at the moment.
    #[must_use]
    pub fn condition(&self, registry: &Registry) -> Condition {
        self.0.upstreams.get(registry).map(|upstream| upstream.condition()).unwrap_or_default()
    }
}
