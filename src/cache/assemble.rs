use super::blob::Blobs;
use super::documents::{ListTable, Lists, ManifestFetcher, ManifestTable, Manifests, Metadata, Named, Presences};
use super::epochs::Epochs;
use super::fill::{FillContext, Fills};
use super::negative::Negatives;
use super::offline_misses::OfflineMisses;
use super::pending_commits::PendingCommits;
use super::single_flight::SingleFlight;
use super::tasks::Tasks;
use super::upstream_state::{Probes, Upstreams};
use super::view::Views;
use super::vouch::{Restrictions, Vouch};
use super::write::{Arrivals, Forget, Landing, Purges, Puts, Relist, Removals, Uploads};
use crate::config::{AccessRule, Limits, UpstreamSettings};
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::upstream::{Documents, Upstream};
use std::sync::Arc;

/// The components that requests come to, joined.
pub(super) struct Components {
    pub(super) limits: Limits,
    pub(super) documents: Documents,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) views: Views,
    pub(super) misses: Arc<OfflineMisses>,
    pub(super) blobs: Blobs,
    pub(super) manifests: Arc<Manifests>,
    pub(super) presences: Presences,
    pub(super) lists: Lists,
    pub(super) metadata: Arc<Metadata>,
    pub(super) puts: Arc<Puts>,
    pub(super) removals: Arc<Removals>,
    pub(super) purges: Purges,
    pub(super) arrivals: Arrivals,
    pub(super) uploads: Uploads,
    pub(super) tasks: Arc<Tasks>,
}

/// What most components share.
struct Shared<'a> {
    store: Store,
    limits: &'a Limits,
    documents: Documents,
    upstreams: Arc<Upstreams>,
    epochs: Arc<Epochs>,
    negatives: Arc<Negatives>,
    vouch: Arc<Vouch>,
    misses: Arc<OfflineMisses>,
    metrics: Arc<Metrics>,
    tasks: Arc<Tasks>,
}

pub(super) fn assemble(
    store: Store,
    upstreams: Vec<(UpstreamSettings, Upstream)>,
    rules: &[AccessRule],
    limits: &Limits,
    metrics: Arc<Metrics>,
) -> Components {
    let documents = upstreams.first().map(|(_, upstream)| upstream.documents().clone());
    let documents = documents.unwrap_or_else(|| Documents::new(limits.document_memory));
    let upstreams = Arc::new(Upstreams::new(upstreams, limits.negative_entries, &metrics));
    let negatives = Arc::new(Negatives::new(limits.negative_entries));
    let vouch = Arc::new(Vouch {
        store: store.clone(),
        upstreams: Arc::clone(&upstreams),
        restrictions: Restrictions::new(rules),
        pending: Arc::new(PendingCommits::default()),
        negatives: Arc::clone(&negatives),
    });
    let epochs = Arc::new(Epochs::new(upstreams.registries().cloned()));
    let (misses, tasks) = (Arc::default(), Arc::default());
    Shared { store, limits, documents, upstreams, epochs, negatives, vouch, misses, metrics, tasks }.join()
}

impl Shared<'_> {
    fn join(self) -> Components {
        let (documents, limits) = (self.documents.clone(), self.limits);
        let table = ManifestTable::new(self.store.clone(), Arc::clone(&self.epochs), limits, documents.clone());
        let table = Arc::new(table);
        let list_table =
            ListTable::new(self.store.clone(), Arc::clone(&self.epochs), limits.list_memory, documents.clone());
        let list_table = Arc::new(list_table);
        let metadata = Arc::new(Metadata::new(limits.metadata_memory, Arc::clone(&self.tasks)));
        let (forget, relist) = self.forgetting(&table, &list_table, &metadata);
        let (manifests, presences) = self.manifests(table);
        Components {
            limits: limits.clone(),
            views: Views::new(Arc::clone(&self.upstreams), Arc::clone(&self.epochs)),
            blobs: self.blobs(),
            manifests,
            presences,
            lists: Lists::new(
                self.store.clone(),
                list_table,
                Arc::clone(&self.negatives),
                limits.list_entries,
                documents.clone(),
                Arc::clone(&self.tasks),
            ),
            metadata,
            puts: Arc::new(Puts {
                store: self.store.clone(),
                vouch: Arc::clone(&self.vouch),
                forget: Arc::clone(&forget),
                relist: Arc::clone(&relist),
                epochs: Arc::clone(&self.epochs),
                metrics: Arc::clone(&self.metrics),
            }),
            removals: Arc::new(Removals { forget: Arc::clone(&forget), relist, epochs: Arc::clone(&self.epochs) }),
            purges: Purges { forget: Arc::clone(&forget), epochs: Arc::clone(&self.epochs) },
            arrivals: Arrivals { forget, vouch: Arc::clone(&self.vouch), epochs: Arc::clone(&self.epochs) },
            uploads: self.uploads(),
            documents,
            upstreams: self.upstreams,
            misses: self.misses,
            tasks: self.tasks,
        }
    }

    fn manifests(&self, table: Arc<ManifestTable>) -> (Arc<Manifests>, Presences) {
        let (negatives, metrics) = (Arc::clone(&self.negatives), Arc::clone(&self.metrics));
        let named = Named::new(self.limits.negative_entries);
        let fetcher = Arc::new(ManifestFetcher::new(table, named, negatives, metrics));
        let manifests = Manifests::new(Arc::clone(&fetcher), Arc::clone(&self.misses), Arc::clone(&self.tasks));
        let manifests = Arc::new(manifests);
        let presences = Presences::new(Arc::clone(&manifests), fetcher, Arc::clone(&self.tasks));
        (manifests, presences)
    }

    fn forgetting(
        &self,
        manifests: &Arc<ManifestTable>,
        lists: &Arc<ListTable>,
        metadata: &Arc<Metadata>,
    ) -> (Arc<Forget>, Arc<Relist>) {
        let forget = Forget {
            store: self.store.clone(),
            manifests: Arc::clone(manifests),
            lists: Arc::clone(lists),
            negatives: Arc::clone(&self.negatives),
            epochs: Arc::clone(&self.epochs),
        };
        let (lists, metadata, epochs) = (Arc::clone(lists), Arc::clone(metadata), Arc::clone(&self.epochs));
        (Arc::new(forget), Arc::new(Relist { lists, metadata, epochs }))
    }

    fn blobs(&self) -> Blobs {
        let context = FillContext {
            store: self.store.clone(),
            vouch: Arc::clone(&self.vouch),
            probes: Probes::new(self.store.clone(), Arc::clone(&self.upstreams), Arc::clone(&self.tasks)),
            metrics: Arc::clone(&self.metrics),
        };
        Blobs {
            store: self.store.clone(),
            vouch: Arc::clone(&self.vouch),
            fills: Fills::new(self.limits.fills, context, Arc::clone(&self.tasks)),
            negatives: Arc::clone(&self.negatives),
            heads: SingleFlight::default(),
            misses: Arc::clone(&self.misses),
            tasks: Arc::clone(&self.tasks),
        }
    }

    fn uploads(&self) -> Uploads {
        let landing = Landing {
            vouch: Arc::clone(&self.vouch),
            epochs: Arc::clone(&self.epochs),
            metrics: Arc::clone(&self.metrics),
            tasks: Arc::clone(&self.tasks),
        };
        let limits = self.limits;
        Uploads::new(self.store.clone(), landing, limits.uploads, limits.stall_timeout, Arc::clone(&self.tasks))
    }
}
