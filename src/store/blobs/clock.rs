//! The time of a use. It runs with the process's own clock from what the wall clock said at its start, so that a wall clock that is
//! set meanwhile, by seconds or by years, changes nothing about who was used before whom.

use std::sync::LazyLock;
use std::time::SystemTime;
use tokio::time::Instant;

static CLOCK: LazyLock<UseClock> = LazyLock::new(|| UseClock::starting(SystemTime::now()));

struct UseClock {
    wall: SystemTime,
    began: Instant,
}

impl UseClock {
    fn starting(wall: SystemTime) -> Self {
        Self { wall, began: Instant::now() }
    }

    fn now(&self) -> SystemTime {
        self.wall.checked_add(self.began.elapsed()).unwrap_or(self.wall)
    }

    /// What lies in the future was written under another clock, and counts as used just now: else it would outlive whatever is
    /// used from now on.
    fn not_after_now(&self, time: SystemTime) -> SystemTime {
        time.min(self.now())
    }
}

/// Now, for last use.
pub(crate) fn now() -> SystemTime {
    CLOCK.now()
}

/// `time`, or now if it lies in the future.
pub(crate) fn not_after_now(time: SystemTime) -> SystemTime {
    CLOCK.not_after_now(time)
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
