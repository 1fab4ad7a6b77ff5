//! Threads that check passwords: few, of a low priority, and fair to addresses, so that a storm of logins costs no pull its time.

use crate::access::patience::network;
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// No login waits longer for its check than this; one that would is told to come again.
const WAIT: Duration = Duration::from_secs(8);
/// When.
const RETRY: Duration = Duration::from_secs(1);
/// What a check is taken to cost before the first one: bcrypt's at cost 10.
const COST: Duration = Duration::from_millis(100);
/// However cheap they are, no more wait.
const QUEUE: usize = 1024;

/// More logins wait than can be checked in time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) retry: Duration,
}

struct Job {
    password: Zeroizing<Vec<u8>>,
    hash: String,
    answer: oneshot::Sender<bool>,
}

struct Queue {
    waiting: HashMap<Option<IpAddr>, VecDeque<Job>>,
    /// The addresses that something waits from, whose turn it is first.
    turns: VecDeque<Option<IpAddr>>,
    count: usize,
    /// What a check has cost lately.
    cost: Duration,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    threads: usize,
}

pub(super) struct Checkers(Arc<Shared>);

impl Checkers {
    pub(super) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_threads((processors / 4).clamp(1, 4))
    }

    fn with_threads(threads: usize) -> Self {
        let queue = Queue { waiting: HashMap::new(), turns: VecDeque::new(), count: 0, cost: COST, closed: false };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), work: Condvar::new(), threads: threads.max(1) });
        for _ in 0..threads {
            let own = Arc::clone(&shared);
            if let Err(error) = std::thread::Builder::new().name("larder-login".to_owned()).spawn(move || own.run()) {
                tracing::error!(%error, "no thread for checking logins: nobody new can log in");
            }
        }
        Self(shared)
    }

    /// Whether a password is the one of a bcrypt hash.
    pub(super) async fn verify(
        &self,
        address: Option<IpAddr>,
        password: Zeroizing<Vec<u8>>,
        hash: String,
    ) -> Result<bool, Full> {
        let (answer, answered) = oneshot::channel();
        self.0.push(address.map(network), Job { password, hash, answer })?;
        // A machine that has too much to do checks more slowly than was thought.
        let answered = tokio::time::timeout(WAIT, answered).await;
        answered.ok().and_then(Result::ok).ok_or(Full { retry: RETRY })
    }
}

impl Drop for Checkers {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.closed = true;
        queue.waiting.clear();
        queue.turns.clear();
        self.0.work.notify_all();
    }
}

impl Shared {
    fn push(&self, address: Option<IpAddr>, job: Job) -> Result<(), Full> {
        let mut queue = self.queue.lock();
        let own = queue.waiting.get(&address).map_or(0, VecDeque::len);
        // One address may fill half of it: the other half is for the others.
        if queue.count >= self.room(&queue) || own * 2 >= self.room(&queue) {
            return Err(Full { retry: RETRY });
        }
        if own == 0 {
            queue.turns.push_back(address);
        }
        queue.waiting.entry(address).or_default().push_back(job);
        queue.count += 1;
        self.work.notify_one();
        Ok(())
    }

    /// As many as are checked in time.
    fn room(&self, queue: &Queue) -> usize {
        let each = queue.cost.max(Duration::from_millis(1)).as_millis();
        usize::try_from(WAIT.as_millis() / each).unwrap_or(QUEUE).saturating_mul(self.threads).clamp(2, QUEUE)
    }

    fn run(&self) {
        give_way();
        while let Some(job) = self.next() {
            // A client that has left needs no answer.
            if job.answer.is_closed() {
                continue;
            }
            let begun = Instant::now();
            let right = bcrypt::verify(&*job.password, &job.hash).unwrap_or(false);
            let took = begun.elapsed();
            let mut queue = self.queue.lock();
            queue.cost = (queue.cost * 3 + took) / 4;
            drop(queue);
            let _ = job.answer.send(right);
        }
    }

    /// Each address in its turn; within one, in the order of arrival.
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(job) = queue.take() {
                return Some(job);
            }
            self.work.wait(&mut queue);
        }
    }
}

impl Queue {
    fn take(&mut self) -> Option<Job> {
        let address = self.turns.pop_front()?;
        let jobs = self.waiting.get_mut(&address)?;
        let job = jobs.pop_front();
        if jobs.is_empty() {
            self.waiting.remove(&address);
        } else {
            self.turns.push_back(address);
        }
        self.count -= usize::from(job.is_some());
        job
    }
}

/// Whatever serves a pull goes first, but a busy machine must not keep logins waiting for ever. Linux knows priorities of threads;
/// elsewhere their small number has to do.
fn give_way() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, 5);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `pw` at the lowest cost.
    fn hash() -> String {
        bcrypt::hash("pw", 4).unwrap()
    }

    fn job(shared: &Shared, address: u8) -> Result<oneshot::Receiver<bool>, Full> {
        let (answer, answered) = oneshot::channel();
        let job = Job { password: Zeroizing::new(vec![address]), hash: String::new(), answer };
        shared.push(Some([10, 0, 0, address].into()), job).map(|()| answered)
    }

    #[tokio::test]
    async fn a_password_is_right_or_wrong() {
        let checkers = Checkers::new();
        for (password, right) in [("pw", true), ("px", false), ("", false)] {
            let verdict = checkers.verify(None, Zeroizing::new(password.into()), hash()).await;
            assert_eq!(verdict, Ok(right), "{password}");
        }
        assert_eq!(checkers.verify(None, Zeroizing::new(b"pw".to_vec()), "no hash".into()).await, Ok(false));
    }

    #[test]
    fn addresses_take_turns_and_one_fills_half_of_the_queue_at_most() {
        let checkers = Checkers::with_threads(0);
        let shared = &checkers.0;
        let room = shared.room(&shared.queue.lock());
        assert_eq!(room, 80, "8 s at 100 ms");
        let storm: Vec<_> = std::iter::from_fn(|| job(shared, 1).ok()).collect();
        assert_eq!(storm.len(), room / 2);
        let other = job(shared, 2).unwrap();
        let order: Vec<u8> = (0..3).map(|_| shared.queue.lock().take().unwrap().password[0]).collect();
        assert_eq!(order, [1, 2, 1], "the second address waits for one check, not for forty");
        drop((storm, other));
        assert_eq!(job(shared, 1).map(|_| ()), Ok(()));
        shared.queue.lock().cost = Duration::from_secs(60);
        assert_eq!(job(shared, 3).map(|_| ()), Err(Full { retry: RETRY }), "nobody waits longer than that");
    }

    #[tokio::test]
    async fn the_threads_end_with_it() {
        let checkers = Checkers::new();
        let shared = Arc::downgrade(&checkers.0);
        drop(checkers);
        let end = Instant::now() + Duration::from_secs(10);
        while shared.strong_count() > 0 {
            assert!(Instant::now() < end, "threads go on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
