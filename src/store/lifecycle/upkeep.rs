//! The store's own housekeeping, on one thread: first everything is counted; then, every minute, last use goes into file times and
//! the limit is kept. Every two seconds it looks whether the index answers, and catches up on what needs a walk over the links.

use super::count::Counter;
use crate::store::blobs::{BlobEntry, LastUse};
use crate::store::evict::{Evictor, Leftovers};
use std::sync::Arc;
use std::time::Duration;

const TICK: Duration = Duration::from_secs(2);
const TICKS_PER_ROUND: u64 = 30;
/// What is held is added up so seldom, but for its beginning and its end.
const HELD_TICKS: u64 = 5;

pub(crate) struct Upkeep {
    pub(crate) last_use: Arc<LastUse>,
    pub(crate) evictor: Arc<Evictor>,
    pub(crate) leftovers: Arc<Leftovers>,
    pub(crate) counter: Arc<Counter>,
}

impl Upkeep {
    /// Runs until the store is closed.
    pub(crate) fn run(&self) {
        let _ = self.ticks();
    }

    fn ticks(&self) -> Option<()> {
        let Counter { blobs, origins, index, stop, .. } = &*self.counter;
        self.counter.count()?;
        self.leftovers.remove_old_partials();
        self.evictor.evict_to_low(stop);
        self.check_suspects()?;
        for tick in 1_u64.. {
            stop.sleep(TICK)?;
            index.watch();
            blobs.files.space.set_index(index.bytes());
            if tick % HELD_TICKS == 0 || origins.is_held_outdated() {
                origins.show_held();
            }
            if tick % TICKS_PER_ROUND == 0 {
                self.round();
            }
            self.counter.catch_up()?;
        }
        Some(())
    }

    fn round(&self) {
        let Counter { pinning, stop, .. } = &*self.counter;
        if pinning.pins.take_stale() {
            pinning.find();
        }
        self.last_use.write();
        self.leftovers.give_back_unused();
        self.leftovers.remove_old_partials();
        self.evictor.evict_to_low(stop);
    }

    /// Hashes what an earlier process stored without syncing it.
    fn check_suspects(&self) -> Option<()> {
        let Counter { blobs, stop, .. } = &*self.counter;
        if !blobs.is_suspect() {
            return Some(());
        }
        let mut all_sound = true;
        for (digest, entry) in blobs.table.those(BlobEntry::is_suspect) {
            stop.check()?;
            if let Err(error) = blobs.check_suspect(&digest, &entry) {
                all_sound = false;
                tracing::warn!(blob.digest = %digest, %error, "cannot check a blob; it is checked again at the next start");
            }
        }
        if all_sound {
            blobs.set_suspect(false);
            if blobs.files.durable() {
                blobs.files.sync_everything();
            }
        }
        Some(())
    }
}
