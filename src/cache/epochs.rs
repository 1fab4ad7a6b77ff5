//! Epochs: what a write through larder does to answers that are under way. A request that begins after the write's answer never
//! gets what was true before the write.
//!
//! Each repository has an epoch. A write raises it before it is forwarded, and once more when its answer has been applied. The
//! catalogue of each upstream has one too; it rises when a repository comes or goes. Work on an answer (a flight, a fill) knows
//! the epoch that it began under. No request of a later epoch joins it, and its result is stored only while that epoch is current.
//!
//! Storing is shared, applying a write is exclusive: an answer that is being stored when a write begins is on disk before the
//! write's own result replaces it. The permits of this module are arguments of whatever stores or removes, so the compiler holds
//! that rule. Repositories share a fixed number of counters, so that memory does not grow with their names. Two that share one
//! sometimes fetch an answer more often than they have to.

use crate::oci::{Registry, Repository, Tag};
use crate::store::ListKey;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, RwLockReadGuard};

/// Counters that repositories share.
const STRIPES: usize = 4096;

/// When an answer was begun, as writes count time. It means something only within its scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Epoch(u64);

/// What an epoch counts the writes of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope<'a> {
    Repository(&'a Repository),
    /// The list of an upstream's repositories.
    Catalogue(&'a Registry),
}

impl<'a> From<&'a Repository> for Scope<'a> {
    fn from(repository: &'a Repository) -> Self {
        Self::Repository(repository)
    }
}

impl<'a> From<&'a ListKey> for Scope<'a> {
    fn from(key: &'a ListKey) -> Self {
        match key {
            ListKey::Catalogue(registry) => Self::Catalogue(registry),
            ListKey::Tags(repository) | ListKey::Referrers(repository, _) => Self::Repository(repository),
        }
    }
}

/// What a write changes, beyond the lists of its repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WriteScope {
    /// It sets or removes these tags. Content that it adds harms nothing.
    Tags(Vec<Tag>),
    /// It may remove anything.
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
    pending: Mutex<HashMap<Repository, Vec<Arc<PendingWrite>>>>,
}

#[derive(Debug, Default)]
struct Stripe {
    epoch: AtomicU64,
    storing: Arc<RwLock<()>>,
}

/// A write that has not been applied yet.
#[derive(Debug)]
struct PendingWrite {
    scope: WriteScope,
    /// Whether another write that changes the same was pending at the same time: which of them upstream did last is not known.
    conflicted: AtomicBool,
}

impl Stripe {
    fn current(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    fn raise(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }
}

/// Permit to store an answer, or to remember what was read from disk. Not re-entrant: a task that holds one must not ask for
/// another, since a write that waits between the two would block both.
#[derive(Debug)]
pub(super) struct StorePermit<'a>(#[expect(dead_code, reason = "held, not read")] Option<RwLockReadGuard<'a, ()>>);

impl Epochs {
    pub(super) fn new(registries: impl IntoIterator<Item = Registry>) -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| Stripe::default()).collect(),
            hasher: RandomState::new(),
            catalogues: registries.into_iter().map(|registry| (registry, Stripe::default())).collect(),
            pending: Mutex::default(),
        }
    }

    fn stripe(&self, scope: Scope<'_>) -> &Stripe {
        let by_hash = |hash: u64| &self.stripes[usize::try_from(hash % STRIPES as u64).unwrap_or_default()];
        match scope {
            Scope::Repository(repository) => by_hash(self.hasher.hash_one(repository)),
            Scope::Catalogue(registry) => {
                self.catalogues.get(registry).unwrap_or_else(|| by_hash(self.hasher.hash_one(registry)))
            }
        }
    }

    /// The epoch of what is known in `scope`; to be read before that is.
    pub(super) fn current<'a>(&self, scope: impl Into<Scope<'a>>) -> Epoch {
        self.stripe(scope.into()).current()
    }

    /// Permit to store what was begun under `begun`; `None`: there has been a write since.
    pub(super) async fn store_permit<'a>(&self, scope: impl Into<Scope<'a>>, begun: Epoch) -> Option<StorePermit<'_>> {
        let stripe = self.stripe(scope.into());
        let permit = StorePermit(Some(stripe.storing.read().await));
        (stripe.current() == begun).then_some(permit)
    }

    /// Permit to remember what the disk says now.
    pub(super) async fn read_permit<'a>(&self, scope: impl Into<Scope<'a>>) -> StorePermit<'_> {
        StorePermit(Some(self.stripe(scope.into()).storing.read().await))
    }

    /// A change of an upstream's catalogue is about to be applied. Taken while a repository's write is being applied, never before:
    /// the order keeps two writes from waiting for each other.
    pub(super) async fn change_catalogue(&self, registry: &Registry) -> CatalogueChange {
        let stripe = self.stripe(Scope::Catalogue(registry));
        let exclusive = Arc::clone(&stripe.storing).write_owned().await;
        stripe.raise();
        CatalogueChange(exclusive)
    }

    /// A write is about to be forwarded: its repository's epoch is raised.
    pub(super) fn begin(self: &Arc<Self>, repository: &Repository, scope: WriteScope) -> Write {
        let write = Arc::new(PendingWrite { scope, conflicted: AtomicBool::new(false) });
        let mut pending = self.pending.lock();
        let others = pending.entry(repository.clone()).or_default();
        for other in others.iter().filter(|other| other.scope.conflicts(&write.scope)) {
            other.conflicted.store(true, Ordering::SeqCst);
            write.conflicted.store(true, Ordering::SeqCst);
        }
        others.push(Arc::clone(&write));
        drop(pending);
        let write = Write { epochs: Arc::clone(self), repository: repository.clone(), pending: write };
        write.raise();
        write
    }
}

