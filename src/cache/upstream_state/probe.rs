use super::upstreams::Upstreams;
use crate::cache::single_flight::SingleFlight;
use crate::cache::tasks::Tasks;
use crate::oci::Registry;
use crate::store::Store;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// How long a download that has to make room waits for upstreams to say that they are there.
const PROBE_WAIT: Duration = Duration::from_millis(500);
/// How often upstreams are probed as long as room is to be made.
const ROUND: Duration = Duration::from_secs(20);

/// Asks upstreams whether they are there, before what they have given is removed to make room.
#[derive(Debug)]
pub(in crate::cache) struct Probes {
    store: Store,
    upstreams: Arc<Upstreams>,
    flights: SingleFlight<Registry, ()>,
    tasks: Arc<Tasks>,
}

impl Probes {
    /// Begins to watch the store, for as long as the result is held. To be called in a runtime.
    pub(in crate::cache) fn new(store: Store, upstreams: Arc<Upstreams>, tasks: Arc<Tasks>) -> Arc<Self> {
        let probes = Arc::new(Self { store, upstreams, flights: SingleFlight::default(), tasks });
        probes.tasks.spawn(watch(Arc::downgrade(&probes)));
        probes
    }

    /// Probes the upstreams that have said nothing just now, or only those of them in an outage, and waits for the answers, not for
    /// long. Those in an outage are not waited for.
    pub(in crate::cache) async fn probe_idle(&self, only_in_outage: bool) {
        let end = Instant::now() + PROBE_WAIT;
        let (mut asked, mut away) = (Vec::new(), Vec::new());
        for upstream in self.upstreams.all().filter(|it| !it.sealed && it.availability.is_to_be_probed()) {
            let in_outage = upstream.availability.is_in_outage();
            if only_in_outage && !in_outage {
                continue;
            }
            let state = Arc::clone(upstream);
            let work = || async move { state.ping().await };
            let probe = self.flights.join(upstream.name().clone(), &self.tasks, work);
            if in_outage {
                away.push(probe);
            } else {
                asked.push((upstream, probe));
            }
        }
        for (upstream, probe) in asked {
            if timeout(end - Instant::now(), probe.result()).await.is_err() {
                upstream.availability.missed_probe();
            }
        }
    }
}

/// Probes all as long as room is to be made, and those in an outage as long as something is held for them.
async fn watch(weak: Weak<Probes>) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let Some(probes) = weak.upgrade() else { return };
        let all = probes.store.wants_eviction();
        if all || probes.store.usage().held > 0 {
            probes.probe_idle(!all).await;
        }
    }
}
