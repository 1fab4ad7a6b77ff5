//! The store's own threads: a fixed number, a bounded queue, and jobs that end whether or not anybody still waits for them.
//!
//! File work never runs on the runtime's threads nor on its blocking pool, which requests share. A caller that goes away
//! cancels nothing that has been started. The caller of a job that panics gets [`StoreError::Closed`]; the thread survives. No caller
//! waits longer for a job than the disk's patience: its thread may never come back.

use crate::store::error::StoreError;
use parking_lot::Mutex;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

type Job = Box<dyn FnOnce() + Send>;

/// A set of threads with one queue.
#[derive(Clone)]
pub(crate) struct Workers(Arc<Shared>);

struct Shared {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    /// Each thread holds a sender: the channel closes when the last one has ended.
    ended: tokio::sync::Mutex<mpsc::Receiver<()>>,
    /// Per thread, the number of the job under way; 0 for none.
    running: Arc<[AtomicU64]>,
    /// How long anybody waits for a job.
    patience: Duration,
    /// Whether all threads are held up.
    blocked: AtomicBool,
}

impl Workers {
    pub(crate) fn start(name: &str, threads: usize, queue: usize, patience: Duration) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(queue);
        let (alive, ended) = mpsc::channel(1);
        let receiver = Arc::new(Mutex::new(receiver));
        let running: Arc<[AtomicU64]> = (0..threads).map(|_| AtomicU64::new(0)).collect();
        for number in 0..threads {
            let (receiver, alive, running) = (Arc::clone(&receiver), alive.clone(), Arc::clone(&running));
            std::thread::Builder::new().name(format!("{name}-{number}")).spawn(move || {
                let _alive = alive;
                work(&receiver, &running[number]);
            })?;
        }
        let (jobs, ended) = (Mutex::new(Some(sender)), tokio::sync::Mutex::new(ended));
        Ok(Self(Arc::new(Shared { jobs, ended, running, patience, blocked: AtomicBool::new(false) })))
    }

    /// Waits for a place in the queue. Nothing is lost if the caller goes away while it waits.
    pub(crate) async fn place(&self) -> Result<Place, StoreError> {
        let sender = self.0.jobs.lock().clone();
        let sender = sender.ok_or(StoreError::Closed)?;
        Ok(Place(sender.reserve_owned().await.map_err(|_| StoreError::Closed)?))
    }

    /// A place in the queue, if there is one at once.
    pub(crate) fn try_place(&self) -> Option<Place> {
        let sender = self.0.jobs.lock().clone()?;
        sender.try_reserve_owned().ok().map(Place)
    }

    /// Runs `job` and waits for its result.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.0.blocked.load(Ordering::Acquire) {
            return Err(self.hung());
        }
        self.within(async { self.place().await?.start(job).await.unwrap_or(Err(StoreError::Closed)) }).await
    }

    /// Waits for a job no longer than the disk's patience. A job that has been started is not cancelled.
    pub(crate) async fn within<T>(&self, wait: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        tokio::time::timeout(self.0.patience, wait).await.unwrap_or_else(|_| Err(self.hung()))
    }

    fn hung(&self) -> StoreError {
        StoreError::Hung { patience: self.0.patience }
    }

    /// Starts `job` if there is a place for it now. Its result is dropped.
    pub(crate) fn try_start(&self, job: impl FnOnce() + Send + 'static) {
        let sender = self.0.jobs.lock().clone();
        if let Some(sender) = sender {
            // A full queue: the last one has not come to its turn yet.
            let _ = sender.try_send(Box::new(job));
        }
    }

    /// Says whether every thread is held up. Calls fail at once then.
    pub(crate) fn set_blocked(&self, blocked: bool) {
        self.0.blocked.store(blocked, Ordering::Release);
    }

    /// The numbers of the jobs under way, by thread. Who finds the same number again later knows a job that takes long.
    pub(crate) fn running(&self) -> Vec<u64> {
        self.0.running.iter().map(|job| job.load(Ordering::Relaxed)).collect()
    }

    /// Takes no more jobs, finishes those in the queue and ends the threads.
    pub(crate) async fn stop(&self) {
        drop(self.0.jobs.lock().take());
        while self.0.ended.lock().await.recv().await.is_some() {}
    }
}

