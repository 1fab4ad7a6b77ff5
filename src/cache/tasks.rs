use crate::upstream::{Client, current_caller, for_caller};
use parking_lot::Mutex;
use std::future::Future;
use tokio::task::JoinSet;

/// The owner of the cache's background work: fills, revalidations, fetches that outlive the request that began them.
///
/// Dropping it ends them all. An ingest that is cut short so is resumed by the next process.
#[derive(Debug, Default)]
pub(super) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    /// Runs `work` to its end, whoever waits for it or leaves, for the caller for whom it is begun.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.0.lock();
        while running.try_join_next().is_some() {}
        // In the name of the client whose request began it.
        running.spawn(Client::current().scope(for_caller(current_caller(), work)));
    }
}
