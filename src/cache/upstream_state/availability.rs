//! Whether an upstream answers, and whether it can give again now what it has given, as far as its last answers tell. Pure but for
//! the clock.
//!
//! It decides what may be removed to make room, so a doubt counts as a no: an upstream is away from its first request that fails
//! in an outage until it answers again, and for a while longer if that outage was more than a hiccup. A link that comes and goes
//! so costs nothing that is stored. An upstream that has been silent for a while counts as away too; `probe` asks it before that
//! matters. Blobs are judged apart, since they come from a storage host of their own.

use crate::upstream::{ErrorKind, UpstreamError};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// An outage of so many requests, or for so long, is no hiccup …
const FAILURES: u32 = 3;
const HICCUP: Duration = Duration::from_secs(1);
/// … and is over only when answers have come for so long.
const STEADY: Duration = Duration::from_secs(10);
/// An answer says so much about the time after it.
const NEWS: Duration = Duration::from_secs(60);
/// A failed download says so much about the time after it: perhaps no client asks for another one.
const BLOB_NEWS: Duration = Duration::from_secs(300);
/// An upstream that has answered less long ago is not probed.
const RECENT: Duration = Duration::from_millis(200);

/// What is known of one upstream's availability.
#[derive(Debug, Default)]
pub(super) struct Availability(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    registry: Line,
    blobs: Line,
    /// Why the last request failed, if that says nothing about content.
    problem: Option<Arc<str>>,
    /// Whether it has kept a request waiting in vain, and not answered since.
    slow: bool,
}

#[derive(Debug, Default)]
struct Line {
    answered: Option<Instant>,
    outage: Option<Outage>,
    /// When the first answer after an outage came that was no hiccup.
    recovered: Option<Instant>,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    last: Instant,
    failures: u32,
}

impl Line {
    fn answered(&mut self, now: Instant) {
        self.answered = Some(now);
        if let Some(outage) = self.outage.take()
            && (outage.failures >= FAILURES || now - outage.since >= HICCUP)
        {
            self.recovered = Some(now);
        }
    }

    fn failed(&mut self, now: Instant) {
        // During a recovery it is the same outage still.
        let known = if self.is_recovering(now) { FAILURES } else { 0 };
        let outage = self.outage.get_or_insert(Outage { since: now, last: now, failures: known });
        outage.failures += 1;
        outage.last = now;
    }

    fn is_recovering(&self, now: Instant) -> bool {
        self.recovered.is_some_and(|recovered| now - recovered < STEADY)
    }

    fn heard_within(&self, time: Duration) -> bool {
        self.answered.is_some_and(|answered| answered.elapsed() < time)
    }
}

impl Availability {
    /// A request was answered; `blob`: with a blob's bytes. The result: whether it had been slow.
    pub(super) fn answered(&self, blob: bool) -> bool {
        let (now, mut known) = (Instant::now(), self.0.lock());
        known.registry.answered(now);
        if blob {
            known.blobs.answered(now);
        }
        known.problem = None;
        std::mem::take(&mut known.slow)
    }

    /// A request, for a blob's bytes perhaps, failed. The result: whether it had been slow, and is no more.
    pub(super) fn failed(&self, blob: bool, error: &UpstreamError) -> bool {
        let (now, mut known) = (Instant::now(), self.0.lock());
        match error.kind() {
            // An upstream that throttles gives again in a moment; a body that was cut had begun.
            ErrorKind::Throttled { .. } | ErrorKind::Interrupted => {}
            _ if !error.is_outage() => known.registry.answered(now),
            _ if blob => known.blobs.failed(now),
            _ => known.registry.failed(now),
        }
        if error.is_outage() {
            known.problem = Some(error.to_string().into());
            return false;
        }
        known.problem = None;
        std::mem::take(&mut known.slow)
    }

    /// A request waited in vain for an answer. The result: whether it is the first since the last answer.
    pub(super) fn kept_waiting(&self) -> bool {
        !std::mem::replace(&mut self.0.lock().slow, true)
    }

    /// A probe was not answered in time, whatever comes later.
    pub(super) fn missed_probe(&self) {
        self.0.lock().registry.failed(Instant::now());
    }

    pub(super) fn is_slow(&self) -> bool {
        self.0.lock().slow
    }

    /// Why the last request failed, if that says nothing about content.
    pub(super) fn problem(&self) -> Option<Arc<str>> {
        self.0.lock().problem.clone()
    }

    /// Whether it cannot give now what it has given.
    pub(super) fn is_away(&self) -> bool {
        let (now, known) = (Instant::now(), self.0.lock());
        let blobs_fail = known.blobs.outage.as_ref().is_some_and(|outage| now - outage.last < BLOB_NEWS);
        let recovers = known.registry.is_recovering(now) || known.blobs.is_recovering(now);
        known.registry.outage.is_some() || blobs_fail || recovers
    }

    /// Whether it has said nothing for so long that it may be away.
    pub(super) fn is_silent(&self) -> bool {
        !self.0.lock().registry.heard_within(NEWS)
    }

    pub(super) fn is_to_be_probed(&self) -> bool {
        !self.0.lock().registry.heard_within(RECENT)
    }

    pub(super) fn is_in_outage(&self) -> bool {
        self.0.lock().registry.outage.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: f32) -> impl Future<Output = Instant> {
        let time = Duration::from_secs_f32(seconds);
        async move {
            tokio::time::advance(time).await;
            Instant::now()
        }
    }

    fn is_away(line: &Line, now: Instant) -> bool {
        line.outage.is_some() || line.is_recovering(now)
    }

    #[tokio::test(start_paused = true)]
    async fn a_hiccup_is_forgotten_at_once_and_an_outage_when_answers_have_come_for_a_while() {
        let mut line = Line::default();
        line.failed(Instant::now());
        assert!(is_away(&line, Instant::now()), "it may be the first of many");
        line.answered(after(0.5).await);
        assert!(!is_away(&line, Instant::now()));
        line.failed(Instant::now());
        line.answered(after(1.5).await);
        assert!(is_away(&line, after(9.0).await));
        assert!(!is_away(&line, after(1.1).await));
        for _ in 0..FAILURES {
            line.failed(Instant::now());
        }
        line.answered(Instant::now());
        assert!(is_away(&line, Instant::now()), "three in a row");
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_comes_and_goes_is_away_all_the_time() {
        let mut line = Line::default();
        line.failed(Instant::now());
        line.answered(after(2.0).await);
        for _ in 0..20 {
            line.failed(after(4.0).await);
            line.answered(Instant::now());
            assert!(is_away(&line, after(4.0).await));
        }
        assert!(!is_away(&line, after(6.1).await));
    }

    #[tokio::test(start_paused = true)]
    async fn old_news_are_none() {
        let availability = Availability::default();
        assert!(
            !availability.is_away() && availability.is_silent() && availability.is_to_be_probed(),
            "never heard of"
        );
        availability.answered(false);
        assert!(!availability.is_silent() && !availability.is_to_be_probed());
        after(0.3).await;
        assert!(!availability.is_silent() && availability.is_to_be_probed());
        after(60.0).await;
        assert!(availability.is_silent());
    }

    #[tokio::test(start_paused = true)]
    async fn storage_that_fails_is_not_excused_by_a_registry_that_answers() {
        let availability = Availability::default();
        availability.answered(true);
        availability.0.lock().blobs.failed(Instant::now());
        availability.answered(false);
        assert!(availability.is_away());
        // Nobody asks for another blob: it is not believed for ever.
        for _ in 0..6 {
            after(50.1).await;
            availability.answered(false);
        }
        assert!(!availability.is_away());
    }
}
