//! Who gets a connection to a host, and who waits for one.
//!
//! A request that no client waits for gives way: it leaves the queue, and the connection that it has, where others want one.

use crate::upstream::limits::op::ConnectionClass;
use crate::upstream::limits::shares::{Shares, unwanted};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

/// Requests that may wait for a connection to a host.
const WAITING: usize = 4096;
/// How many times as long a download waits, while others end and make room: a pull that begins late is better than one that fails.
const DOWNLOAD_PATIENCE: u32 = 6;

/// What a connection takes of its host's bounds.
pub(super) type Permits = Vec<OwnedSemaphorePermit>;

/// Why a request got no connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// All are in use, for as long as it may wait.
    Full,
    /// As many wait as may, or as many of this client.
    Crowded,
    /// No client waits for it.
    Unwanted,
}

/// The bounds of a host.
pub(super) struct Queue {
    all: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    /// Those that wait, by client, and how many they are.
    waiting: Shares,
    crowd: watch::Sender<usize>,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        let bulk = (limit - limit / 8).min(limit.saturating_sub(1)).max(1);
        Self {
            all: Arc::new(Semaphore::new(limit)),
            bulk: Arc::new(Semaphore::new(bulk)),
            uploads: Arc::new(Semaphore::new((limit / 2).max(1))),
            waiting: Shares::new(WAITING),
            crowd: watch::Sender::new(0),
        }
    }

    /// The right to a connection, within `wait`.
    pub(super) async fn permits(&self, share: ConnectionClass, wait: Duration) -> Result<Permits, Refused> {
        let bounds: &[&Arc<Semaphore>] = match share {
            ConnectionClass::Small => &[&self.all],
            ConnectionClass::Download => &[&self.bulk, &self.all],
            ConnectionClass::Upload => &[&self.uploads, &self.bulk, &self.all],
        };
        let mut wanted = pin!(async {
            let mut permits = Permits::with_capacity(bounds.len());
            for bound in bounds {
                permits.push(Arc::clone(bound).acquire_owned().await.ok()?);
            }
            Some(permits)
        });
        // Most need not wait.
        if let Poll::Ready(Some(permits)) = poll_once(wanted.as_mut()).await {
            return Ok(permits);
        }
        let _place = self.waiting.take().ok_or(Refused::Crowded)?;
        let _crowd = Crowd::join(&self.crowd);
        let wait = if share == ConnectionClass::Download { wait * DOWNLOAD_PATIENCE } else { wait };
        tokio::select! {
            biased;
            permits = timeout(wait, wanted) => permits.ok().flatten().ok_or(Refused::Full),
            () = unwanted() => Err(Refused::Unwanted),
        }
    }

    /// Ends when other requests wait for a connection and no client waits for the caller's.
    pub(super) async fn gives_way(&self) {
        let mut crowd = self.crowd.subscribe();
        loop {
            // The sender is the queue's own: it cannot be gone.
            let _ = crowd.wait_for(|waiting| *waiting > 0).await;
            tokio::select! {
                biased;
                () = unwanted() => return,
                _ = crowd.wait_for(|waiting| *waiting == 0) => {}
            }
        }
    }
}

/// One who waits for a connection.
struct Crowd<'a>(&'a watch::Sender<usize>);

impl<'a> Crowd<'a> {
    fn join(crowd: &'a watch::Sender<usize>) -> Self {
        crowd.send_modify(|waiting| *waiting += 1);
        Self(crowd)
    }
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting = waiting.saturating_sub(1));
    }
}

/// Looks once whether `work` is done.
async fn poll_once<F: Future>(mut work: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::limits::shares::{Client, Interest, while_wanted};

    const WAIT: Duration = Duration::from_secs(10);

    /// Somebody who has left.
    struct Nobody;

    impl Interest for Nobody {
        fn gone(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            Box::pin(std::future::ready(()))
        }

        fn give_up(&self) -> bool {
            true
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_whose_clients_have_left_neither_wait_nor_keep_a_connection() {
        let queue = Queue::new(1);
        let held = queue.permits(ConnectionClass::Small, WAIT).await.unwrap();
        let abandoned = while_wanted(Arc::new(Nobody), queue.permits(ConnectionClass::Small, WAIT)).await;
        assert_eq!(abandoned.err(), Some(Refused::Unwanted));
        // A request keeps its connection until another one waits.
        let holder = while_wanted(Arc::new(Nobody), queue.gives_way());
        let mut holder = pin!(holder);
        assert!(timeout(Duration::from_secs(60), holder.as_mut()).await.is_err());
        let next = async {
            let next = queue.permits(ConnectionClass::Small, WAIT).await;
            assert!(next.is_ok());
        };
        let gives_way = async {
            holder.await;
            drop(held);
        };
        tokio::join!(next, gives_way);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_are_bounded_and_one_client_cannot_be_all_of_them() {
        let queue = Queue::new(1);
        let _held = queue.permits(ConnectionClass::Small, WAIT).await.unwrap();
        let client = |last: u8| Client::at(Some([192, 0, 2, last].into()));
        let mut waiting: Vec<_> =
            (0..=WAITING).map(|_| Box::pin(client(1).scope(queue.permits(ConnectionClass::Small, WAIT)))).collect();
        for (number, one) in waiting.iter_mut().enumerate() {
            match poll_once(one.as_mut()).await {
                Poll::Pending => assert!(number < WAITING),
                Poll::Ready(refused) => assert_eq!((number, refused.err()), (WAITING, Some(Refused::Crowded))),
            }
        }
        let mut other = Box::pin(client(2).scope(queue.permits(ConnectionClass::Small, WAIT)));
        assert!(poll_once(other.as_mut()).await.is_pending(), "another one may");
        assert_eq!(other.await.err(), Some(Refused::Full));
    }
}
