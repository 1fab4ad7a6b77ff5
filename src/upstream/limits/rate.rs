//! `max_rate`: what all blob downloads of one upstream may bring together, shared fairly between them.
//!
//! Bytes are handed on in shares of a fixed size, each in its turn: of two downloads each gets half, however large the pieces are
//! that its connection brings. What is not handed on is not read, so that the upstream is slowed by its own flow control.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Bytes that a download gets at a time.
pub(in crate::upstream) const SHARE: usize = 64 << 10;
/// Time unused that may be made up for: what timers and busy threads cost.
const SLACK: Duration = Duration::from_millis(50);

pub(in crate::upstream) struct Rate {
    bytes_per_second: u64,
    /// When the next share is due.
    next: Mutex<Instant>,
}

impl Rate {
    pub(in crate::upstream) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), next: Mutex::new(Instant::now()) }
    }

    /// Waits for the turn of `bytes` more.
    pub(in crate::upstream) async fn turn(&self, bytes: usize) {
        let due = self.reserve(bytes);
        if due > Instant::now() {
            sleep_until(due).await;
        }
    }

    fn reserve(&self, bytes: usize) -> Instant {
        let cost = Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / self.bytes_per_second);
        let now = Instant::now();
        let mut next = self.next.lock();
        let due = (*next).max(now.checked_sub(SLACK).unwrap_or(now));
        *next = due + cost;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_and_is_shared_by_halves() {
        let rate = Arc::new(Rate::new(10 * SHARE as u64));
        let begun = Instant::now();
        let download = |shares: usize| {
            let rate = Arc::clone(&rate);
            tokio::spawn(async move {
                for _ in 0..shares {
                    rate.turn(SHARE).await;
                }
                begun.elapsed().as_millis()
            })
        };
        let (first, second) = (download(20), download(10));
        // 10 shares a second: the shorter one ends when both have 10, the longer one then has the rest alone.
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert!((1800..=2000).contains(&second), "{second} ms");
        assert!((2800..=3000).contains(&first), "{first} ms");
    }
}
