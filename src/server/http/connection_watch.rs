//! The patience that a connection is shown, in one place: what it may be waiting for, and until when.
//!
//! A connection waits for a head (`header_timeout` from the first byte of it, or from the beginning), for the client to take bytes
//! (`stall_timeout` without progress), for the next request (`IDLE`), or for larder itself (no limit here: whoever works has its
//! own). hyper's own header timeout is not used: it also runs between requests, and closes connections that clients keep for later.

use crate::config::Limits;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a connection is kept for the next request: longer than clients keep theirs (Go: 90 s), so that they close it, not we
/// under a request that is on its way.
const IDLE: Duration = Duration::from_secs(120);
/// How long a drain waits for the rest of a request that has begun to arrive.
pub(in crate::server) const DRAIN_GRACE: Duration = Duration::from_millis(500);
/// Writes up to this size may be no more than answers to pings, which say nothing about the client taking its bytes.
const PING_FRAME: usize = 17;

pub(in crate::server) struct Watch {
    header_timeout: Duration,
    stall_timeout: Duration,
    state: Mutex<State>,
}

#[expect(clippy::struct_excessive_bools, reason = "facts that hold independently of each other")]
struct State {
    /// Answers that are being made or sent.
    answers: usize,
    /// Those among them that wait for larder, not for the client.
    waiting: usize,
    /// The last progress of any kind.
    progress: Instant,
    /// When the first byte of a head arrived.
    head: Option<Instant>,
    /// The socket took nothing when it was last offered something.
    blocked: bool,
    requested: bool,
    http2: bool,
    draining: bool,
    /// A request's body may still be on its way.
    unread: bool,
    /// The end of the answer is the end of the connection, so that only a reset can show that it broke.
    close_delimited: bool,
}

/// Why a connection was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Patience {
    Head,
    Stall,
    Idle,
    Drain,
}

