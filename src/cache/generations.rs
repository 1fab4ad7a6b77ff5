//! What a write through larder does to answers that are under way: whoever asks after the write's answer never gets what was so
//! before it.
//!
//! Each repository has a generation. A write raises it before it is forwarded and once more when its answer has been applied. So
//! has each upstream's catalogue, which is raised when a repository comes or goes. Work on an answer (a flight, a fill) knows the
//! generation that it began under: nobody of a later one joins it, and what it brings is kept only while that generation is still
//! the current one.
//!
//! Keeping is shared, applying a write is exclusive: an answer that is being kept when a write begins is on disk before the write's
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
pub(super) struct Generation(u64);

/// What a write changes, beyond the lists of its repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    /// Sets or removes these tags; content that it adds harms nobody.
    Tags(Vec<Tag>),
    /// May remove anything.
    Everything,
}

impl Touch {
    fn conflicts(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tags(some), Self::Tags(others)) => some.iter().any(|tag| others.contains(tag)),
            _ => true,
        }
    }
}

#[derive(Debug)]
pub(super) struct Generations {
    stripes: Vec<Stripe>,
    hasher: RandomState,
    catalogues: HashMap<Registry, Stripe>,
    under_way: Mutex<HashMap<Repository, Vec<Arc<Flying>>>>,
}

#[derive(Debug, Default)]
struct Stripe {
    generation: AtomicU64,
    keeping: Arc<RwLock<()>>,
}

/// A write that has not been applied yet.
#[derive(Debug)]
struct Flying {
    touch: Touch,
    /// Whether another write was under way at the same time that changes the same: which of them upstream did last is not known.
    disturbed: AtomicBool,
}

impl Stripe {
    fn current(&self) -> Generation {
        Generation(self.generation.load(Ordering::SeqCst))
    }

    fn raise(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    async fn keep(&self, begun: Generation) -> Option<Keeping<'_>> {
        let keeping = self.look().await;
        (self.current() == begun).then_some(keeping)
    }

    async fn look(&self) -> Keeping<'_> {
        Keeping(self.keeping.read().await)
    }
}

/// Leave to keep an answer, or to remember what was read from disk. Not to be asked for by whoever has it already.
#[derive(Debug)]
pub(super) struct Keeping<'a>(#[expect(dead_code, reason = "held, not read")] RwLockReadGuard<'a, ()>);

impl Generations {
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

    /// The generation of what is known of `repository`; to be read before that is.
    pub(super) fn current(&self, repository: &Repository) -> Generation {
        self.stripe(repository).current()
    }

    /// Leave to keep what was begun under `begun`; `None`: there has been a write since.
    pub(super) async fn keep(&self, repository: &Repository, begun: Generation) -> Option<Keeping<'_>> {
        self.stripe(repository).keep(begun).await
    }

    /// Leave to remember what the disk says now.
    pub(super) async fn look(&self, repository: &Repository) -> Keeping<'_> {
        self.stripe(repository).look().await
    }

    /// As [`Self::current`], of what is of a repository or, without one, of the upstream's list of repositories.
    pub(super) fn current_of(&self, registry: &Registry, repository: Option<&Repository>) -> Generation {
        self.stripe_of(registry, repository).map_or(Generation(0), Stripe::current)
    }

    /// As [`Self::keep`], likewise.
    pub(super) async fn keep_of(
        &self,
        registry: &Registry,
        repository: Option<&Repository>,
        begun: Generation,
    ) -> Option<Keeping<'_>> {
        self.stripe_of(registry, repository)?.keep(begun).await
    }

    /// As [`Self::look`], likewise.
    pub(super) async fn look_of(&self, registry: &Registry, repository: Option<&Repository>) -> Option<Keeping<'_>> {
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
    pub(super) fn begin(self: &Arc<Self>, repository: &Repository, touch: Touch) -> Write {
        let flying = Arc::new(Flying { touch, disturbed: AtomicBool::new(false) });
        let mut under_way = self.under_way.lock();
        let others = under_way.entry(repository.clone()).or_default();
        for other in others.iter().filter(|other| other.touch.conflicts(&flying.touch)) {
            other.disturbed.store(true, Ordering::SeqCst);
            flying.disturbed.store(true, Ordering::SeqCst);
        }
        others.push(Arc::clone(&flying));
        drop(under_way);
        let write = Write { generations: Arc::clone(self), repository: repository.clone(), flying };
        write.raise();
        write
    }
}

/// A write under way. However it ends, the generation is raised again.
#[derive(Debug)]
pub(super) struct Write {
    generations: Arc<Generations>,
    repository: Repository,
    flying: Arc<Flying>,
}

