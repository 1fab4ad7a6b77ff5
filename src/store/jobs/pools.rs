//! Which threads do what, so that a disk that is slow at one thing delays no other.

use super::health::Health;
use super::workers::Workers;
use crate::store::error::StoreError;
use crate::telemetry::Metrics;
use std::io;
use std::sync::Arc;
use std::time::Duration;

const READERS: usize = 4;
const WRITERS: usize = 4;
const SMALL_WRITERS: usize = 2;
const QUEUE: usize = 1024;

/// The store's threads by what they do.
pub(crate) struct Jobs {
    /// Short reads of all kinds.
    pub(crate) readers: Workers,
    /// Content on its way in. A disk that is slow to write delays no reader of what the page cache holds.
    pub(crate) writers: Workers,
    /// Short writes: links, manifests, lists.
    pub(crate) small_writers: Workers,
    /// One thread that tries the disk.
    pub(crate) prober: Workers,
    /// One thread that reads all links of a repository, or of all of them.
    walker: Workers,
    pub(crate) health: Health,
}

impl Jobs {
    pub(crate) fn start(patience: Duration, metrics: &Arc<Metrics>) -> io::Result<Self> {
        Ok(Self {
            readers: Workers::start("larder-disk", READERS, QUEUE, patience)?,
            writers: Workers::start("larder-ingest", WRITERS, QUEUE, patience)?,
            small_writers: Workers::start("larder-links", SMALL_WRITERS, QUEUE, patience)?,
            prober: Workers::start("larder-probe", 1, QUEUE, patience)?,
            walker: Workers::start("larder-walker", 1, QUEUE, Duration::MAX)?,
            health: Health::new(Arc::clone(metrics)),
        })
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.run(job).await
    }

    /// Runs a job that writes something small, unless the disk does not answer.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.health.admit()?;
        self.health.heed(self.small_writers.run(job).await)
    }

    /// Runs a job that reads many links. There is one such job at a time, and no limit to how long it takes.
    pub(crate) async fn walk<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.walker.run(job).await
    }

    /// Whether the threads come round, or are known not to.
    pub(crate) async fn answer(&self) -> bool {
        if self.health.is_hung() {
            return true;
        }
        let [readers, small, writers] =
            [&self.readers, &self.small_writers, &self.writers].map(|pool| pool.run(|| Ok(())));
        tokio::try_join!(readers, small, writers).is_ok() || self.health.is_hung()
    }

    /// Ends all threads but the readers, once they have done what is in their queues.
    pub(crate) async fn stop_writing(&self) {
        for pool in [&self.writers, &self.small_writers, &self.prober, &self.walker] {
            pool.stop().await;
        }
    }
}
