//! Which registries each blob is known to, so that nothing is removed that none of them can give again at the moment.
//!
//! A blob in the table has a bit for each registry that has it: links say so, or it was downloaded from there. A blob that only
//! registries have that are away now is *held*. One walk over all links, the first time that it matters, learns what an earlier
//! process has linked; until then, and as long as a registry is away, nothing is removed. A blob without a link may always go, and
//! so may the content of a registry that is not configured any more. A blob whose link is removed keeps its bits until the next
//! start.

use crate::oci::{Digest, Registry};
use crate::store::blobs::{BlobTable, Registries};
use crate::telemetry::Metrics;
use parking_lot::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Registries with a bit of their own. Any further ones share the last bit, which is away if one of them is.
const BITS: usize = 64;

/// Knows which registries can give content again if it is removed now. It is asked on the store's threads and must answer at once.
pub trait AwayRegistries: Send + Sync {
    /// Registries that cannot give anything now.
    fn away(&self) -> Vec<Registry>;
    /// These, and the registries that have not answered lately.
    fn away_or_silent(&self) -> Vec<Registry>;
}

pub(crate) struct Origins {
    names: RwLock<Vec<Registry>>,
    registries: OnceLock<Arc<dyn AwayRegistries>>,
    /// Whether the links of earlier processes have been read.
    known: AtomicBool,
    wanted: AtomicBool,
    table: Arc<BlobTable>,
    metrics: Arc<Metrics>,
}

impl Origins {
    pub(crate) fn new(table: Arc<BlobTable>, metrics: Arc<Metrics>) -> Self {
        let (names, registries) = (RwLock::default(), OnceLock::new());
        Self { names, registries, known: AtomicBool::new(false), wanted: AtomicBool::new(false), table, metrics }
    }

    /// Says once what to ask.
    pub(crate) fn set_away_registries(&self, registries: Arc<dyn AwayRegistries>) {
        let _ = self.registries.set(registries);
    }

    pub(crate) fn away(&self) -> Registries {
        self.bits(self.registries.get().map(|registries| registries.away()))
    }

    pub(crate) fn away_or_silent(&self) -> Registries {
        self.bits(self.registries.get().map(|registries| registries.away_or_silent()))
    }

    fn bits(&self, registries: Option<Vec<Registry>>) -> Registries {
        registries.unwrap_or_default().iter().fold(0, |all, registry| all | self.bit(registry))
    }

    fn bit(&self, registry: &Registry) -> Registries {
        let place = |names: &[Registry]| names.iter().position(|name| name == registry);
        let known = place(&self.names.read());
        let place = known.unwrap_or_else(|| {
            let mut names = self.names.write();
            place(&names).unwrap_or_else(|| {
                if names.len() < BITS - 1 {
                    names.push(registry.clone());
                    return names.len() - 1;
                }
                BITS - 1
            })
        });
        1 << place
    }

    /// Notes that a registry has these blobs.
    pub(crate) fn note(&self, registry: &Registry, digests: &[Digest]) {
        let bit = self.bit(registry);
        for entry in digests.iter().filter_map(|digest| self.table.get(digest)) {
            entry.add_origins(bit);
        }
    }

    /// Whether all blobs have their bits. If not, the next round of the upkeep reads them.
    pub(crate) fn are_known(&self) -> bool {
        let known = self.known.load(Ordering::Acquire);
        if !known {
            self.wanted.store(true, Ordering::Release);
        }
        known
    }

    /// All links have been read.
    pub(crate) fn set_known(&self) {
        self.known.store(true, Ordering::Release);
        self.show_held();
    }

    /// Whether the links are to be read now: an eviction needed them, or will soon.
    pub(crate) fn wants_links(&self, is_nearly_full: bool) -> bool {
        !self.known.load(Ordering::Acquire)
            && (self.wanted.load(Ordering::Acquire) || (is_nearly_full && self.away() != 0))
    }

    pub(crate) fn show_held(&self) {
        let away = self.away();
        let held = if away == 0 { 0 } else { self.held_bytes(away) };
        let gauge = self.metrics.store_held_bytes.with_label_values(&[] as &[&str]);
        gauge.set(i64::try_from(held).unwrap_or(i64::MAX));
    }

    fn held_bytes(&self, away: Registries) -> u64 {
        let all = self.table.all();
        all.iter().filter(|(_, entry)| entry.is_held(away)).map(|(_, entry)| entry.len).sum()
    }

    /// Whether something may be held and nothing is shown, or the other way round.
    pub(crate) fn is_held_outdated(&self) -> bool {
        (self.held() > 0) != (self.away() != 0)
    }

    /// What was held when it was last counted.
    pub(crate) fn held(&self) -> u64 {
        let held = self.metrics.store_held_bytes.with_label_values(&[] as &[&str]).get();
        u64::try_from(held).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Away(Vec<Registry>);

    impl AwayRegistries for Away {
        fn away(&self) -> Vec<Registry> {
            self.0.clone()
        }

        fn away_or_silent(&self) -> Vec<Registry> {
            Vec::new()
        }
    }

    #[test]
    fn every_registry_has_its_bit_and_too_many_share_the_last() {
        let metrics = Arc::new(Metrics::new());
        let table = Arc::new(BlobTable::new(metrics.store_objects.with_label_values(&["blob"])));
        let origins = Origins::new(table, metrics);
        let registry = |number: usize| Registry::new(&format!("r{number}.example"));
        let bits: Vec<_> = (0..BITS - 1).map(|number| origins.bit(&registry(number))).collect();
        assert_eq!(bits.iter().fold(0, |all, bit| all | bit), u64::MAX >> 1, "63 different ones");
        assert_eq!(origins.bit(&registry(7)), bits[7]);
        assert_eq!(origins.bit(&registry(100)), 1 << 63);
        assert_eq!(origins.bit(&registry(101)), 1 << 63);
        origins.set_away_registries(Arc::new(Away(vec![registry(7), registry(101)])));
        assert_eq!(origins.away(), bits[7] | 1 << 63);
        assert_eq!(origins.away_or_silent(), 0);
    }
}
