//! Whether the disk takes what it is given, and what to do while it does not.
//!
//! A failing disk fails no pull: what cannot be stored passes through. This file keeps what is known of the trouble and logs its
//! beginning and its end. Each download asks a disk that *answers* with errors again, since that costs little. A disk that does
//! *not answer* (a job takes longer than the disk's [`patience`](crate::store::disk::Disk::patience)) is not asked again: every
//! write is refused at once. In both cases `lifecycle/watch.rs` writes a small file from time to time; the first one that
//! succeeds ends the trouble.

use crate::store::disk::{is_absent, is_full};
use crate::store::error::{NoRoom, StoreError};
use crate::telemetry::Metrics;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// What is wrong with a store's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// No space, or no quota, for what was reserved.
    Full,
    /// The file system takes no writes.
    ReadOnly,
    /// The store's folder is not there.
    Gone,
    /// The disk does not answer.
    Hung,
    /// Anything else that the system says.
    Broken,
}

impl TroubleKind {
    const ALL: [Self; 5] = [Self::Full, Self::ReadOnly, Self::Gone, Self::Hung, Self::Broken];

    /// The word in metrics and in `larder status --json`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::ReadOnly => "read_only",
            Self::Gone => "gone",
            Self::Hung => "hung",
            Self::Broken => "broken",
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            _ if is_full(error) => Self::Full,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ if is_absent(error) => Self::Gone,
            _ => Self::Broken,
        }
    }
}

/// Why nothing is being stored at the moment.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// What kind of trouble it is.
    pub kind: TroubleKind,
    pub since: SystemTime,
    /// What was attempted and what the system said.
    pub problem: String,
}

pub(crate) struct Health {
    trouble: Mutex<Option<Trouble>>,
    /// Whether the disk does not answer.
    hung: AtomicBool,
    well: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Health {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        for kind in TroubleKind::ALL {
            metrics.store_failures.with_label_values(&[kind.as_str()]);
        }
        metrics.store_writable.with_label_values(&[] as &[&str]).set(1);
        let (hung, well) = (AtomicBool::new(false), AtomicBool::new(true));
        Self { trouble: Mutex::default(), hung, well, metrics }
    }

    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.trouble.lock().clone()
    }

    pub(crate) fn is_well(&self) -> bool {
        self.well.load(Ordering::Acquire)
    }

    pub(crate) fn is_hung(&self) -> bool {
        self.hung.load(Ordering::Acquire)
    }

    /// Refuses a write that the disk would not answer.
    pub(crate) fn admit(&self) -> Result<(), StoreError> {
        if self.is_hung() { Err(NoRoom::Slow.into()) } else { Ok(()) }
    }

    /// Learns from how a write ended.
    pub(crate) fn heed<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error @ StoreError::Io { source, .. }) = &result {
            self.note(TroubleKind::of(source), &error.to_string());
        }
        result
    }

    pub(crate) fn note(&self, kind: TroubleKind, problem: &str) {
        self.metrics.store_failures.with_label_values(&[kind.as_str()]).inc();
        let mut trouble = self.trouble.lock();
        if kind == TroubleKind::Hung {
            self.hung.store(true, Ordering::Release);
        }
        if trouble.as_ref().is_some_and(|known| known.kind == kind) {
            return;
        }
        self.metrics.store_writable.with_label_values(&[] as &[&str]).set(0);
        tracing::error!(
            reason = kind.as_str(),
            error = problem,
            "the store's disk is in trouble: pulls go on, what cannot be stored passes through"
        );
        self.well.store(false, Ordering::Release);
        *trouble = Some(Trouble { kind, since: SystemTime::now(), problem: problem.to_owned() });
    }

    pub(crate) fn end_trouble(&self) {
        self.hung.store(false, Ordering::Release);
        let mut trouble = self.trouble.lock();
        self.well.store(true, Ordering::Release);
        if trouble.take().is_some() {
            self.metrics.store_writable.with_label_values(&[] as &[&str]).set(1);
            tracing::info!("the store's disk takes writes again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_kind() {
        for (number, kind) in [(28, "full"), (122, "full"), (30, "read_only"), (2, "gone"), (20, "gone"), (5, "broken")]
        {
            assert_eq!(TroubleKind::of(&io::Error::from_raw_os_error(number)).as_str(), kind, "{number}");
        }
    }
}
