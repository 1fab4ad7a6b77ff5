//! Watches the store's threads and its disk, from a thread that never touches the disk.

use super::count::Counter;
use crate::config::StoreSettings;
use crate::store::blobs::GiverRecords;
use crate::store::disk::Home;
use crate::store::error::{OpenError, StoreError};
use crate::store::evict::Leftovers;
use crate::store::files::{Opened, Opening, layout};
use crate::store::jobs::{Jobs, StuckWatch, TroubleKind};
use crate::telemetry::Metrics;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often it is looked whether jobs come to an end, at most, and how often the disk is tried while it is in trouble.
const LOOK: Duration = Duration::from_millis(500);
/// How many looks pass between two at the store's folder while all is well.
const LOOKS_PER_VISIT: u32 = 4;
/// Bytes of the file that tries the disk: more than some file systems keep beside the name.
const TRIAL: usize = 64 << 10;

pub(crate) struct Watch {
    pub(crate) settings: StoreSettings,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) givers: Arc<GiverRecords>,
    pub(crate) leftovers: Arc<Leftovers>,
    pub(crate) counter: Arc<Counter>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Watch {
    /// Runs until the store is closed.
    pub(crate) fn run(self: &Arc<Self>) {
        let patience = self.counter.blobs.files.disk.patience();
        let look = LOOK.min(patience / 5);
        let looks = u32::try_from(patience.as_millis() / look.as_millis().max(1)).unwrap_or(u32::MAX);
        let mut watches: [StuckWatch; 4] = Default::default();
        for count in 1_u32.. {
            if self.counter.stop.sleep(look).is_none() {
                return;
            }
            if self.is_hung(&mut watches, looks) {
                if !self.jobs.health.is_hung() {
                    let problem = format!("an operation on the disk takes longer than {} s", patience.as_secs_f32());
                    self.jobs.health.note(TroubleKind::Hung, &problem);
                }
            } else if self.jobs.health.trouble().is_some() || count % LOOKS_PER_VISIT == 0 {
                let watch = Arc::clone(self);
                self.jobs.prober.try_start(move || {
                    if !watch.counter.stop.is_set() {
                        watch.visit();
                    }
                });
            }
        }
    }

    /// Whether a thread that writes, or every thread that reads, has been at one job for too many looks.
    fn is_hung(&self, watches: &mut [StuckWatch; 4], looks: u32) -> bool {
        let Jobs { writers, small_writers, prober, readers, .. } = &*self.jobs;
        let pools = [writers, small_writers, prober, readers];
        let [writers, small_writers, prober, readers] =
            std::array::from_fn(|at| watches[at].look(&pools[at].running(), looks));
        // No caller waits for threads of which none will come back soon.
        self.jobs.readers.set_blocked(readers.all);
        writers.any || small_writers.any || prober.any || readers.all
    }

    /// Looks whether the store's folder is still the one that was opened, and tries the disk if it is in trouble.
    fn visit(&self) {
        let health = &self.jobs.health;
        let home = match self.counter.blobs.files.disk.home() {
            Ok(Home::Ours) => Ok(()),
            Ok(Home::Elsewhere) => {
                Err("another file system is where the store was; mount the store's again".to_owned())
            }
            Ok(Home::Missing) => self.move_in().map_err(|error| format!("its folder was removed: {error}")),
            Err(error) => Err(format!("cannot look at the store's folder: {error}")),
        };
        match home {
            Err(problem) => health.note(TroubleKind::Gone, &problem),
            Ok(()) if health.trouble().is_none() => {}
            Ok(()) => match health.heed(self.try_disk()) {
                Ok(()) => health.end_trouble(),
                Err(error) => tracing::debug!(%error, "the store's disk is still in trouble"),
            },
        }
    }

    /// Writes a file as every small file is written, and removes it.
    fn try_disk(&self) -> Result<(), StoreError> {
        let files = &self.counter.blobs.files;
        let path = files.temporary();
        let written = files.write_new(&path, &vec![0x5a; TRIAL]);
        let removed = files.disk.remove(&path);
        written?;
        removed.map_err(StoreError::io("remove", &path))?;
        files.sync_folder(Path::new(layout::TEMPORARY))
    }

    /// Takes possession of what is now where the store's folder was: nothing at all, or another store.
    fn move_in(&self) -> Result<(), OpenError> {
        let (counter, blobs, files) = (&*self.counter, &*self.counter.blobs, &*self.counter.blobs.files);
        let at = Opening { path: self.settings.path.clone() };
        let Opened { lock, suspect, .. } = at.take(&self.settings, &files.disk, &self.metrics)?;
        files.set_lock(Some(lock));
        if suspect {
            blobs.set_suspect(true);
        }
        counter.counted.store(false, Ordering::Release);
        files.count_again();
        blobs.table.clear();
        self.givers.read_earlier();
        files.space.forget();
        counter.tags.set(0);
        counter.manifests.set(0);
        self.leftovers.count_quarantine();
        counter.recount.store(true, Ordering::Release);
        tracing::warn!(store = %self.settings.path.display(), "the store's folder was removed while larder ran: it begins anew");
        Ok(())
    }
}
