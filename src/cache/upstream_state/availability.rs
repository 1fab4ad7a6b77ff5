//! Whether an upstream can give again now what it has given, as far as its last answers tell. Pure but for the clock.
//!
//! It decides what may be removed to make room, so a doubt counts as a no: an upstream is away from its first request that fails
//! in an outage until it answers again, and for a while longer if that outage was more than a hiccup, so that a link that comes
//! and goes costs nothing that is stored. One that nobody has heard of lately is away as well, and is asked before that matters:
//! by a download that has to make room, and by `watch`. Blobs are judged by themselves, since they come from a storage host
//! of their own.

use crate::cache::Inner;
use crate::cache::upstream_state::state::UpstreamState;
use crate::upstream::{ErrorKind, UpstreamError};
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// An outage of so many requests, or for so long, is no hiccup …
const FAILURES: u32 = 3;
const HICCUP: Duration = Duration::from_secs(1);
/// … and is over only when answers have come for so long.
const STEADY: Duration = Duration::from_secs(10);
/// An answer says so much about the time after it.
const NEWS: Duration = Duration::from_secs(60);
/// A failed download says so much about the time after it: nobody may ask for another one.
const BLOB_NEWS: Duration = Duration::from_secs(300);
/// Who has answered less long ago is not asked again.
const RECENT: Duration = Duration::from_millis(200);
/// How long a download that has to make room waits for others to say that they are there.
const PROBE_WAIT: Duration = Duration::from_millis(500);
/// How often upstreams are asked as long as room is to be made.
const ROUND: Duration = Duration::from_secs(20);

/// What is known of one upstream.
#[derive(Debug, Default)]
pub(in crate::cache) struct Availability {
    registry: Mutex<Line>,
    blobs: Mutex<Line>,
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

    fn heard_within(&self, time: Duration, now: Instant) -> bool {
        self.answered.is_some_and(|answered| now - answered < time)
    }
}

impl Availability {
    /// A request was answered; `blob`: with a blob's bytes.
    pub(in crate::cache) fn answered(&self, blob: bool) {
        let now = Instant::now();
        self.registry.lock().answered(now);
        if blob {
            self.blobs.lock().answered(now);
        }
    }

    /// A request, for a blob's bytes perhaps, failed.
    pub(in crate::cache) fn failed(&self, blob: bool, error: &UpstreamError) {
        // Who throttles is there, and gives again in a moment; a body that was cut had begun.
        if matches!(error.kind(), ErrorKind::Throttled { .. } | ErrorKind::Interrupted) {
            return;
        }
        if !error.is_outage() {
            self.registry.lock().answered(Instant::now());
        } else if blob {
            self.blobs.lock().failed(Instant::now());
        } else {
            self.registry.lock().failed(Instant::now());
        }
    }

    /// Whether it cannot give now what it has given.
    pub(in crate::cache) fn is_away(&self) -> bool {
        let now = Instant::now();
        let registry = self.registry.lock();
        if registry.outage.is_some() || registry.is_recovering(now) {
            return true;
        }
        drop(registry);
        let blobs = self.blobs.lock();
        blobs.is_recovering(now) || blobs.outage.as_ref().is_some_and(|outage| now - outage.last < BLOB_NEWS)
    }

    /// Whether nobody has heard of it lately, so that it may be away.
    pub(in crate::cache) fn is_unheard_of(&self) -> bool {
        !self.registry.lock().heard_within(NEWS, Instant::now())
    }

    fn is_to_be_asked(&self) -> bool {
        !self.registry.lock().heard_within(RECENT, Instant::now())
    }

    fn is_in_outage(&self) -> bool {
        self.registry.lock().outage.is_some()
    }

    /// No answer has come in time, whatever comes later.
    fn kept_waiting(&self) {
        self.registry.lock().failed(Instant::now());
    }
}

impl Inner {
    /// Asks the upstreams that nobody has just heard of whether they are there, and waits for the answers, not for long. Who is
    /// away already is not waited for.
    pub(in crate::cache) async fn probe_idle(&self, whom: impl Fn(&Availability) -> bool) {
        let end = Instant::now() + PROBE_WAIT;
        let is_asked = |upstream: &UpstreamState| {
            !upstream.sealed && upstream.availability.is_to_be_asked() && whom(&upstream.availability)
        };
        let asked = self.upstreams.values().filter(|upstream| is_asked(upstream));
        let asked: Vec<_> = asked.map(|upstream| (upstream, upstream.availability.is_in_outage())).collect();
        for (upstream, _) in &asked {
            if upstream.begin_ping() {
                let upstream = Arc::clone(upstream);
                self.tasks.spawn(async move { upstream.ping().await });
            }
        }
        for (upstream, _) in asked.iter().filter(|(_, in_outage)| !in_outage) {
            if timeout(end - Instant::now(), upstream.pinged()).await.is_err() {
                upstream.availability.kept_waiting();
            }
        }
    }
}

/// Asks around as long as room is to be made, and those that are away as long as something is held for them.
pub(in crate::cache) async fn watch(weak: Weak<Inner>) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let Some(inner) = weak.upgrade() else { return };
        let all = inner.store.wants_eviction();
        if all || inner.store.usage().held > 0 {
            inner.probe_idle(|availability| all || availability.is_in_outage()).await;
        }
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
            !availability.is_away() && availability.is_unheard_of() && availability.is_to_be_asked(),
            "never heard of"
        );
        availability.answered(false);
        assert!(!availability.is_unheard_of() && !availability.is_to_be_asked());
        after(0.3).await;
        assert!(!availability.is_unheard_of() && availability.is_to_be_asked());
        after(60.0).await;
        assert!(availability.is_unheard_of());
    }

    #[tokio::test(start_paused = true)]
    async fn storage_that_fails_is_not_excused_by_a_registry_that_answers() {
        let availability = Availability::default();
        availability.answered(true);
        availability.blobs.lock().failed(Instant::now());
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