impl Watch {
    pub(in crate::server) fn new(limits: &Limits) -> Self {
        let state = State {
            answers: 0,
            waiting: 0,
            progress: Instant::now(),
            head: None,
            blocked: false,
            requested: false,
            http2: false,
            draining: false,
            unread: false,
            close_delimited: false,
        };
        Self { header_timeout: limits.header_timeout, stall_timeout: limits.stall_timeout, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// When the connection is to be given up unless something happens, and why.
    pub(in crate::server) fn deadline(&self) -> Option<(Instant, Patience)> {
        let state = self.state();
        if state.blocked || state.answers > state.waiting {
            return Some((state.progress + self.stall_timeout, Patience::Stall));
        }
        if state.answers > 0 {
            return None;
        }
        let (deadline, patience) = match (state.head, state.requested) {
            (Some(head), _) => (head + self.header_timeout, Patience::Head),
            (None, false) => (state.progress + self.header_timeout, Patience::Head),
            (None, true) => (state.progress + IDLE, Patience::Idle),
        };
        let grace = state.progress + DRAIN_GRACE;
        if state.draining && grace < deadline { Some((grace, Patience::Drain)) } else { Some((deadline, patience)) }
    }

    /// Since when the connection has been waiting for its next request.
    pub(in crate::server) fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        let is_idle = state.requested && state.answers == 0 && state.head.is_none() && !state.blocked;
        is_idle.then_some(state.progress)
    }

    /// The connection can carry requests from now on.
    pub(in crate::server) fn begins(&self) {
        self.state().progress = Instant::now();
    }

    /// Everything that was written has left.
    pub(in crate::server) fn flushed(&self) {
        self.state().blocked = false;
    }

    pub(in crate::server) fn received(&self) {
        let mut state = self.state();
        // HTTP/2 talks between requests too, so only the first head can be told from that.
        if state.answers == 0 && state.head.is_none() && !(state.http2 && state.requested) {
            state.head = Some(Instant::now());
        }
    }

    pub(in crate::server) fn sent(&self, bytes: usize) {
        let mut state = self.state();
        state.blocked = false;
        if bytes > PING_FRAME {
            state.progress = Instant::now();
        }
    }

    pub(in crate::server) fn blocked(&self) {
        let mut state = self.state();
        if !state.blocked && state.answers <= state.waiting {
            state.progress = Instant::now();
        }
        state.blocked = true;
    }

    pub(in crate::server) fn drain(&self) {
        let mut state = self.state();
        state.draining = true;
        if state.answers == 0 && !state.blocked {
            state.progress = Instant::now();
        }
    }

    /// Whether there has been a request.
    pub(in crate::server) fn has_had_a_request(&self) -> bool {
        self.state().requested
    }

    /// A request's head is complete.
    pub(in crate::server) fn request(self: &Arc<Self>, version: http::Version, has_body: bool) -> Answering {
        let mut state = self.state();
        state.requested = true;
        state.http2 = version == http::Version::HTTP_2;
        state.head = None;
        state.unread = has_body && !state.http2;
        state.answers += 1;
        state.waiting += 1;
        state.progress = Instant::now();
        Answering { watch: Arc::clone(self), waiting: true }
    }

    /// The answer to an HTTP/1.0 request has no length.
    pub(in crate::server) fn close_delimited(&self) {
        self.state().close_delimited = true;
    }

    /// Everything was sent, so that the end is no break.
    pub(in crate::server) fn orderly_end(&self) {
        self.state().close_delimited = false;
    }

    /// Whether closing the connection now has to look like a break.
    pub(in crate::server) fn must_reset(&self) -> bool {
        self.state().close_delimited
    }

    /// Whether the client may still be sending bytes that larder does not read: closing at once could destroy the answer on its way.
    pub(in crate::server) fn must_linger(&self) -> bool {
        let state = self.state();
        state.unread || state.head.is_some()
    }
}

/// One answer, from the request's head to the end of its body.
pub(in crate::server) struct Answering {
    watch: Arc<Watch>,
    waiting: bool,
}

impl Answering {
    /// Whether the answer waits for larder (and not for the client).
    pub(in crate::server) fn waits(&mut self, waiting: bool) {
        if self.waiting && waiting {
            return;
        }
        let mut state = self.watch.state();
        state.progress = Instant::now();
        if self.waiting && !waiting {
            state.waiting -= 1;
        } else if !self.waiting && waiting {
            state.waiting += 1;
        }
        drop(state);
        self.waiting = waiting;
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.waits(false);
        self.watch.state().answers -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const HEAD: Duration = Duration::from_secs(15);
    const STALL: Duration = Duration::from_secs(300);

    fn watch() -> Arc<Watch> {
        Arc::new(Watch::new(&Limits { header_timeout: HEAD, stall_timeout: STALL, ..Limits::default() }))
    }

    /// What the connection is shown patience for from now on, and how much.
    fn patience(watch: &Watch) -> Option<(Duration, Patience)> {
        watch.deadline().map(|(deadline, patience)| (deadline - Instant::now(), patience))
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_from_its_first_byte_and_the_next_request_two_minutes() {
        let watch = watch();
        assert_eq!(patience(&watch), Some((HEAD, Patience::Head)), "nothing has come yet");
        advance(Duration::from_secs(5)).await;
        watch.received();
        assert_eq!(patience(&watch), Some((HEAD, Patience::Head)));
        advance(Duration::from_secs(5)).await;
        watch.received();
        assert_eq!(patience(&watch), Some((HEAD.saturating_sub(Duration::from_secs(5)), Patience::Head)), "it drips");
        drop(watch.request(http::Version::HTTP_11, false));
        assert_eq!(patience(&watch), Some((IDLE, Patience::Idle)));
        advance(IDLE / 2).await;
        assert_eq!(patience(&watch), Some((IDLE / 2, Patience::Idle)));
        watch.received();
        assert_eq!(patience(&watch), Some((HEAD, Patience::Head)), "the next one begins");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_has_its_time_and_larder_at_work_has_none() {
        let watch = watch();
        let mut answering = watch.request(http::Version::HTTP_11, false);
        assert_eq!(patience(&watch), None, "it waits for larder");
        advance(STALL * 2).await;
        answering.waits(false);
        assert_eq!(patience(&watch), Some((STALL, Patience::Stall)));
        advance(STALL.saturating_sub(Duration::from_secs(1))).await;
        watch.sent(1000);
        assert_eq!(patience(&watch), Some((STALL, Patience::Stall)), "it has taken something");
        watch.blocked();
        advance(Duration::from_secs(7)).await;
        watch.sent(PING_FRAME);
        assert_eq!(
            patience(&watch),
            Some((STALL.saturating_sub(Duration::from_secs(7)), Patience::Stall)),
            "a ping says nothing"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_half_a_second_for_who_asks_nothing() {
        let (idle, busy) = (watch(), watch());
        drop(idle.request(http::Version::HTTP_11, false));
        let answering = busy.request(http::Version::HTTP_11, false);
        advance(Duration::from_secs(60)).await;
        idle.drain();
        busy.drain();
        assert_eq!(patience(&idle), Some((DRAIN_GRACE, Patience::Drain)));
        assert_eq!(patience(&busy), None);
        drop(answering);
        assert_eq!(patience(&busy), Some((DRAIN_GRACE, Patience::Drain)));
    }
}
