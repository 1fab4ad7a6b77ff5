use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// A fill that has brought nothing yet, or has only just begun, may turn out to be as fast as this, in bytes per second.
const UNMEASURED: f64 = 1e9;
/// What is measured over less time says nothing.
const SHORTEST: Duration = Duration::from_millis(5);

/// How fast a fill has been since it was opened.
#[derive(Debug, Default)]
pub(in crate::cache) struct Pace(Mutex<Option<Begun>>);

#[derive(Clone, Copy, Debug)]
struct Begun {
    at: Instant,
    /// Bytes that were there already.
    kept: u64,
}

impl Pace {
    /// The fill is open, and continues behind `kept` bytes.
    pub(in crate::cache) fn begin(&self, kept: u64) {
        *self.0.lock() = Some(Begun { at: Instant::now(), kept });
    }

    /// Whether a fill that has `written` so far can be at `position` within `time`.
    pub(in crate::cache) fn covers(&self, written: u64, position: u64, time: Duration) -> bool {
        let begun = *self.0.lock();
        let measured = begun.map_or(UNMEASURED, |begun| {
            let gone = begun.at.elapsed();
            if written <= begun.kept || gone < SHORTEST {
                return UNMEASURED;
            }
            bytes(written - begun.kept) / gone.as_secs_f64()
        });
        bytes(position.saturating_sub(written)) <= measured * time.as_secs_f64()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a pace needs no more than the first digits")]
fn bytes(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test(start_paused = true)]
    async fn a_fill_gets_as_far_as_its_pace_so_far_says() {
        let pace = Pace::default();
        pace.begin(100 * MIB);
        tokio::time::advance(Duration::from_millis(500)).await;
        // 32 MiB in half a second: 1.28 MiB in 20 ms.
        assert!(pace.covers(132 * MIB, 133 * MIB, SOON));
        assert!(!pace.covers(132 * MIB, 134 * MIB, SOON));
        assert!(!pace.covers(132 * MIB, 1000 * MIB, SOON));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_measured_may_be_fast_but_not_without_limit() {
        let pace = Pace::default();
        for _ in 0..2 {
            assert!(pace.covers(0, 19 * MIB, SOON));
            assert!(!pace.covers(0, 200 * MIB, SOON));
            pace.begin(0);
        }
        tokio::time::advance(Duration::from_millis(2)).await;
        assert!(pace.covers(1, 19 * MIB, SOON), "a first byte is no measure");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(pace.covers(0, 19 * MIB, SOON), "nor is a body that has not begun");
    }
}