impl Write {
    /// Upstream has answered. Until the result is dropped nobody keeps anything of the repository.
    pub(super) async fn settle(self) -> Settling {
        let exclusive = Arc::clone(&self.generations.stripe(&self.repository).keeping).write_owned().await;
        Settling { write: self, _exclusive: exclusive }
    }

    fn raise(&self) {
        self.generations.stripe(&self.repository).raise();
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        let mut under_way = self.generations.under_way.lock();
        if let Some(others) = under_way.get_mut(&self.repository) {
            others.retain(|other| !Arc::ptr_eq(other, &self.flying));
            if others.is_empty() {
                under_way.remove(&self.repository);
            }
        }
        drop(under_way);
        self.raise();
    }
}

/// A write whose result is being applied. The generation is raised before others may keep again.
#[derive(Debug)]
pub(super) struct Settling {
    write: Write,
    _exclusive: OwnedRwLockWriteGuard<()>,
}

impl Settling {
    /// Whether another write changed the same meanwhile, so that nobody knows what is so now: nothing is to be kept.
    pub(super) fn is_disturbed(&self) -> bool {
        self.write.flying.disturbed.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    /// Long enough for whatever need not wait: the clock is paused.
    const MOMENT: Duration = Duration::from_millis(1);

    fn generations() -> (Arc<Generations>, Repository) {
        let registry = Registry::new("a.io");
        let repository = Repository { registry: registry.clone(), name: "x".parse().unwrap() };
        (Arc::new(Generations::new([registry])), repository)
    }

    fn tags(names: &[&str]) -> Touch {
        Touch::Tags(names.iter().map(|name| name.parse().unwrap()).collect())
    }

    #[tokio::test]
    async fn what_began_before_or_during_a_write_is_not_kept_and_what_began_after_is() {
        let (generations, it) = generations();
        let before = generations.current(&it);
        assert!(generations.keep(&it, before).await.is_some());
        let write = generations.begin(&it, Touch::Everything);
        let during = generations.current(&it);
        assert!(generations.keep(&it, before).await.is_none());
        drop(write.settle().await);
        assert!(generations.keep(&it, before).await.is_none() && generations.keep(&it, during).await.is_none());
        assert!(generations.keep(&it, generations.current(&it)).await.is_some());
    }

    #[tokio::test]
    async fn a_write_that_nobody_waits_for_any_more_counts_all_the_same() {
        let (generations, it) = generations();
        let write = generations.begin(&it, Touch::Everything);
        let during = generations.current(&it);
        drop(write);
        assert!(generations.keep(&it, during).await.is_none());
        assert!(generations.under_way.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_catalogue_changes_by_itself_and_holds_up_no_repository() {
        let (generations, it) = generations();
        let before = generations.current_of(&it.registry, None);
        drop(generations.begin(&it, Touch::Everything).settle().await);
        assert!(generations.keep_of(&it.registry, None, before).await.is_some(), "most writes do not change it");
        let changing = generations.change_catalogue(&it.registry).await;
        assert!(timeout(MOMENT, generations.look_of(&it.registry, None)).await.is_err());
        assert!(timeout(MOMENT, generations.look(&it)).await.is_ok());
        drop(changing);
        assert!(generations.keep_of(&it.registry, None, before).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_waits_for_what_is_being_kept_and_nobody_keeps_while_it_is_applied() {
        let (generations, it) = generations();
        let keeping = generations.keep(&it, generations.current(&it)).await;
        let write = generations.begin(&it, Touch::Everything);
        let mut settle = Box::pin(write.settle());
        assert!(timeout(MOMENT, settle.as_mut()).await.is_err());
        drop(keeping);
        let settling = settle.await;
        assert!(timeout(MOMENT, generations.look(&it)).await.is_err());
        drop(settling);
        assert!(timeout(MOMENT, generations.look(&it)).await.is_ok());
    }

    #[tokio::test]
    async fn writes_that_change_the_same_at_the_same_time_disturb_each_other() {
        let (generations, it) = generations();
        let disturbed = async |one: Touch, other: Touch| {
            let (one, other) = (generations.begin(&it, one), generations.begin(&it, other));
            let first = one.settle().await.is_disturbed();
            assert_eq!(other.settle().await.is_disturbed(), first);
            first
        };
        assert!(disturbed(tags(&["v1"]), tags(&["v2", "v1"])).await);
        assert!(!disturbed(tags(&["v1"]), tags(&["v2"])).await);
        assert!(disturbed(tags(&[]), Touch::Everything).await);
        assert!(!disturbed(tags(&[]), tags(&[])).await);
        let alone = generations.begin(&it, Touch::Everything).settle().await.is_disturbed();
        assert!(!alone, "one after the other is no conflict");
    }
}
