use super::tasks::Tasks;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use tokio::sync::watch;

/// At most one piece of work under way per key; everybody who asks meanwhile gets its result.
///
/// The work runs on its own task: the request that began it may leave without hurting the others.
#[derive(Debug)]
pub(super) struct Flights<K, V> {
    running: Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>,
}

/// A place in a flight.
#[derive(Debug)]
pub(super) struct Seat<V> {
    /// Whether this seat's holder began the work.
    pub(super) first: bool,
    result: watch::Receiver<Option<V>>,
}

impl<V: Clone> Seat<V> {
    /// The result. `None` if the work ended without one: it panicked or the process is stopping.
    pub(super) async fn result(mut self) -> Option<V> {
        let result = self.result.wait_for(Option::is_some).await.ok()?;
        result.clone()
    }
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self { running: Arc::default() }
    }
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Joins the work under way for `key`, or begins `work`.
    pub(super) fn board<F>(&self, key: K, tasks: &Tasks, work: impl FnOnce() -> F) -> Seat<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut running = self.running.lock();
        if let Some(result) = running.get(&key) {
            return Seat { first: false, result: result.clone() };
        }
        let (sender, result) = watch::channel(None);
        running.insert(key.clone(), result.clone());
        drop(running);
        let landing = Landing { key, running: Arc::clone(&self.running) };
        let work = work();
        tasks.spawn(async move {
            let value = work.await;
            // Off the board first: who asks from now on begins anew instead of getting an old result.
            drop(landing);
            let _ = sender.send(Some(value));
        });
        Seat { first: true, result }
    }
}

/// Takes the key off the board, also when the work panics.
struct Landing<K: Eq + Hash, V> {
    key: K,
    running: Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.running.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn one_runs_and_all_get_the_result_even_when_the_first_leaves() {
        let (tasks, flights) = (Tasks::default(), Flights::<&str, usize>::default());
        let runs = Arc::new(AtomicUsize::new(0));
        let board = || {
            let runs = Arc::clone(&runs);
            flights.board("key", &tasks, || async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                runs.fetch_add(1, Ordering::SeqCst) + 1
            })
        };
        let first = board();
        assert!(first.first);
        let second = board();
        assert!(!second.first);
        drop(first);
        assert_eq!(second.result().await, Some(1));
        assert_eq!(board().result().await, Some(2), "a later one begins anew");
    }

    #[tokio::test]
    async fn a_panic_frees_the_key_and_tells_the_waiters() {
        let (tasks, flights) = (Tasks::default(), Flights::<u8, ()>::default());
        let seat = flights.board(1, &tasks, || async { panic!("on purpose") });
        assert_eq!(seat.result().await, None);
        assert!(flights.board(1, &tasks, || async {}).first);
    }
}
