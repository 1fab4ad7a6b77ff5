//! What a write through larder does to answers that are under way: whoever asks after the write's answer never gets what was so
//! before it.
//!
//! Each repository has a epoch. A write raises it before it is forwarded and once more when its answer has been applied. So
//! has each upstream's catalogue, which is raised when a repository comes or goes. Work on an answer (a flight, a fill) knows the
//! epoch that it began under: nobody of a later one joins it, and what it brings is kept only while that epoch is still
//! the current one.
//!
//! StorePermit is shared, applying a write is exclusive: an answer that is being kept when a write begins is on disk before the write's
//! own result replaces it. Repositories share a fixed number of counters, so that memory does not grow with their names; two that
//! share one now and then fetch an answer more than they would have to.

use crate::oci::{Registry, Repository, Tag};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, RwLockReadGuard};

/// Counters that repositories share.
const STRIPES: usize = 4096;

/// When an answer was begun, as writes count time. It means something only for the repository or catalogue that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Epoch(u64);

/// What a write changes, beyond the lists of its repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WriteScope {
    /// Sets or removes these tags; content that it adds harms nobody.
    Tags(Vec<Tag>),
    /// May remove anything.
    Everything,
}

impl WriteScope {
    fn conflicts(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tags(some), Self::Tags(others)) => some.iter().any(|tag| others.contains(tag)),
            _ => true,
        }
    }
}

#[derive(Debug)]
pub(super) struct Epochs {
    stripes: Vec<Stripe>,
    hasher: RandomState,
    catalogues: HashMap<Registry, Stripe>,
    under_way: Mutex<HashMap<Repository, Vec<Arc<PendingWrite>>>>,
}

#[derive(Debug, Default)]
struct Stripe {
    epoch: AtomicU64,
    keeping: Arc<RwLock<()>>,
}

/// A write that has not been applied yet.
#[derive(Debug)]
struct PendingWrite {
    touch: WriteScope,
    /// Whether another write was under way at the same time that changes the same: which of them upstream did last is not known.
    conflicted: AtomicBool,
}

impl Stripe {
    fn current(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    fn raise(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    async fn keep(&self, begun: Epoch) -> Option<StorePermit<'_>> {
        let keeping = self.look().await;
        (self.current() == begun).then_some(keeping)
    }

    async fn look(&self) -> StorePermit<'_> {
        StorePermit(self.keeping.read().await)
    }
}

/// Leave to keep an answer, or to remember what was read from disk. Not to be asked for by whoever has it already.
#[derive(Debug)]
pub(super) struct StorePermit<'a>(#[expect(dead_code, reason = "held, not read")] RwLockReadGuard<'a, ()>);

impl Epochs {
    pub(super) fn new(registries: impl IntoIterator<Item = Registry>) -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| Stripe::default()).collect(),
            hasher: RandomState::new(),
            catalogues: registries.into_iter().map(|registry| (registry, Stripe::default())).collect(),
            under_way: Mutex::default(),
        }
    }

    fn stripe(&self, repository: &Repository) -> &Stripe {
        let hash = usize::try_from(self.hasher.hash_one(repository) % STRIPES as u64).unwrap_or_default();
        &self.stripes[hash]
    }

    /// The epoch of what is known of `repository`; to be read before that is.
    pub(super) fn current(&self, repository: &Repository) -> Epoch {
        self.stripe(repository).current()
    }

    /// Leave to keep what was begun under `begun`; `None`: there has been a write since.
    pub(super) async fn keep(&self, repository: &Repository, begun: Epoch) -> Option<StorePermit<'_>> {
        self.stripe(repository).keep(begun).await
    }

    /// Leave to remember what the disk says now.
    pub(super) async fn look(&self, repository: &Repository) -> StorePermit<'_> {
        self.stripe(repository).look().await
    }

    /// As [`Self::current`], of what is of a repository or, without one, of the upstream's list of repositories.
    pub(super) fn current_of(&self, registry: &Registry, repository: Option<&Repository>) -> Epoch {
        self.stripe_of(registry, repository).map_or(Epoch(0), Stripe::current)
    }

    /// As [`Self::keep`], likewise.
    pub(super) async fn keep_of(
        &self,
        registry: &Registry,
        repository: Option<&Repository>,
        begun: Epoch,
    ) -> Option<StorePermit<'_>> {
        self.stripe_of(registry, repository)?.keep(begun).await
    }

    /// As [`Self::look`], likewise.
    pub(super) async fn look_of(
        &self,
        registry: &Registry,
        repository: Option<&Repository>,
    ) -> Option<StorePermit<'_>> {
        Some(self.stripe_of(registry, repository)?.look().await)
    }

    fn stripe_of(&self, registry: &Registry, repository: Option<&Repository>) -> Option<&Stripe> {
        repository.map_or_else(|| self.catalogues.get(registry), |repository| Some(self.stripe(repository)))
    }

    /// The upstream's list of repositories is about to be changed: what was begun before is kept no more, and nothing is kept until the
    /// result is dropped. To be asked for after a repository's write is settled, never before.
    pub(super) async fn change_catalogue(&self, registry: &Registry) -> Option<OwnedRwLockWriteGuard<()>> {
        let stripe = self.catalogues.get(registry)?;
        let exclusive = Arc::clone(&stripe.keeping).write_owned().await;
        stripe.raise();
        Some(exclusive)
    }

    /// A write is about to be forwarded.
    pub(super) fn begin(self: &Arc<Self>, repository: &Repository, touch: WriteScope) -> Write {
        let pending = Arc::new(PendingWrite { touch, conflicted: AtomicBool::new(false) });
        let mut under_way = self.under_way.lock();
        let others = under_way.entry(repository.clone()).or_default();
        for other in others.iter().filter(|other| other.touch.conflicts(&pending.touch)) {
            other.conflicted.store(true, Ordering::SeqCst);
            pending.conflicted.store(true, Ordering::SeqCst);
        }
        others.push(Arc::clone(&pending));
        drop(under_way);
        let write = Write { epochs: Arc::clone(self), repository: repository.clone(), pending };
        write.raise();
        write
    }
}

