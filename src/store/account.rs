//! The account of the store's bytes: what lies on disk, and what downloads under way have been promised.
//!
//! Every byte is either used (it is on disk) or reserved (a download may still write it). Both together never pass `max_size`
//! once the walk has counted what was there at the start, and never eat into `min_free`.

use crate::store::error::NoRoom;
use parking_lot::Mutex;
use prometheus::IntGauge;
use std::sync::Arc;

/// Eviction ends at this part of the limit, so that it does not start again with the next download.
const LOW_WATERMARK_PERCENT: u64 = 90;
/// Above this part of it, what removal needs to know is made sure of.
const NEARLY_FULL_PERCENT: u64 = 80;
/// Above this part of it, eviction begins without a download that needs the room.
const HIGH_WATERMARK_PERCENT: u64 = 95;

/// What a small index may grow by, unless the limit is so low that this would be much of it.
const INDEX_GROWTH: u64 = 4 << 20;
/// The most of the limit that is set aside for a small index.
const INDEX_SHARE: u64 = 64;

pub(crate) struct Space {
    pub(crate) limit: u64,
    min_free: u64,
    counts: Mutex<Counts>,
    gauge: IntGauge,
}

#[derive(Default)]
struct Counts {
    used: u64,
    index: u64,
    reserved: u64,
    /// The part of `reserved` that the file system has not allocated yet, and so still shows as free.
    promised: u64,
}

impl Counts {
    /// What counts against the limit. The index is a log that grows with every change, also when nothing may be removed,
    /// and is measured every two seconds: it is counted with room to double.
    fn total(&self, limit: u64) -> u64 {
        let growth = if self.index == 0 { 0 } else { self.index.max(INDEX_GROWTH.min(limit / INDEX_SHARE)) };
        self.used + self.index + growth + self.reserved
    }
}

/// How many bytes are missing.
#[derive(Debug)]
pub(crate) struct Shortage {
    /// Removing less than this does not help.
    pub(crate) must: u64,
    /// Removing this much reaches the low watermark.
    pub(crate) goal: u64,
    pub(crate) refusal: NoRoom,
}

impl Space {
    pub(crate) fn new(limit: u64, min_free: u64, gauge: IntGauge) -> Self {
        Self { limit, min_free, counts: Mutex::default(), gauge }
    }

    /// Bytes on disk.
    pub(crate) fn used(&self) -> u64 {
        let counts = self.counts.lock();
        counts.used + counts.index
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.change(|counts| counts.used += bytes);
    }

    pub(crate) fn sub(&self, bytes: u64) {
        self.change(|counts| counts.used = counts.used.saturating_sub(bytes));
    }

    /// The folder is a new one: nothing of what was counted is in it.
    pub(crate) fn forget(&self) {
        self.change(|counts| counts.used = 0);
    }

    pub(crate) fn set_index(&self, bytes: u64) {
        self.change(|counts| counts.index = bytes);
    }

    /// Reserves `needed` bytes, of which the file system has `free`.
    pub(crate) fn reserve(self: &Arc<Self>, needed: u64, free: u64) -> Result<Reservation, Shortage> {
        let mut counts = self.counts.lock();
        let after = counts.total(self.limit).saturating_add(needed);
        let over = after.saturating_sub(self.limit);
        let free = free.saturating_sub(counts.promised);
        let missing = needed.saturating_add(self.min_free).saturating_sub(free);
        if over == 0 && missing == 0 {
            counts.reserved += needed;
            counts.promised += needed;
            return Ok(Reservation { space: Arc::clone(self), bytes: needed, allocated: false });
        }
        let low = self.limit / 100 * LOW_WATERMARK_PERCENT;
        let refusal = if needed > self.limit {
            NoRoom::TooLarge { needed, limit: self.limit }
        } else if over > 0 {
            NoRoom::Full { needed, limit: self.limit }
        } else {
            NoRoom::Disk { needed, free, min_free: self.min_free }
        };
        let goal = if over > 0 { after.saturating_sub(low).max(missing) } else { missing };
        Err(Shortage { must: over.max(missing), goal, refusal })
    }

    /// A reservation that others can be merged into.
    pub(crate) fn reserve_nothing(self: &Arc<Self>) -> Reservation {
        Reservation { space: Arc::clone(self), bytes: 0, allocated: false }
    }

    /// Whether the account has room for `bytes`, whatever the disk has.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.counts.lock().total(self.limit).saturating_add(bytes) <= self.limit
    }

    /// Whether room may soon have to be made.
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.counts.lock().total(self.limit) > self.limit / 100 * NEARLY_FULL_PERCENT
    }

    /// What to remove to get from above the high watermark to the low one.
    pub(crate) fn over_high(&self) -> Option<Shortage> {
        let (total, limit) = (self.counts.lock().total(self.limit), self.limit);
        let goal = total.saturating_sub(limit / 100 * LOW_WATERMARK_PERCENT);
        let refusal = NoRoom::Full { needed: 0, limit };
        (total > limit / 100 * HIGH_WATERMARK_PERCENT).then_some(Shortage { must: 0, goal, refusal })
    }

    /// The disk itself has said that it has no room.
    pub(crate) fn refusal(&self, needed: u64, free: u64) -> NoRoom {
        NoRoom::Disk { needed, free, min_free: self.min_free }
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.lock();
        change(&mut counts);
        self.gauge.set(i64::try_from(counts.used + counts.index).unwrap_or(i64::MAX));
    }
}

