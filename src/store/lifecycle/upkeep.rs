//! The store's own housekeeping, on one thread: first everything is counted; then, every minute, last use goes into file times and
//! the limit is kept. Every two seconds it looks whether the index answers, and catches up on what needs a walk over the links.

use super::count::Counter;
use crate::store::account::Space;
use crate::store::blobs::{BlobEntry, BlobTable, Blobs, LastUse};
use crate::store::evict::{Evictor, Leftovers, Origins, Pins};
use crate::store::files::Files;
use crate::store::index::Index;
use crate::store::jobs::Stop;
use crate::store::links::Pinning;
use std::sync::Arc;
use std::time::Duration;

const TICK: Duration = Duration::from_secs(2);
const TICKS_PER_ROUND: u64 = 30;
/// What is held is added up so seldom, but for its beginning and its end.
const HELD_TICKS: u64 = 5;

pub(crate) struct Upkeep {
    pub(crate) files: Arc<Files>,
    pub(crate) space: Arc<Space>,
    pub(crate) table: Arc<BlobTable>,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) last_use: Arc<LastUse>,
    pub(crate) evictor: Arc<Evictor>,
    pub(crate) leftovers: Arc<Leftovers>,
    pub(crate) origins: Arc<Origins>,
    pub(crate) pins: Arc<Pins>,
    pub(crate) pinning: Arc<Pinning>,
    pub(crate) index: Arc<Index>,
    pub(crate) counter: Arc<Counter>,
    pub(crate) stop: Arc<Stop>,
}

impl Upkeep {
    /// Runs until the store is closed.
    pub(crate) fn run(&self) {
        let _ = self.ticks();
    }

    fn ticks(&self) -> Option<()> {
        self.counter.count()?;
        self.leftovers.remove_old_partials();
        self.evictor.evict_to_low(&self.stop);
        self.check_suspects()?;
        for tick in 1_u64.. {
            self.stop.sleep(TICK)?;
            self.index.watch();
            self.space.set_index(self.index.bytes());
            if tick % HELD_TICKS == 0 || self.origins.is_held_outdated() {
                self.origins.show_held();
            }
            if tick % TICKS_PER_ROUND == 0 {
                self.round();
            }
            self.counter.catch_up()?;
        }
        Some(())
    }

    fn round(&self) {
        if self.pins.take_stale() {
            self.pinning.find();
        }
        self.last_use.write();
        self.leftovers.give_back_unused();
        self.leftovers.remove_old_partials();
        self.evictor.evict_to_low(&self.stop);
    }

    /// Hashes what an earlier process stored without syncing it.
    fn check_suspects(&self) -> Option<()> {
        if !self.blobs.is_suspect() {
            return Some(());
        }
        let mut all_sound = true;
        for (digest, entry) in self.table.those(BlobEntry::is_suspect) {
            self.stop.check()?;
            if let Err(error) = self.blobs.check_suspect(&digest, &entry) {
                all_sound = false;
                tracing::warn!(blob.digest = %digest, %error, "cannot check a blob; it is checked again at the next start");
            }
        }
        if all_sound {
            self.blobs.set_suspect(false);
            if self.files.durable() {
                self.files.sync_everything();
            }
        }
        Some(())
    }
}
