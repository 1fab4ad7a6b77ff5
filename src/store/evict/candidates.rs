//! Which blobs may be removed, in which order.

use super::holds::Holds;
use super::origins::Origins;
use super::pins::Pins;
use crate::oci::Digest;
use crate::store::blobs::{BlobEntry, Blobs, LastUse, Registries, millis, sort_for_eviction};
use std::sync::Arc;

/// A blob that no reader has open, that is neither pinned nor held by an export, and that a registry can give again now.
pub(crate) struct Candidates {
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) last_use: Arc<LastUse>,
    pub(crate) pins: Arc<Pins>,
    pub(crate) holds: Arc<Holds>,
    pub(crate) origins: Arc<Origins>,
}

/// Candidates, the first to go first. To choose among 100,000 takes longer than to remove a few: one choice serves until there is
/// room.
pub(super) struct Queue {
    blobs: std::vec::IntoIter<(Digest, Arc<BlobEntry>)>,
    /// What they have together.
    pub(super) bytes: u64,
    /// Bytes of blobs that are no candidates because no registry can give them again now.
    pub(super) held: u64,
    /// Milliseconds since 1970. A blob that is used later is passed over.
    made: u64,
    is_continued: bool,
}

impl Candidates {
    pub(super) fn queue(&self) -> Queue {
        let made = millis(self.blobs.table.now());
        let none = |held| Queue { blobs: Vec::new().into_iter(), bytes: 0, held, made, is_continued: false };
        if !self.pins.is_ready() {
            return none(0);
        }
        let away = self.origins.away_or_silent();
        if away != 0 && !self.origins.are_known() {
            return none(self.blobs.files.space.used());
        }
        self.last_use.touch_children();
        let mut held = 0;
        let mut all = self.blobs.table.those(|entry| {
            let is_held = entry.is_held(away);
            held += if is_held { entry.len } else { 0 };
            !is_held
        });
        all.retain(|(digest, entry)| !self.is_kept(digest) && !self.blobs.table.has_reader(digest, entry));
        sort_for_eviction(&mut all, |(_, entry)| entry.standing());
        let bytes = all.iter().map(|(_, entry)| entry.len).sum();
        Queue { blobs: all.into_iter(), bytes, held, made, is_continued: false }
    }

    pub(super) fn away(&self) -> Registries {
        self.origins.away_or_silent()
    }

    fn is_kept(&self, digest: &Digest) -> bool {
        self.pins.has(digest) || self.holds.has(digest)
    }

    /// Prepares a queue of some time ago for more removals: uses of manifests since then count.
    pub(super) fn resume(&self, queue: &mut Queue) {
        queue.is_continued = true;
        self.last_use.touch_children();
    }

    /// The next one to go: still a candidate while `away` are, and not used since the queue was made.
    pub(super) fn next(&self, queue: &mut Queue, away: Registries) -> Option<(Digest, Arc<BlobEntry>)> {
        let (made, is_continued) = (queue.made, queue.is_continued);
        queue.blobs.find(|(digest, entry)| {
            !(self.is_kept(digest) || entry.is_held(away) || is_continued && entry.last_use() > made)
        })
    }
}
