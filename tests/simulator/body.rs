//! Bodies: slices of what is stored, never copied, at the pace and with the end that the knobs ask for.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::effects::Pending;
use super::knobs::Knobs;
use super::record::Record;

/// A broken end waits so long, so that what came before it has left the process.
const BEFORE_BREAKING: Duration = Duration::from_millis(50);
/// A body that the timer woke late may catch up so much.
const CATCH_UP: Duration = Duration::from_millis(100);

/// How a body ends once its bytes are out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Clean,
    Cut,
    Reset,
    Stall,
}

pub(super) struct Body {
    segments: VecDeque<Bytes>,
    end: End,
    known_length: Option<u64>,
    pace: Option<Pace>,
    /// Bytes of the first segment that may go now.
    granted: usize,
    pause: Option<Pin<Box<Sleep>>>,
    breaking: bool,
    pending: Option<Pending>,
    sent: u64,
    record: Option<Arc<Record>>,
    abort: Option<Arc<AtomicBool>>,
}

impl Body {
    pub(super) fn of(content: impl Into<Bytes>) -> Self {
        let content = content.into();
        let length = content.len() as u64;
        Self::stream(VecDeque::from([content]), End::Clean, Some(length), None)
    }

    pub(super) fn empty() -> Self {
        Self::of(Bytes::new())
    }

    /// `known_length` is what `Content-Length` promises; without one the body is chunked.
    pub(super) fn stream(segments: VecDeque<Bytes>, end: End, known_length: Option<u64>, pace: Option<Pace>) -> Self {
        let segments = segments.into_iter().filter(|s| !s.is_empty()).collect();
        Self {
            segments,
            end,
            known_length,
            pace,
            granted: 0,
            pause: None,
            breaking: false,
            pending: None,
            sent: 0,
            record: None,
            abort: None,
        }
    }

    /// Counts into `record`, and resets the connection that owns `abort` if the end says so.
    pub(super) fn owned_by(mut self, record: Arc<Record>, abort: Arc<AtomicBool>) -> Self {
        (self.record, self.abort) = (Some(record), Some(abort));
        self
    }

    /// Counts this damage when it has taken effect.
    pub(super) fn suffering(mut self, pending: Option<Pending>) -> Self {
        self.pending = pending;
        self.count_effect();
        self
    }

    fn count_effect(&mut self) {
        if let Some(pending) = self.pending.take_if(|pending| pending.after <= self.sent) {
            pending.take_effect();
        }
    }

    fn next_piece(&mut self) -> Option<Result<Bytes, Instant>> {
        let front = self.segments.front_mut()?;
        if self.granted == 0 {
            let Some(pace) = &mut self.pace else {
                return self.segments.pop_front().map(Ok);
            };
            self.granted = pace.piece().min(front.len());
            let due = pace.reserve(self.granted);
            if due > Instant::now() {
                return Some(Err(due));
            }
        }
        let piece = front.split_to(self.granted);
        if front.is_empty() {
            self.segments.pop_front();
        }
        self.granted = 0;
        Some(Ok(piece))
    }

    fn poll_end(&mut self) -> Poll<Option<io::Error>> {
        match self.end {
            End::Clean => return Poll::Ready(None),
            End::Stall => return Poll::Pending,
            End::Cut | End::Reset => {}
        }
        if self.end == End::Reset
            && let Some(abort) = &self.abort
        {
            abort.store(true, Ordering::Release);
        }
        Poll::Ready(Some(io::Error::other("the simulator breaks this body on purpose")))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match self.next_piece() {
                Some(Ok(piece)) => {
                    if let Some(record) = &self.record {
                        record.sent(piece.len());
                    }
                    self.sent += piece.len() as u64;
                    self.count_effect();
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                Some(Err(due)) => self.pause = Some(Box::pin(sleep_until(due))),
                None if matches!(self.end, End::Cut | End::Reset) && !self.breaking => {
                    self.breaking = true;
                    self.pause = Some(Box::pin(sleep(BEFORE_BREAKING)));
                }
                None => return self.poll_end().map(|end| end.map(Err)),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.segments.is_empty() && self.end == End::Clean
    }

    fn size_hint(&self) -> SizeHint {
        self.known_length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// One body's share of the configured rates; read anew for each piece.
pub(super) struct Pace {
    knobs: Arc<Knobs>,
    own: Option<Instant>,
    all: Arc<Mutex<Option<Instant>>>,
}

impl Pace {
    pub(super) fn new(knobs: Arc<Knobs>, all: Arc<Mutex<Option<Instant>>>) -> Self {
        Self { knobs, own: None, all }
    }

    fn rates(&self) -> (Option<u64>, Option<u64>) {
        self.knobs.read(|k| (k.connection_rate, k.total_rate))
    }

    /// A hundredth of a second's worth, so that a slow body trickles and a fast one costs few wake-ups.
    fn piece(&self) -> usize {
        let (own, all) = self.rates();
        let slowest = own.unwrap_or(u64::MAX).min(all.unwrap_or(u64::MAX));
        let most = if slowest == u64::MAX { 256 * 1024 } else { 128 * 1024 };
        usize::try_from(slowest / 100).unwrap_or(usize::MAX).clamp(256, most)
    }

    /// When so many bytes may go.
    fn reserve(&mut self, bytes: usize) -> Instant {
        let now = Instant::now();
        let mut due = now;
        let (own, all) = self.rates();
        if let Some(rate) = own {
            due = due.max(advance(&mut self.own, now, bytes, rate));
        }
        if let Some(rate) = all {
            let mut slot = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            due = due.max(advance(&mut slot, now, bytes, rate));
        }
        due
    }
}

pub(super) fn advance(slot: &mut Option<Instant>, now: Instant, bytes: usize, rate: u64) -> Instant {
    let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
    let start = slot.unwrap_or(now).max(earliest);
    *slot = Some(start + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64));
    start
}
