//! One host's circuit breaker: once it is plain that the host does not answer, requests fail at once instead of each waiting for its
//! own time limit.
//!
//! Three failures in a row to get any answer (refused, time-out, TLS) open it. From then on one request at a time is let through,
//! at growing intervals (another one if a try takes longer than the longest of them: where packets vanish, a request that was
//! sent during the outage may not notice its end); the first answer, whatever its status, closes it. Requests that are still
//! connecting when it opens fail with it. A breaker belongs to a host that is really dialled, so that a storage account that is
//! away does not keep anybody from the registry itself.

use super::again::Answers;
use crate::upstream::error::{ErrorKind, Failure, Withheld};
use crate::upstream::transport::origin::Origin;
use parking_lot::Mutex;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::Instant;

/// Failures in a row that open the breaker.
const FAILURES: u32 = 3;
/// Time from the last failure to the first request that is let through …
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// … doubling from there up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

pub(in crate::upstream) struct Breaker {
    host: String,
    state: Mutex<State>,
    open: watch::Sender<bool>,
    /// Tells who waits for an answer that the host answers again.
    pub(in crate::upstream) answers: Answers,
}

#[derive(Default)]
struct State {
    failures: u32,
    /// When the first of them was.
    since: Option<SystemTime>,
    outage: Option<Outage>,
}

struct Outage {
    last: Failure,
    pause: Duration,
    next: Instant,
    /// When the last request that was let through was, if it has not ended.
    probing: Option<Instant>,
}

/// Leave to send one request; how it ends is to be told.
pub(in crate::upstream) struct BreakerPermit<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

impl Breaker {
    pub(in crate::upstream) fn new(origin: &Origin) -> Self {
        Self {
            host: origin.to_string(),
            state: Mutex::default(),
            open: watch::Sender::new(false),
            answers: Answers::default(),
        }
    }

    /// Whether a request has any chance to be let through now.
    pub(in crate::upstream) fn check(&self) -> Result<(), Failure> {
        self.state.lock().check(&self.host)
    }

    /// Since when the host has not answered, and the sentence that says so, while the breaker is open.
    pub(in crate::upstream) fn silence(&self) -> Option<(SystemTime, String)> {
        let state = self.state.lock();
        let outage = state.outage.as_ref()?;
        Some((state.began(), state.words(&self.host, outage)))
    }

    /// Lets a request through, or fails as the last one did.
    pub(in crate::upstream) fn admit(&self) -> Result<BreakerPermit<'_>, Failure> {
        let mut state = self.state.lock();
        state.check(&self.host)?;
        let probe = state.outage.as_mut().map(|outage| outage.probing = Some(Instant::now())).is_some();
        Ok(BreakerPermit { breaker: self, probe })
    }

    /// The host has answered, whatever it said.
    pub(in crate::upstream) fn answered(&self) {
        self.answers.heard();
        let mut state = self.state.lock();
        if state.outage.is_some() {
            tracing::info!(upstream.host = self.host, "the host answers again");
            self.open.send_replace(false);
        }
        *state = State::default();
    }

    fn failed(&self, failure: &Failure, probe: bool) {
        let mut state = self.state.lock();
        if let Some(outage) = &mut state.outage {
            if probe {
                outage.pause = (outage.pause * 2).min(LONGEST_PAUSE);
                outage.next = Instant::now() + outage.pause;
                outage.probing = None;
                outage.last = failure.clone();
            }
            return;
        }
        state.failures += 1;
        state.since.get_or_insert_with(SystemTime::now);
        if state.failures >= FAILURES {
            tracing::warn!(
                upstream.host = self.host,
                error = failure.reason,
                "the host does not answer: requests to it fail at once, one at a time tries it, until it does"
            );
            let (pause, next) = (FIRST_PAUSE, Instant::now() + FIRST_PAUSE);
            state.outage = Some(Outage { last: failure.clone(), pause, next, probing: None });
            self.open.send_replace(true);
        }
    }
}

impl State {
    fn check(&self, host: &str) -> Result<(), Failure> {
        let Some(outage) = &self.outage else { return Ok(()) };
        if !outage.is_probed() && outage.left().is_zero() {
            return Ok(());
        }
        Err(Failure::withheld(Withheld::Unreachable, outage.last.kind.clone(), self.words(host, outage)))
    }

    /// When the first of the failures in a row was.
    fn began(&self) -> SystemTime {
        self.since.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    fn words(&self, host: &str, outage: &Outage) -> String {
        let since = humantime::format_rfc3339_seconds(self.began());
        let left = outage.left();
        let next = if outage.is_probed() {
            "a try is under way".to_owned()
        } else if left.is_zero() {
            "the next request tries it".to_owned()
        } else {
            format!("the next try is in {} s", left.as_millis().div_ceil(1000))
        };
        format!("{host} has not answered since {since}; {next}; the last one: {}", outage.last.reason)
    }
}

impl Outage {
    /// Until a request may be let through.
    fn left(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    fn is_probed(&self) -> bool {
        self.probing.is_some_and(|since| since.elapsed() < LONGEST_PAUSE)
    }
}

impl BreakerPermit<'_> {
    /// Ends when the breaker opens under a request that is no probe itself; the failure is what the others meet.
    pub(in crate::upstream) async fn overtaken(&self) -> Failure {
        if !self.probe {
            let mut open = self.breaker.open.subscribe();
            // The sender is the breaker's own: it cannot be gone.
            let _ = open.wait_for(|open| *open).await;
            if let Err(failure) = self.breaker.check() {
                return failure;
            }
        }
        std::future::pending().await
    }