/// Bytes that may still be written. What is left is given back on drop.
pub(crate) struct Reservation {
    space: Arc<Space>,
    bytes: u64,
    allocated: bool,
}

impl Reservation {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_allocated(&self) -> bool {
        self.allocated
    }

    /// The file system has allocated all of it.
    pub(crate) fn set_allocated(&mut self) {
        self.space.counts.lock().promised -= self.bytes;
        self.allocated = true;
    }

    /// Takes over another reservation. What is allocated of only one of them counts as not allocated: that errs on the safe side.
    pub(crate) fn merge(&mut self, mut other: Self) {
        let mut counts = self.space.counts.lock();
        match (self.allocated, other.allocated) {
            (true, false) => counts.promised += self.bytes,
            (false, true) => counts.promised += other.bytes,
            _ => {}
        }
        self.allocated &= other.allocated;
        drop(counts);
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// `bytes` of it have been written.
    pub(crate) fn spend(&mut self, bytes: u64) {
        let spent = bytes.min(self.bytes);
        self.bytes -= spent;
        let allocated = self.allocated;
        self.space.change(|counts| {
            counts.used += bytes;
            counts.reserved -= spent;
            counts.promised -= if allocated { 0 } else { spent };
        });
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut counts = self.space.counts.lock();
        counts.reserved -= self.bytes;
        counts.promised -= if self.allocated { 0 } else { self.bytes };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(limit: u64, min_free: u64) -> Arc<Space> {
        Arc::new(Space::new(limit, min_free, IntGauge::new("bytes", "bytes").unwrap()))
    }

    #[test]
    fn what_is_reserved_counts_until_it_is_written_or_given_back() {
        let space = space(100, 0);
        let mut first = space.reserve(60, 1000).unwrap();
        assert_eq!(space.reserve(50, 1000).err().unwrap().must, 10);
        first.spend(20);
        assert_eq!((space.used(), first.bytes()), (20, 40));
        drop(first);
        let mut rest = space.reserve(80, 1000).unwrap();
        rest.set_allocated();
        rest.spend(80);
        drop(rest);
        assert_eq!(space.used(), 100);
        let full = space.reserve(1, 1000).err().unwrap();
        assert_eq!((full.must, full.goal), (1, 11));
        assert_eq!(full.refusal, NoRoom::Full { needed: 1, limit: 100 });
        let large = space.reserve(101, 1000).err().unwrap();
        assert_eq!(large.refusal, NoRoom::TooLarge { needed: 101, limit: 100 });
    }

    #[test]
    fn reservations_that_are_merged_promise_what_they_promised() {
        let space = space(1000, 0);
        for (first_allocated, second_allocated) in [(false, false), (true, true), (true, false), (false, true)] {
            let mut first = space.reserve(100, u64::MAX).unwrap();
            let mut second = space.reserve(200, u64::MAX).unwrap();
            for (reservation, is_allocated) in [(&mut first, first_allocated), (&mut second, second_allocated)] {
                if is_allocated {
                    reservation.set_allocated();
                }
            }
            first.merge(second);
            first.spend(10);
            let promised = space.counts.lock().promised;
            assert_eq!(promised, if first_allocated && second_allocated { 0 } else { 290 });
            drop(first);
            let counts = space.counts.lock();
            assert_eq!((counts.reserved, counts.promised), (0, 0));
        }
    }

    #[test]
    fn an_index_may_double_without_passing_the_limit() {
        let space = space(64 << 10, 0);
        space.set_index(100);
        assert!(space.reserve((63 << 10) - 100, u64::MAX).is_ok());
        assert_eq!(space.reserve((63 << 10) - 99, u64::MAX).err().unwrap().must, 1);
        space.set_index(20 << 10);
        assert!(space.reserve(24 << 10, u64::MAX).is_ok());
        assert_eq!(space.reserve((24 << 10) + 1, u64::MAX).err().unwrap().must, 1);
    }

    #[test]
    fn promised_bytes_are_not_promised_twice_and_min_free_is_kept() {
        let space = space(10_000, 50);
        let mut first = space.reserve(60, 120).unwrap();
        let short = space.reserve(60, 120).err().unwrap();
        assert_eq!((short.must, &short.refusal), (50, &NoRoom::Disk { needed: 60, free: 60, min_free: 50 }));
        first.set_allocated();
        assert!(space.reserve(10, 60).is_ok(), "allocated bytes are gone from what is free already");
    }
}
