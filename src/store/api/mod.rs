//! The store as other rooms see it: what is cheap is answered at once, all else goes to the store's threads.

mod content;
mod names;
mod operator;

use super::disk::Disk;
use super::error::{OpenError, StoreError};
use super::jobs::Trouble;
use super::lifecycle;
use super::parts::Parts;
use crate::config::StoreSettings;
use crate::telemetry::Metrics;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// An open store; a cheap clone. The folder belongs to this process until [`close`](Self::close).
///
/// Every method that is `async` does its file work on the store's own threads. One that has begun to write finishes even if its
/// caller leaves.
#[derive(Clone)]
pub struct Store(Arc<Parts>);

/// How full a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes that are not removed to make room, since no upstream can give them again now.
    pub held: u64,
    /// Bytes that may be on disk.
    pub limit: u64,
    /// Complete blobs.
    pub blobs: u64,
    /// Partial downloads, running or left for later.
    pub ingests: u64,
    /// Whether everything that was there at the start has been counted.
    pub exact: bool,
}

impl Store {
    /// Opens the store's folder, or makes it. Serves at once; what it holds is counted in the background.
    pub async fn open(settings: &StoreSettings, disk: Arc<dyn Disk>, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let (sender, opened) = tokio::sync::oneshot::channel();
        let (theirs, path) = (settings.clone(), settings.path.clone());
        let failed = move |source| OpenError::Io { action: "open", path, source };
        let spawned = std::thread::Builder::new().name("larder-open".into()).spawn(move || {
            let _ = sender.send(lifecycle::open(&theirs, &disk, &metrics));
        });
        match spawned {
            Ok(_) => opened
                .await
                .unwrap_or_else(|_| Err(failed(std::io::Error::other("the opening thread failed"))))
                .map(|parts| Self(Arc::new(parts))),
            Err(error) => Err(failed(error)),
        }
    }

    /// Finishes what has begun, writes last use and index, ends the threads and gives the folder free. Whatever is asked
    /// afterwards is answered with [`StoreError::Closed`]. A disk that does not answer is not waited for.
    pub async fn close(&self) {
        self.0.stop.set();
        if self.0.jobs.health.is_hung() {
            tracing::warn!("the disk does not answer: the store is left as it is, without the last use of its blobs");
            return;
        }
        let threads = std::mem::take(&mut *self.0.background.lock());
        for thread in threads {
            thread.ended().await;
        }
        self.0.jobs.stop_writing().await;
        let _ = self
            .read(|parts| {
                parts.last_use.write();
                parts.index.close();
                if !parts.blobs.files.durable() && !parts.blobs.is_suspect() {
                    parts.blobs.files.sync_everything();
                }
                Ok(())
            })
            .await;
        self.0.jobs.readers.stop().await;
        self.0.blobs.files.set_lock(None);
    }

    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            bytes: self.0.blobs.files.space.used(),
            held: self.0.origins.held(),
            limit: self.0.blobs.files.space.limit,
            blobs: self.0.blobs.table.len(),
            ingests: self.0.intake.partials.len(),
            exact: self.0.counted.load(Ordering::Acquire),
        }
    }

    /// What is wrong with the disk, if nothing can be stored at the moment.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.0.jobs.health.trouble()
    }

    /// Whether nothing is wrong with the disk, as far as is known.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.0.jobs.health.is_well()
    }

    /// Whether the store answers: its locks are free, and its threads come round or are known not to.
    pub async fn answers(&self) -> bool {
        let _ = self.usage();
        self.0.jobs.answer().await
    }

    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Parts) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let parts = Arc::clone(&self.0);
        self.0.jobs.read(move || job(&parts)).await
    }

    /// Runs a job that writes, unless the disk does not answer.
    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Parts) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let parts = Arc::clone(&self.0);
        self.0.jobs.write(move || job(&parts)).await
    }

    /// Runs a job that reads many links.
    async fn walk<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Parts) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let parts = Arc::clone(&self.0);
        self.0.jobs.walk(move || job(&parts)).await
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.usage()).finish()
    }
}