    /// The request was given up for another one. Only of a probe does that say something about the host: it may be slow.
    pub(in crate::upstream) fn outlived(self, failure: &Failure) {
        if self.probe {
            self.settle(Some(failure));
        }
    }

    /// Tells how the request ended: with an answer, or without.
    pub(in crate::upstream) fn settle(mut self, failure: Option<&Failure>) {
        let probe = std::mem::take(&mut self.probe);
        match failure {
            Some(failure) if failure.withheld.is_some() => {}
            Some(failure) if is_silence(&failure.kind) => self.breaker.failed(failure, probe),
            _ => self.breaker.answered(),
        }
    }
}

impl Drop for BreakerPermit<'_> {
    /// A probe that was given up before its end said nothing: the next request may try.
    fn drop(&mut self) {
        if self.probe
            && let Some(outage) = &mut self.breaker.state.lock().outage
        {
            outage.probing = None;
        }
    }
}

/// Whether there was no answer at all.
fn is_silence(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(&Origin { https: true, host: "storage.invalid".to_owned(), port: 443 })
    }

    fn silence() -> Failure {
        Failure::new(ErrorKind::Timeout, "no connection within 10 s")
    }

    fn fail(breaker: &Breaker, times: u32) {
        for _ in 0..times {
            breaker.admit().ok().unwrap().settle(Some(&silence()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn three_failures_in_a_row_open_it_and_an_answer_between_starts_anew() {
        let breaker = breaker();
        fail(&breaker, 2);
        breaker.admit().ok().unwrap().settle(None);
        fail(&breaker, 2);
        // Anything that was said is an answer.
        breaker.admit().ok().unwrap().settle(Some(&Failure::foreign("not HTTP")));
        fail(&breaker, 3);
        let refused = breaker.admit().err().unwrap();
        assert_eq!(refused.kind, ErrorKind::Timeout);
        assert_eq!(refused.withheld, Some(Withheld::Unreachable));
        for part in ["storage.invalid has not answered since 20", "in 1 s", "no connection within 10 s"] {
            assert!(refused.reason.contains(part), "{}", refused.reason);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_at_a_time_at_growing_intervals_and_one_answer_closes_it() {
        let breaker = breaker();
        fail(&breaker, 3);
        for pause in [1, 2, 4, 8, 10, 10, 10] {
            tokio::time::advance(Duration::from_millis(pause * 1000 - 1)).await;
            assert!(breaker.check().is_err(), "not before {pause} s");
            tokio::time::advance(Duration::from_millis(1)).await;
            let probe = breaker.admit().ok().unwrap();
            assert!(breaker.admit().err().unwrap().reason.contains("a try is under way"));
            probe.settle(Some(&silence()));
        }
        tokio::time::advance(LONGEST_PAUSE).await;
        // Given up before its end: the next one tries.
        drop(breaker.admit().ok().unwrap());
        breaker.admit().ok().unwrap().settle(None);
        assert!(breaker.check().is_ok());
        fail(&breaker, 2);
        assert!(breaker.check().is_ok(), "it counts from nothing again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_hangs_does_not_keep_the_next_from_finding_the_host_well() {
        let breaker = breaker();
        fail(&breaker, 3);
        tokio::time::advance(FIRST_PAUSE).await;
        let hanging = breaker.admit().ok().unwrap();
        tokio::time::advance(LONGEST_PAUSE.saturating_sub(Duration::from_millis(1))).await;
        assert!(breaker.check().is_err());
        tokio::time::advance(Duration::from_millis(1)).await;
        let second = breaker.admit().ok().unwrap();
        assert!(breaker.check().is_err(), "one more, not all");
        second.settle(None);
        assert!(breaker.check().is_ok());
        // What the first one says afterwards counts like any other failure.
        hanging.settle(Some(&silence()));
        assert!(breaker.check().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_was_given_up_for_another_counts_only_as_a_probe() {
        let breaker = breaker();
        for _ in 0..FAILURES {
            breaker.admit().ok().unwrap().outlived(&silence());
        }
        assert!(breaker.check().is_ok());
        fail(&breaker, FAILURES);
        tokio::time::advance(FIRST_PAUSE).await;
        breaker.admit().ok().unwrap().outlived(&silence());
        tokio::time::advance(FIRST_PAUSE).await;
        assert!(breaker.check().is_err(), "the next probe comes after the longer pause");
    }

    #[tokio::test(start_paused = true)]
    async fn who_still_connects_when_it_opens_fails_with_it() {
        let breaker = breaker();
        let waiting = breaker.admit().ok().unwrap();
        fail(&breaker, 3);
        assert_eq!(waiting.overtaken().await.withheld, Some(Withheld::Unreachable));
    }
}
