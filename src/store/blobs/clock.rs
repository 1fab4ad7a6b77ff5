//! The time of a use. The process's own clock continues what the wall clock said at the start, so the order of uses stays right
//! when the wall clock is set meanwhile, by seconds or by years.

use std::time::SystemTime;
use tokio::time::Instant;

pub(super) struct UseClock {
    wall: SystemTime,
    began: Instant,
}

impl UseClock {
    pub(super) fn start() -> Self {
        Self::starting(SystemTime::now())
    }

    fn starting(wall: SystemTime) -> Self {
        Self { wall, began: Instant::now() }
    }

    pub(super) fn now(&self) -> SystemTime {
        self.wall.checked_add(self.began.elapsed()).unwrap_or(self.wall)
    }

    /// A time in the future was written under another clock. It counts as now; otherwise its blob would outlive all that is used
    /// from now on.
    pub(super) fn not_after_now(&self, time: SystemTime) -> SystemTime {
        time.min(self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    #[tokio::test(start_paused = true)]
    async fn what_a_wrong_clock_has_written_outlives_nothing() {
        // The last process ran ten years ahead; this one starts with the right time.
        let wall = SystemTime::UNIX_EPOCH + 50 * YEAR;
        let clock = UseClock::starting(wall);
        let found = clock.not_after_now(wall + 10 * YEAR);
        assert_eq!(found, wall);
        assert_eq!(clock.not_after_now(wall - YEAR), wall - YEAR, "what is past stays");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(clock.now() > found, "whoever is used now was used after it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_at_its_end_does_not_panic() {
        let mut wall = SystemTime::UNIX_EPOCH;
        for step in (0..63).rev().map(|bit| Duration::from_secs(1 << bit)) {
            wall = wall.checked_add(step).unwrap_or(wall);
        }
        let clock = UseClock::starting(wall);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(clock.now() >= wall);
    }
}
