//! The slowest that a download may be: one that brings a byte now and then never stalls, and would never end.

use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// So many bytes have to arrive …
const LEAST: u64 = 16 << 10;
/// … in so many times the limit for standing still, spent waiting for them: a disk or a reader that takes its time is not the
/// upstream's fault.
const STALLS: u32 = 2;

/// How a body keeps to it.
#[derive(Debug)]
pub(super) struct Pace {
    within: Duration,
    waited: Duration,
    bytes: u64,
    kept: bool,
    lost: bool,
}

/// What a body that was too slow has brought, and in which time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooSlow {
    pub(super) bytes: u64,
    pub(super) waited: Duration,
}

impl Pace {
    /// Of a body that may stand still for so long.
    pub(super) fn new(stall: Duration) -> Self {
        Self { within: stall.saturating_mul(STALLS), waited: Duration::ZERO, bytes: 0, kept: false, lost: false }
    }

    /// Waits for `next`, which brings as many bytes as `count` says.
    pub(super) async fn of<T>(
        &mut self,
        next: impl Future<Output = T>,
        count: impl FnOnce(&T) -> Option<u64>,
    ) -> Result<T, TooSlow> {
        let begun = Instant::now();
        let brought = next.await;
        // The end of a body, or its failure, is no matter of pace.
        let Some(bytes) = count(&brought) else { return Ok(brought) };
        self.waited += begun.elapsed();
        self.bytes += bytes;
        if self.bytes >= LEAST {
            (self.waited, self.bytes, self.kept) = (Duration::ZERO, 0, true);
        } else if self.waited >= self.within {
            self.lost = true;
            return Err(TooSlow { bytes: self.bytes, waited: self.waited });
        }
        Ok(brought)
    }

    /// Whether it was too slow in the end.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether it was fast enough for a while.
    pub(super) fn was_kept(&self) -> bool {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    const STALL: Duration = Duration::from_secs(30);
    const WITHIN: Duration = Duration::from_secs(60);

    /// How long a body lasts that brings `bytes` after each pause, of at most `chunks` of them.
    async fn lasts(pause: Duration, bytes: u64, chunks: u32) -> (Duration, Result<(), TooSlow>) {
        let (mut pace, begun) = (Pace::new(STALL), Instant::now());
        for _ in 0..chunks {
            let brought = pace.of(sleep(pause), |()| Some(bytes)).await;
            if let Err(slow) = brought {
                assert!(pace.is_lost());
                return (begun.elapsed(), Err(slow));
            }
            // A disk that takes its time.
            sleep(Duration::from_secs(5)).await;
        }
        (begun.elapsed(), Ok(()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up_after_a_minute_of_waiting() {
        for pause in [Duration::from_millis(500), Duration::from_secs(20)] {
            let (_, end) = lasts(pause, 1, 1000).await;
            let slow = end.unwrap_err();
            assert_eq!(
                (slow.waited, slow.bytes),
                (WITHIN, u64::try_from(WITHIN.as_millis() / pause.as_millis()).unwrap()),
                "{pause:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_link_and_a_slow_disk_are_not() {
        // 300 bytes a second, in chunks of an old modem and of a satellite.
        for (pause, bytes) in [(1, 300), (20, 6000), (50, 16 << 10)] {
            assert_eq!(lasts(Duration::from_secs(pause), bytes, 500).await.1, Ok(()), "{bytes} in {pause} s");
        }
        assert_eq!(lasts(Duration::ZERO, 1, 1000).await.1, Ok(()), "all the time was the disk's");
    }
}
