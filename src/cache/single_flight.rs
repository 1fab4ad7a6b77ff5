//! At most one piece of work under way per key.

use super::error::CacheError;
use super::tasks::Tasks;
use crate::upstream::{Interest, while_wanted};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;

/// What is under way, by key: what is shared with those who join it.
#[derive(Debug)]
pub(super) struct Running<K, T>(Arc<Mutex<HashMap<K, Arc<T>>>>);

/// A key's place among what is under way. Dropping it frees the key, also when the work panics.
#[derive(Debug)]
pub(super) struct Entry<K: Eq + Hash, T> {
    key: K,
    value: Arc<T>,
    running: Running<K, T>,
}

pub(super) enum Joined<R, K: Eq + Hash, T> {
    Running(R),
    Begun(Entry<K, T>),
}

impl<K, T> Default for Running<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, T> Clone for Running<K, T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Clone + Eq + Hash, T> Running<K, T> {
    /// What is under way for the key, which is made only if anything is.
    pub(super) fn get_with(&self, key: impl FnOnce() -> K) -> Option<Arc<T>> {
        let running = self.0.lock();
        if running.is_empty() { None } else { running.get(&key()).cloned() }
    }

    /// Joins what is under way for `key`, or else what `begin` makes. `join` runs while nothing can be given up.
    pub(super) fn join<R, E>(
        &self,
        key: K,
        join: impl FnOnce(&Arc<T>) -> R,
        begin: impl FnOnce() -> Result<Arc<T>, E>,
    ) -> Result<Joined<R, K, T>, E> {
        let mut running = self.0.lock();
        if let Some(value) = running.get(&key) {
            return Ok(Joined::Running(join(value)));
        }
        let value = begin()?;
        running.insert(key.clone(), Arc::clone(&value));
        drop(running);
        Ok(Joined::Begun(Entry { key, value, running: self.clone() }))
    }
}

impl<K: Eq + Hash, T> Entry<K, T> {
    pub(super) fn value(&self) -> &Arc<T> {
        &self.value
    }

    /// Frees the key if `may` says so, which is asked while nothing can join; what it said.
    fn free_if(&self, may: impl FnOnce(&T) -> bool) -> bool {
        let mut running = self.running.0.lock();
        let frees = may(&self.value);
        if frees && running.get(&self.key).is_some_and(|running| Arc::ptr_eq(running, &self.value)) {
            running.remove(&self.key);
        }
        frees
    }
}

impl<K: Eq + Hash, T> Drop for Entry<K, T> {
    fn drop(&mut self) {
        self.free_if(|_| true);
    }
}

/// Work whose result goes to every request that asks for it meanwhile.
///
/// It runs on its own task: the request that began it may leave without hurting the others. When all have left it continues, unless
/// others wait for the connection that it waits for or uses.
#[derive(Debug)]
pub(super) struct SingleFlight<K, V>(Running<K, watch::Sender<Option<V>>>);

/// A request that waits for the result.
#[derive(Debug)]
pub(super) struct Waiter<V> {
    /// Whether this request began the work.
    pub(super) first: bool,
    result: watch::Receiver<Option<V>>,
}

impl<V: Clone> Waiter<V> {
    /// The result. `None` if the work ended without one: it panicked or the process is stopping.
    pub(super) async fn result(mut self) -> Option<V> {
        let result = self.result.wait_for(Option::is_some).await.ok()?;
        result.clone()
    }
}

impl<T: Clone, E: Clone + Into<CacheError>> Waiter<Result<T, E>> {
    pub(super) async fn answer(self) -> Result<T, CacheError> {
        self.result().await.ok_or(CacheError::Aborted)?.map_err(Into::into)
    }
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self(Running::default())
    }
}

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Joins the work under way for `key`, or begins `work`.
    pub(super) fn join<F>(&self, key: K, tasks: &Tasks, work: impl FnOnce() -> F) -> Waiter<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (sender, own) = watch::channel(None);
        let begin = || Ok::<_, std::convert::Infallible>(Arc::new(sender));
        let Ok(joined) = self.0.join(key, |sender| sender.subscribe(), begin);
        let entry = match joined {
            Joined::Running(result) => return Waiter { first: false, result },
            Joined::Begun(entry) => Arc::new(entry),
        };
        let work = while_wanted(Arc::clone(&entry) as Arc<dyn Interest>, work());
        tasks.spawn(async move {
            let value = work.await;
            // The key is free first: what asks from now on begins anew instead of getting an old result.
            entry.free_if(|_| true);
            let _ = entry.value.send(Some(value));
        });
        Waiter { first: true, result: own }
    }
}

impl<K: Eq + Hash + Send + Sync, V: Send + Sync> Interest for Entry<K, watch::Sender<Option<V>>> {
    fn gone(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.value.closed())
    }

    fn give_up(&self) -> bool {
        self.free_if(|sender| sender.receiver_count() == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn one_runs_and_all_get_the_result_even_when_the_first_leaves() {
        let (tasks, flights) = (Tasks::default(), SingleFlight::<&str, usize>::default());
        let runs = Arc::new(AtomicUsize::new(0));
        let join = || {
            let runs = Arc::clone(&runs);
            flights.join("key", &tasks, || async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                runs.fetch_add(1, Ordering::SeqCst) + 1
            })
        };
        let first = join();
        assert!(first.first);
        let second = join();
        assert!(!second.first);
        drop(first);
        assert_eq!(second.result().await, Some(1));
        assert_eq!(join().result().await, Some(2), "a later one begins anew");
    }

    #[tokio::test]
    async fn a_panic_frees_the_key_and_tells_the_waiters() {
        let (tasks, flights) = (Tasks::default(), SingleFlight::<u8, ()>::default());
        let waiter = flights.join(1, &tasks, || async { panic!("on purpose") });
        assert_eq!(waiter.result().await, None);
        assert!(flights.join(1, &tasks, || async {}).first);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_given_up_and_nobody_joins_it_then() {
        let (tasks, flights) = (Tasks::default(), SingleFlight::<u8, u8>::default());
        let waiter = flights.join(1, &tasks, std::future::pending);
        let entry =
            Entry { key: 1, running: flights.0.clone(), value: Arc::clone(flights.0.0.lock().get(&1).unwrap()) };
        assert!(!entry.give_up(), "a request waits");
        drop(waiter);
        entry.gone().await;
        let joined = flights.join(1, &tasks, || async { 2 });
        assert!(!joined.first && !entry.give_up(), "a request has come");
        drop(joined);
        assert!(entry.give_up());
        let next = flights.join(1, &tasks, || async { 2 });
        assert!(next.first && entry.give_up(), "what is given up stays so, and leaves the next one alone");
        assert_eq!(next.result().await, Some(2));
    }
}