/// A catalogue that is being changed: nothing is stored of it meanwhile, and nothing that was begun before.
#[derive(Debug)]
pub(super) struct CatalogueChange(#[expect(dead_code, reason = "held, not read")] OwnedRwLockWriteGuard<()>);

impl CatalogueChange {
    /// Permit to store the changed list.
    #[expect(clippy::unused_self, reason = "the permit must not outlive it")]
    pub(super) fn store_permit(&self) -> StorePermit<'_> {
        StorePermit(None)
    }
}

/// A write that has been, or is about to be, forwarded. However it ends, the epoch is raised again.
#[derive(Debug)]
pub(super) struct Write {
    epochs: Arc<Epochs>,
    repository: Repository,
    pending: Arc<PendingWrite>,
}

impl Write {
    /// Upstream has answered. Until the result is dropped nothing else is stored for the repository.
    pub(super) async fn apply(self) -> Applying {
        let stripe = self.epochs.stripe(Scope::Repository(&self.repository));
        let exclusive = Arc::clone(&stripe.storing).write_owned().await;
        Applying { write: self, _exclusive: exclusive }
    }

    fn raise(&self) {
        self.epochs.stripe(Scope::Repository(&self.repository)).raise();
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        let mut pending = self.epochs.pending.lock();
        if let Some(others) = pending.get_mut(&self.repository) {
            others.retain(|other| !Arc::ptr_eq(other, &self.pending));
            if others.is_empty() {
                pending.remove(&self.repository);
            }
        }
        drop(pending);
        self.raise();
    }
}

/// A write whose result is being applied. The epoch is raised before anything else may be stored again.
#[derive(Debug)]
pub(super) struct Applying {
    write: Write,
    _exclusive: OwnedRwLockWriteGuard<()>,
}

impl Applying {
    /// Whether another write changed the same meanwhile. What is true now is not known then, and nothing is stored.
    pub(super) fn is_conflicted(&self) -> bool {
        self.write.pending.conflicted.load(Ordering::SeqCst)
    }

    /// Permit to store the write's own result.
    #[expect(clippy::unused_self, reason = "the permit must not outlive it")]
    pub(super) fn store_permit(&self) -> StorePermit<'_> {
        StorePermit(None)
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
        assert!(epochs.store_permit(&it, before).await.is_some());
        let write = epochs.begin(&it, WriteScope::Everything);
        let during = epochs.current(&it);
        assert!(epochs.store_permit(&it, before).await.is_none());
        drop(write.apply().await);
        assert!(epochs.store_permit(&it, before).await.is_none() && epochs.store_permit(&it, during).await.is_none());
        assert!(epochs.store_permit(&it, epochs.current(&it)).await.is_some());
    }

    #[tokio::test]
    async fn a_write_that_nobody_waits_for_any_more_counts_all_the_same() {
        let (epochs, it) = epochs();
        let write = epochs.begin(&it, WriteScope::Everything);
        let during = epochs.current(&it);
        drop(write);
        assert!(epochs.store_permit(&it, during).await.is_none());
        assert!(epochs.pending.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_catalogue_changes_by_itself_and_holds_up_no_repository() {
        let (epochs, it) = epochs();
        let before = epochs.current(Scope::Catalogue(&it.registry));
        drop(epochs.begin(&it, WriteScope::Everything).apply().await);
        assert!(
            epochs.store_permit(Scope::Catalogue(&it.registry), before).await.is_some(),
            "most writes do not change it"
        );
        let changing = epochs.change_catalogue(&it.registry).await;
        assert!(timeout(MOMENT, epochs.read_permit(Scope::Catalogue(&it.registry))).await.is_err());
        assert!(timeout(MOMENT, epochs.read_permit(&it)).await.is_ok());
        drop(changing);
        assert!(epochs.store_permit(Scope::Catalogue(&it.registry), before).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_waits_for_what_is_being_kept_and_nobody_keeps_while_it_is_applied() {
        let (epochs, it) = epochs();
        let keeping = epochs.store_permit(&it, epochs.current(&it)).await;
        let write = epochs.begin(&it, WriteScope::Everything);
        let mut settle = Box::pin(write.apply());
        assert!(timeout(MOMENT, settle.as_mut()).await.is_err());
        drop(keeping);
        let applying = settle.await;
        assert!(timeout(MOMENT, epochs.read_permit(&it)).await.is_err());
        drop(applying);
        assert!(timeout(MOMENT, epochs.read_permit(&it)).await.is_ok());
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
