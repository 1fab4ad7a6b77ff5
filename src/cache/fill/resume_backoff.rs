use std::time::Duration;
use tokio::time::Instant;

/// Pause after the first round of attempts without progress; it doubles from there …
const PAUSE: Duration = Duration::from_millis(100);
/// … up to this. A host that does not answer is not dialled that often: its breaker fails most attempts at once.
const LONGEST: Duration = Duration::from_secs(2);
/// The longest pause that is granted to a source that throttles.
const LONGEST_ASKED: Duration = Duration::from_secs(60);
/// How many times the limit a download has that no client reads.
const ALONE: u32 = 5;

/// How long a download that was cut may gain nothing, and how long it rests between attempts.
#[derive(Debug, Default)]
pub(in crate::cache) struct ResumeBackoff {
    since: Option<Instant>,
    attempts: u32,
    alone: bool,
    /// The shortest pause that the candidates have asked for in this round.
    asked: Option<Duration>,
}

impl ResumeBackoff {
    /// Attempts without progress so far.
    pub(in crate::cache) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The pause before the next attempt; `None`: it has lasted longer than `limit`, and is to be given up. Each of so many
    /// `candidates` is tried once before there is any pause. `asked` is what the last one tried wants to be left alone for.
    pub(in crate::cache) fn next(
        &mut self,
        limit: Duration,
        waited_for: bool,
        candidates: usize,
        asked: Option<Duration>,
    ) -> Option<Duration> {
        let now = Instant::now();
        if waited_for && self.alone {
            // Somebody has just come, who has waited for nothing yet.
            self.since = Some(now);
        }
        self.alone = !waited_for;
        let gone = now - *self.since.get_or_insert(now);
        // What ended the transfer itself, before the first attempt, has asked for nothing.
        if self.attempts > 0 {
            let asked = asked.unwrap_or_default().min(LONGEST_ASKED);
            self.asked = Some(self.asked.map_or(asked, |least| least.min(asked)));
        }
        let candidates = u32::try_from(candidates).unwrap_or(u32::MAX).max(1);
        let pause = match self.attempts {
            0 => Duration::ZERO,
            attempts if attempts % candidates == 0 => {
                let round = attempts / candidates - 1;
                let pause = PAUSE.saturating_mul(2_u32.saturating_pow(round.min(10))).min(LONGEST);
                pause.max(self.asked.take().unwrap_or_default())
            }
            _ => Duration::ZERO,
        };
        let limit = if waited_for { limit } else { limit.saturating_mul(ALONE) };
        (gone + pause <= limit).then(|| {
            self.attempts += 1;
            pause
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// Attempts, each of which fails at once, until it is given up.
    async fn give_up(waited_for: impl Fn(Duration) -> bool, asked: Option<Duration>) -> (u32, Duration) {
        let (mut backoff, began) = (ResumeBackoff::default(), Instant::now());
        while let Some(pause) = backoff.next(LIMIT, waited_for(began.elapsed()), 1, asked) {
            assert!(pause <= LONGEST.max(asked.unwrap_or_default()));
            tokio::time::sleep(pause).await;
        }
        (backoff.attempts(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_waited_out_for_a_minute_at_pauses_that_grow() {
        let (attempts, gone) = give_up(|_| true, None).await;
        assert!((Duration::from_secs(57)..=LIMIT).contains(&gone), "{gone:?}");
        assert!((30..40).contains(&attempts), "{attempts}");
    }

    #[tokio::test(start_paused = true)]
    async fn while_nobody_reads_there_is_more_time_but_an_end() {
        let (_, gone) = give_up(|_| false, None).await;
        assert!((LIMIT * 4..=LIMIT * 5).contains(&gone), "{gone:?}");
        // A reader who comes late has waited for nothing yet.
        let late = Duration::from_secs(200);
        let (_, gone) = give_up(|gone| gone >= late, None).await;
        assert!((late + LIMIT / 2..=late + LIMIT + LONGEST).contains(&gone), "{gone:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_throttles_is_left_alone_as_long_as_it_asks() {
        let (attempts, gone) = give_up(|_| true, Some(Duration::from_secs(20))).await;
        assert_eq!((attempts, gone), (4, LIMIT));
        let (attempts, _) = give_up(|_| true, Some(Duration::from_secs(3600))).await;
        assert_eq!(attempts, 2, "a minute at most");
    }

    #[tokio::test(start_paused = true)]
    async fn each_source_is_tried_before_there_is_a_pause_and_the_most_willing_sets_it() {
        let mut backoff = ResumeBackoff::default();
        let asked = [None, Some(Duration::from_secs(30)), Some(Duration::from_secs(4)), Some(Duration::from_secs(9))];
        let pauses = asked.map(|asked| backoff.next(LIMIT, true, 2, asked).unwrap().as_millis());
        assert_eq!(pauses, [0, 0, 4000, 0], "what cut the transfer is no answer to an attempt");
        let mut backoff = ResumeBackoff::default();
        let asked = [30, 30, 4, 9, 7].map(|seconds| Some(Duration::from_secs(seconds)));
        let pauses = asked.map(|asked| backoff.next(LIMIT, true, 2, asked).unwrap().as_secs());
        assert_eq!(pauses, [0, 0, 4, 0, 7]);
    }
}
