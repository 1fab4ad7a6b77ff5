//! Whether the disk takes what it is given, and what to do while it does not.
//!
//! A failing disk fails no pull: what cannot be stored passes through. This file only knows the trouble, says it once, and finds
//! out when it is over. A disk that *answers* with errors is asked again by every download, since that costs little. One that
//! does *not answer* (a job that has run for longer than the disk's [`patience`](crate::store::disk::Disk::patience)) is asked no more:
//! every write is refused at once. In both cases a small file is written again and again; the first one that comes through ends
//! the trouble.

use crate::store::disk::Home;
use crate::store::error::{Refusal, StoreError};
use crate::store::files::layout;
use crate::store::files::small::{is_absent, is_full};
use crate::store::jobs::workers::StuckWatch;
use crate::store::lifecycle::upkeep::{Told, alive};
use crate::store::parts::Inner;
use crate::telemetry::Metrics;
use parking_lot::Mutex;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

/// How often it is looked whether jobs come to an end, at most, and how often the disk is tried while it is in trouble.
const LOOK: Duration = Duration::from_millis(500);
/// How many looks pass between two at the store's folder while all is well.
const LOOKS_PER_VISIT: u32 = 4;
/// Bytes of the file that tries the disk: more than some file systems keep beside the name.
const TRIAL: usize = 64 << 10;

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
    /// When it was noticed.
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

    /// Whether there is any use in writing now.
    pub(crate) fn admit(&self) -> Result<(), StoreError> {
        if self.is_hung() { Err(Refusal::Slow.into()) } else { Ok(()) }
    }

    /// Learns from how a write ended.
    pub(crate) fn heed<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error @ StoreError::Io { source, .. }) = &result {
            self.note(TroubleKind::of(source), &error.to_string());
        }
        result
    }

    fn note(&self, kind: TroubleKind, problem: &str) {
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

    fn over(&self) {
        self.hung.store(false, Ordering::Release);
        let mut trouble = self.trouble.lock();
        self.well.store(true, Ordering::Release);
        if trouble.take().is_some() {
            self.metrics.store_writable.with_label_values(&[] as &[&str]).set(1);
            tracing::info!("the store's disk takes writes again");
        }
    }
}

/// Watches the store's threads and its disk, from a thread of its own that never touches the disk.
pub(crate) fn run(weak: &Weak<Inner>, told: &Told) {
    let Some(patience) = alive(weak).map(|inner| inner.files.disk.patience()) else { return };
    let look = LOOK.min(patience / 5);
    let looks = u32::try_from(patience.as_millis() / look.as_millis().max(1)).unwrap_or(u32::MAX);
    let mut watches: [StuckWatch; 4] = Default::default();
    for count in 1_u32.. {
        if told.sleep(look).is_none() {
            return;
        }
        let Some(inner) = alive(weak) else { return };
        let pools = [&inner.writers, &inner.small, &inner.prober, &inner.general];
        let [writers, small, prober, general] = std::array::from_fn(|at| watches[at].look(&pools[at].running(), looks));
        // Readers are not kept waiting for threads of which none will come back soon.
        inner.general.set_blocked(general.all);
        if writers.any || small.any || prober.any || general.all {
            let seconds = patience.as_secs_f32();
            if !inner.health.is_hung() {
                inner
                    .health
                    .note(TroubleKind::Hung, &format!("an operation on the disk takes longer than {seconds} s"));
            }
        } else if inner.health.trouble().is_some() || count % LOOKS_PER_VISIT == 0 {
            let me = Weak::clone(weak);
            inner.prober.try_start(move || {
                if let Some(inner) = alive(&me) {
                    inner.visit();
                }
            });
        }
    }
}

impl Inner {
    /// Looks whether the store's folder is still the one that was opened, and tries the disk if it is in trouble.
    fn visit(&self) {
        let home = match self.files.disk.home() {
            Ok(Home::Ours) => Ok(()),
            Ok(Home::Elsewhere) => {
                Err("another file system is where the store was; mount the store's again".to_owned())
            }
            Ok(Home::Missing) => self.move_in().map_err(|error| format!("its folder was removed: {error}")),
            Err(error) => Err(format!("cannot look at the store's folder: {error}")),
        };
        match home {
            Err(problem) => self.health.note(TroubleKind::Gone, &problem),
            Ok(()) if self.health.trouble().is_none() => {}
            Ok(()) => match self.health.heed(self.try_disk()) {
                Ok(()) => self.health.over(),
                Err(error) => tracing::debug!(%error, "the store's disk is still in trouble"),
            },
        }
    }

    /// Writes a file as every small file is written, and removes it.
    fn try_disk(&self) -> Result<(), StoreError> {
        let path = self.files.temporary();
        let written = self.files.write_new(&path, &vec![0x5a; TRIAL]);
        let removed = self.files.disk.remove(&path);
        written?;
        removed.map_err(StoreError::io("remove", &path))?;
        self.files.sync_folder(Path::new(layout::TEMPORARY))
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
