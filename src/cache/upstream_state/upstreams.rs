use super::condition::Condition;
use super::state::UpstreamState;
use crate::cache::error::CacheError;
use crate::config::UpstreamSettings;
use crate::oci::Registry;
use crate::store::AwayRegistries;
use crate::telemetry::Metrics;
use crate::upstream::Upstream;
use std::collections::HashMap;
use std::sync::Arc;

/// All upstreams that are configured.
#[derive(Debug)]
pub(in crate::cache) struct Upstreams {
    states: HashMap<Registry, Arc<UpstreamState>>,
}

impl Upstreams {
    /// Remembers at most `refusals` refused repositories of each.
    pub(in crate::cache) fn new(
        upstreams: Vec<(UpstreamSettings, Upstream)>,
        refusals: usize,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let states = upstreams.into_iter().map(|(settings, client)| {
            metrics.expect_upstream(settings.name.as_str());
            let state = UpstreamState::new(client, &settings, refusals, Arc::clone(metrics));
            (settings.name, Arc::new(state))
        });
        Self { states: states.collect() }
    }

    pub(in crate::cache) fn get(&self, registry: &Registry) -> Result<&Arc<UpstreamState>, CacheError> {
        self.states.get(registry).ok_or_else(|| CacheError::UnknownUpstream { registry: registry.clone() })
    }

    /// The upstream of a write, if it is one that is asked.
    pub(in crate::cache) fn writable(&self, registry: &Registry) -> Result<&Arc<UpstreamState>, CacheError> {
        let upstream = self.get(registry)?;
        if upstream.sealed { Err(CacheError::ReadOnly { registry: registry.clone() }) } else { Ok(upstream) }
    }

    pub(in crate::cache) fn registries(&self) -> impl Iterator<Item = &Registry> + Clone {
        self.states.keys()
    }

    pub(in crate::cache) fn is_isolated(&self, registry: &Registry) -> bool {
        self.states.get(registry).is_some_and(|upstream| upstream.isolated)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<UpstreamState>> {
        self.states.values()
    }

    pub(in crate::cache) fn condition(&self, registry: &Registry) -> Condition {
        self.states.get(registry).map(|upstream| upstream.condition()).unwrap_or_default()
    }

    fn those(&self, which: impl Fn(&UpstreamState) -> bool) -> Vec<Registry> {
        self.states.iter().filter(|(_, upstream)| which(upstream)).map(|(registry, _)| registry.clone()).collect()
    }
}

/// As the store asks before it removes what they have given.
impl AwayRegistries for Upstreams {
    fn away(&self) -> Vec<Registry> {
        self.those(UpstreamState::is_away)
    }

    fn away_or_silent(&self) -> Vec<Registry> {
        self.those(|upstream| upstream.is_away() || upstream.availability.is_silent())
    }
}
