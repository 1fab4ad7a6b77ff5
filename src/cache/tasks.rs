use crate::upstream::{Client, current_caller, for_caller};
use parking_lot::Mutex;
use std::future::Future;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// The owner of the cache's background work: fills, revalidations, writes, all that outlives the request that began it.
///
/// Dropping it ends them all. An ingest that is cut short so is resumed by the next process.
#[derive(Debug, Default)]
pub(super) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    /// Runs `work` to its end, in the name of the client and the caller whose request began it.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.0.lock();
        while running.try_join_next().is_some() {}
        running.spawn(Client::current().scope(for_caller(current_caller(), work)));
    }

    /// The same, for a request that waits for the result and may leave. `None`: the work panicked, or larder is stopping.
    pub(super) fn run<T, W>(&self, work: W) -> impl Future<Output = Option<T>> + Send + use<T, W>
    where
        T: Send + 'static,
        W: Future<Output = T> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.spawn(async move {
            // The request may have left.
            let _ = sender.send(work.await);
        });
        async move { receiver.await.ok() }
    }
}
