use crate::cache::tasks::Tasks;
use crate::upstream::{Interest, while_wanted};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;

/// What is running, with the place that its result will come to.
type Running<K, V> = Arc<Mutex<HashMap<K, Arc<watch::Sender<Option<V>>>>>>;

/// At most one piece of work under way per key; everybody who asks meanwhile gets its result.
///
/// The work runs on its own task: the request that began it may leave without hurting the others. When all have left it goes on, unless
/// others wait for the connection that it waits for or uses.
#[derive(Debug)]
pub(super) struct SingleFlight<K, V> {
    running: Running<K, V>,
}

/// A place in a flight.
#[derive(Debug)]
pub(super) struct Waiter<V> {
    /// Whether this waiter's holder began the work.
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

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self { running: Arc::default() }
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
        let mut running = self.running.lock();
        if let Some(sender) = running.get(&key) {
            return Waiter { first: false, result: sender.subscribe() };
        }
        let (sender, result) = watch::channel(None);
        let sender = Arc::new(sender);
        running.insert(key.clone(), Arc::clone(&sender));
        drop(running);
        let entry = Arc::new(Entry { key, running: Arc::clone(&self.running), sender });
        let work = while_wanted(Arc::clone(&entry) as Arc<dyn Interest>, work());
        tasks.spawn(async move {
            let value = work.await;
            // Off the list first: who asks from now on begins anew instead of getting an old result.
            entry.leave();
            let _ = entry.sender.send(Some(value));
        });
        Waiter { first: true, result }
    }
}

/// Takes the key off the list, also when the work panics.
struct Entry<K: Eq + Hash, V> {
    key: K,
    running: Running<K, V>,
    sender: Arc<watch::Sender<Option<V>>>,
}

impl<K: Eq + Hash, V> Entry<K, V> {
    /// Takes the key off the list, if it is this flight's.
    fn leave(&self) {
        self.leave_if(|_| true);
    }

    /// The same if `may` says so, which it is asked while nobody can join; what it said.
    fn leave_if(&self, may: impl FnOnce(&watch::Sender<Option<V>>) -> bool) -> bool {
        let mut running = self.running.lock();
        let leaves = may(&self.sender);
        if leaves && running.get(&self.key).is_some_and(|running| Arc::ptr_eq(running, &self.sender)) {
            running.remove(&self.key);
        }
        leaves
    }
}

impl<K: Eq + Hash + Send + Sync, V: Send + Sync> Interest for Entry<K, V> {
    fn gone(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.sender.closed())
    }

    fn give_up(&self) -> bool {
        self.leave_if(|sender| sender.receiver_count() == 0)
    }
}

impl<K: Eq + Hash, V> Drop for Entry<K, V> {
    fn drop(&mut self) {
        self.leave();
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
        let entry = Entry {
            key: 1,
            running: Arc::clone(&flights.running),
            sender: Arc::clone(flights.running.lock().get(&1).unwrap()),
        };
        assert!(!entry.give_up(), "somebody waits");
        drop(waiter);
        entry.gone().await;
        let joined = flights.join(1, &tasks, || async { 2 });
        assert!(!joined.first && !entry.give_up(), "somebody has come");
        drop(joined);
        assert!(entry.give_up());
        let next = flights.join(1, &tasks, || async { 2 });
        assert!(next.first && entry.give_up(), "what is given up stays so, and leaves the next one alone");
        assert_eq!(next.result().await, Some(2));
    }
}
