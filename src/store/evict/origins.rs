//! Which upstreams a blob is known to, so that nothing is removed that none of them can give again at the moment.
//!
//! Each blob in the catalogue carries a bit per registry whose links speak for it, or that it was downloaded from. The store is
//! told which registries are away; a blob that is known to these alone is *held*. What was linked by an earlier process is learned
//! by one walk over all links, on the upkeep's thread, the first time that it matters: before it has ended, and as long as an
//! upstream is away, nothing is removed. A blob that nobody's links speak for answers for nobody and may always go, and so may
//! what belongs to a registry that is not configured any more. What is unlinked keeps its bits until the next start.

use crate::oci::{Digest, Registry, Repository};
use crate::store::blobs::table::Entry;
use crate::store::files::layout::{self, ALGORITHMS};
use crate::store::lifecycle::upkeep::{alive, repository_at};
use crate::store::parts::Inner;
use parking_lot::RwLock;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, Weak};

/// Registries with a bit of their own. Any further ones share the last bit, which is away if one of them is.
const BITS: usize = 64;

/// Names the registries that cannot give again now what they have given; or, asked with `true`, those that perhaps cannot.
pub(crate) type Away = Box<dyn Fn(bool) -> Vec<Registry> + Send + Sync>;

/// A set of registries.
pub(crate) type Registries = u64;

#[derive(Default)]
pub(crate) struct Origins {
    names: RwLock<Vec<Registry>>,
    away: OnceLock<Away>,
    /// Whether the links of earlier processes have been read.
    known: AtomicBool,
    wanted: AtomicBool,
}

impl Origins {
    /// Whom to ask, once.
    pub(crate) fn set_away(&self, away: Away) {
        let _ = self.away.set(away);
    }

    /// The registries that are away now.
    pub(crate) fn away(&self) -> Registries {
        self.ask(false)
    }

    /// Those and the ones that nobody has heard of lately.
    pub(crate) fn perhaps_away(&self) -> Registries {
        self.ask(true)
    }

    fn ask(&self, perhaps: bool) -> Registries {
        let away = self.away.get().map(|away| away(perhaps)).unwrap_or_default();
        away.iter().fold(0, |all, registry| all | self.bit(registry))
    }

    pub(crate) fn bit(&self, registry: &Registry) -> Registries {
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

    /// Whether all blobs carry their bits; if not, they are to be learned.
    pub(crate) fn are_known(&self) -> bool {
        let known = self.known.load(Ordering::Acquire);
        if !known {
            self.wanted.store(true, Ordering::Release);
        }
        known
    }
}

impl Entry {
    /// Whether only registries that are away are known to have it.
    pub(crate) fn is_held(&self, away: Registries) -> bool {
        let origins = self.origins.load(Ordering::Relaxed);
        origins != 0 && origins & !away == 0
    }
}

impl Inner {
    /// A registry has these blobs.
    pub(crate) fn note_origin(&self, registry: &Registry, digests: &[Digest]) {
        let bit = self.origins.bit(registry);
        for entry in digests.iter().filter_map(|digest| self.catalogue.get(digest)) {
            entry.origins.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Bytes that are held as long as these registries are away.
    pub(crate) fn held_bytes(&self, away: Registries) -> u64 {
        let all = self.catalogue.all();
        all.iter().filter(|(_, entry)| entry.is_held(away)).map(|(_, entry)| entry.len).sum()
    }

    /// Says how much is held now.
    pub(crate) fn show_held(&self) {
        let away = self.origins.away();
        let held = if away == 0 { 0 } else { self.held_bytes(away) };
        let gauge = self.metrics.store_held_bytes.with_label_values(&[] as &[&str]);
        gauge.set(i64::try_from(held).unwrap_or(i64::MAX));
    }

    /// Whether something may be held and nothing is shown, or the other way round.
    pub(crate) fn is_held_outdated(&self) -> bool {
        (self.held() > 0) != (self.origins.away() != 0)
    }

    /// What was held when it was last looked at.
    pub(crate) fn held(&self) -> u64 {
        let held = self.metrics.store_held_bytes.with_label_values(&[] as &[&str]).get();
        u64::try_from(held).unwrap_or_default()
    }

    /// Whether the links are to be read now: somebody needed to know, or will soon.
    pub(crate) fn wants_origins(&self) -> bool {
        let origins = &self.origins;
        !origins.known.load(Ordering::Acquire)
            && (origins.wanted.load(Ordering::Acquire) || (self.space.is_nearly_full() && origins.away() != 0))
    }

    fn all_of(&self, repository: &Repository) -> Vec<Digest> {
        let mut all = self
            .mentioned(repository)
            .inspect_err(
                |error| tracing::warn!(%error, repo.name = %repository, "cannot read all links of a repository"),
            )
            .unwrap_or_default();
        for algorithm in ALGORITHMS {
            all.extend(self.linked(&layout::manifests(repository, algorithm), algorithm).unwrap_or_default());
        }
        all
    }
}

/// Reads all links for what they say of where blobs come from. `None`: the store is gone.
pub(crate) fn learn(weak: &Weak<Inner>) -> Option<()> {
    let mut folders = vec![PathBuf::from(layout::REPOSITORIES)];
    while let Some(folder) = folders.pop() {
        let inner = alive(weak)?;
        let entries = inner.files.disk.list(&folder).unwrap_or_default();
        let below = entries.iter().filter(|entry| entry.is_dir && !entry.name.starts_with('_'));
        folders.extend(below.map(|entry| folder.join(&entry.name)));
        if let Some(repository) = repository_at(&inner, &folder) {
            inner.note_origin(&repository.registry, &inner.all_of(&repository));
        }
    }
    let inner = alive(weak)?;
    inner.origins.known.store(true, Ordering::Release);
    inner.show_held();
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_registry_has_its_bit_and_too_many_share_the_last() {
        let origins = Origins::default();
        let registry = |number: usize| Registry::new(&format!("r{number}.example"));
        let bits: Vec<_> = (0..BITS - 1).map(|number| origins.bit(&registry(number))).collect();
        assert_eq!(bits.iter().fold(0, |all, bit| all | bit), u64::MAX >> 1, "63 different ones");
        assert_eq!(origins.bit(&registry(7)), bits[7]);
        assert_eq!(origins.bit(&registry(100)), 1 << 63);
        assert_eq!(origins.bit(&registry(101)), 1 << 63);
        origins.set_away(Box::new(move |_| vec![registry(7), registry(101)]));
        assert_eq!(origins.away(), bits[7] | 1 << 63);
    }
}