/// A write under way. However it ends, the epoch is raised again.
#[derive(Debug)]
pub(super) struct Write {
    epochs: Arc<Epochs>,
    repository: Repository,
    pending: Arc<PendingWrite>,
}

impl Write {
    /// Upstream has answered. Until the result is dropped nobody keeps anything of the repository.
    pub(super) async fn apply(self) -> Applying {
        let exclusive = Arc::clone(&self.epochs.stripe(&self.repository).keeping).write_owned().await;
        Applying { write: self, _exclusive: exclusive }
    }

    fn raise(&self) {
        self.epochs.stripe(&self.repository).raise();
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        let mut under_way = self.epochs.under_way.lock();
        if let Some(others) = under_way.get_mut(&self.repository) {
            others.retain(|other| !Arc::ptr_eq(other, &self.pending));
            if others.is_empty() {
                under_way.remove(&self.repository);
            }
        }
        drop(under_way);
        self.raise();
    }
}

/// A write whose result is being applied. The epoch is raised before others may keep again.
#[derive(Debug)]
pub(super) struct Applying {
    write: Write,
    _exclusive: OwnedRwLockWriteGuard<()>,
}

impl Applying {
    /// Whether another write changed the same meanwhile, so that nobody knows what is so now: nothing is to be kept.
    pub(super) fn is_conflicted(&self) -> bool {
        self.write.pending.conflicted.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    /// Long enough for whatever need not wait: the clock is paused.
    const MOMENT: Duration = Duration::from_millis(1);

    fn epochs() -> (Arc<Epochs>, Repository) {
        let registry = Registry::new("a.io");
        let repository = Repository { registry: registry.clone(), name: "x".parse().unwrap() };
        (Arc::new(Epochs::new([registry])), repository)
    }

    fn tags(names: &[&str]) -> WriteScope {
        WriteScope::Tags(names.iter().map(|name| name.parse().unwrap()).collect())
    }

    #[tokio::test]
    async fn what_began_before_or_during_a_write_is_not_kept_and_what_began_after_is() {
        let (epochs, it) = epochs();
        let before = epochs.current(&it);
        assert!(epochs.keep(&it, before).await.is_some());
        let write = epochs.begin(&it, WriteScope::Everything);
        let during = epochs.current(&it);
        assert!(epochs.keep(&it, before).await.is_none());
        drop(write.apply().await);
        assert!(epochs.keep(&it, before).await.is_none() && epochs.keep(&it, during).await.is_none());
        assert!(epochs.keep(&it, epochs.current(&it)).await.is_some());
    }

    #[tokio::test]
    async fn a_write_that_nobody_waits_for_any_more_counts_all_the_same() {
        let (epochs, it) = epochs();
        let write = epochs.begin(&it, WriteScope::Everything);
        let during = epochs.current(&it);
        drop(write);
        assert!(epochs.keep(&it, during).await.is_none());
        assert!(epochs.under_way.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_catalogue_changes_by_itself_and_holds_up_no_repository() {
        let (epochs, it) = epochs();
        let before = epochs.current_of(&it.registry, None);
        drop(epochs.begin(&it, WriteScope::Everything).apply().await);
        assert!(epochs.keep_of(&it.registry, None, before).await.is_some(), "most writes do not change it");
        let changing = epochs.change_catalogue(&it.registry).await;
        assert!(timeout(MOMENT, epochs.look_of(&it.registry, None)).await.is_err());
        assert!(timeout(MOMENT, epochs.look(&it)).await.is_ok());
        drop(changing);
        assert!(epochs.keep_of(&it.registry, None, before).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_waits_for_what_is_being_kept_and_nobody_keeps_while_it_is_applied() {
        let (epochs, it) = epochs();
        let keeping = epochs.keep(&it, epochs.current(&it)).await;
        let write = epochs.begin(&it, WriteScope::Everything);
        let mut settle = Box::pin(write.apply());
        assert!(timeout(MOMENT, settle.as_mut()).await.is_err());
        drop(keeping);
        let applying = settle.await;
        assert!(timeout(MOMENT, epochs.look(&it)).await.is_err());
        drop(applying);
        assert!(timeout(MOMENT, epochs.look(&it)).await.is_ok());
    }

    #[tokio::test]
    async fn writes_that_change_the_same_at_the_same_time_disturb_each_other() {
        let (epochs, it) = epochs();
        let conflicted = async |one: WriteScope, other: WriteScope| {
            let (one, other) = (epochs.begin(&it, one), epochs.begin(&it, other));
            let first = one.apply().await.is_conflicted();
            assert_eq!(other.apply().await.is_conflicted(), first);
            first
        };
        assert!(conflicted(tags(&["v1"]), tags(&["v2", "v1"])).await);
        assert!(!conflicted(tags(&["v1"]), tags(&["v2"])).await);
        assert!(conflicted(tags(&[]), WriteScope::Everything).await);
        assert!(!conflicted(tags(&[]), tags(&[])).await);
        let alone = epochs.begin(&it, WriteScope::Everything).apply().await.is_conflicted();
        assert!(!alone, "one after the other is no conflict");
    }
}