/// Sees jobs that do not end.
#[derive(Default)]
pub(crate) struct StuckWatch {
    running: Vec<u64>,
    looks: Vec<u32>,
}

/// Whether any of a pool's threads is held up, and whether all are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stuck {
    pub(crate) any: bool,
    pub(crate) all: bool,
}

impl StuckWatch {
    /// A thread is held up when it is seen at the same job in more than `limit` looks in a row.
    pub(crate) fn look(&mut self, running: &[u64], limit: u32) -> Stuck {
        self.looks.resize(running.len(), 0);
        for (thread, job) in running.iter().enumerate() {
            let same = *job != 0 && self.running.get(thread) == Some(job);
            self.looks[thread] = if same { self.looks[thread].saturating_add(1) } else { 0 };
        }
        self.running = running.to_vec();
        let held_up = |looks: &u32| *looks >= limit;
        Stuck { any: self.looks.iter().any(held_up), all: self.looks.iter().all(held_up) }
    }
}

/// A place in the queue.
pub(crate) struct Place(mpsc::OwnedPermit<Job>);

impl Place {
    /// Puts `job` into the queue; what comes out tells the result.
    pub(crate) fn start<T: Send + 'static>(self, job: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(Box::new(move || {
            let _ = sender.send(job());
        }));
        receiver
    }
}

fn work(receiver: &Mutex<mpsc::Receiver<Job>>, running: &AtomicU64) {
    let mut number = 0;
    loop {
        let job = receiver.lock().blocking_recv();
        let Some(job) = job else { return };
        number += 1;
        running.store(number, Ordering::Relaxed);
        // The panic hook has told where; the caller sees its channel closed.
        let _ = catch_unwind(AssertUnwindSafe(job));
        running.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[tokio::test]
    async fn a_caller_that_leaves_cancels_nothing_and_stop_waits_for_the_rest() {
        let workers = Workers::start("test", 2, 4, Duration::from_secs(60)).unwrap();
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..20 {
            let done = Arc::clone(&done);
            drop(workers.place().await.unwrap().start(move || {
                std::thread::sleep(std::time::Duration::from_millis(2));
                done.fetch_add(1, Ordering::SeqCst)
            }));
        }
        workers.stop().await;
        assert_eq!(done.load(Ordering::SeqCst), 20);
        assert!(matches!(workers.run(|| Ok(())).await, Err(StoreError::Closed)));
    }

    #[tokio::test]
    async fn a_panicking_job_does_not_take_its_thread_along() {
        let workers = Workers::start("test", 1, 1, Duration::from_secs(60)).unwrap();
        assert!(workers.run(|| -> Result<(), _> { panic!("on purpose") }).await.is_err());
        assert_eq!(workers.run(|| Ok(7)).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_job_that_does_not_end_nor_for_threads_that_are_all_held_up() {
        let workers = Workers::start("test", 1, 4, Duration::from_millis(50)).unwrap();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let hung = workers.run(move || Ok(held.recv().is_ok())).await;
        assert!(matches!(hung, Err(StoreError::Hung { .. })), "{hung:?}");
        // This one waits in the queue.
        assert!(matches!(workers.run(|| Ok(())).await, Err(StoreError::Hung { .. })));
        workers.set_blocked(true);
        assert!(matches!(workers.run(|| Ok(())).await, Err(StoreError::Hung { .. })));
        release.send(()).unwrap();
        workers.set_blocked(false);
        assert_eq!(workers.run(|| Ok(7)).await.unwrap(), 7);
        workers.stop().await;
    }

    #[test]
    fn a_thread_at_the_same_job_for_long_is_held_up() {
        let mut watch = StuckWatch::default();
        let seen = [[1, 1], [1, 2], [1, 3], [1, 3], [1, 3], [0, 3], [2, 4]].map(|running| watch.look(&running, 2));
        let none = Stuck { any: false, all: false };
        let one = Stuck { any: true, all: false };
        assert_eq!(seen, [none, none, one, one, Stuck { any: true, all: true }, one, none]);
    }
}
