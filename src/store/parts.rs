//! The components of an open store, joined. They have no reference back to this.

use super::blobs::{Blobs, GiverRecords, LastUse};
use super::evict::{Evictor, Holds, Origins, Pins};
use super::index::Index;
use super::integrity::Inspector;
use super::jobs::{Jobs, Stop, Thread};
use super::links::{Inventory, LinkReader, LinkWriter, Lists, Membership, Pinning, References};
use super::receive::Intake;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub(crate) struct Parts {
    pub(crate) stop: Arc<Stop>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) givers: Arc<GiverRecords>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) evictor: Arc<Evictor>,
    pub(crate) last_use: Arc<LastUse>,
    pub(crate) holds: Arc<Holds>,
    pub(crate) origins: Arc<Origins>,
    pub(crate) index: Arc<Index>,
    pub(crate) pins: Arc<Pins>,
    pub(crate) reader: Arc<LinkReader>,
    pub(crate) writer: Arc<LinkWriter>,
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) pinning: Arc<Pinning>,
    pub(crate) references: Arc<References>,
    pub(crate) lists: Arc<Lists>,
    pub(crate) inspector: Arc<Inspector>,
    /// Whether everything that was there at the start has been counted.
    pub(crate) counted: Arc<AtomicBool>,
    pub(crate) background: Mutex<Vec<Thread>>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.stop.set();
    }
}
