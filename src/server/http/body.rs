//! What an answer is made of: nothing, bytes in memory, a file, a file that still grows, or a stream.
//!
//! Guarantees: a body of known length ends after exactly that many bytes or breaks, it never ends cleanly with fewer and never
//! carries more; its end is reported exactly once. Bytes count as sent once the connection has taken them, which is at most one
//! piece before the client has. How a file reaches the socket is decided by the connection (`body_file.rs`, `sendfile.rs`).

use super::body_file::FileSource;
use super::body_parts::{BodyError, Chunks, Extents, FileBytes};
use super::connection_watch::Answering;
use super::sendfile::Live;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Bodies that are sent one after another, as one.
pub trait Bodies: Send + 'static {
    /// The next one. `None`: there is no more.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Body, BodyError>>>;
}

/// How a body ended, and after how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyEnd {
    /// Bytes that the connection took.
    pub bytes: u64,
    /// How it ended.
    pub outcome: BodyOutcome,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyOutcome {
    /// Everything was handed over.
    Complete,
    /// The connection went away first.
    Aborted,
    /// The source failed, and the connection was broken.
    Failed,
}

type OnEnd = Box<dyn FnOnce(BodyEnd) + Send>;

/// The body of an answer.
pub struct Body {
    source: BodySource,
    left: Option<u64>,
    sent: u64,
    on_end: Option<OnEnd>,
    answering: Option<Answering>,
}

enum BodySource {
    Ended,
    Full(Bytes),
    File(FileSource),
    Stream(Box<dyn Chunks>),
    Chain(Box<Chain>),
}

struct Chain {
    bodies: Box<dyn Bodies>,
    current: Option<Body>,
    live: Option<Arc<Live>>,
}

impl Body {
    /// No bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(BodySource::Ended, Some(0))
    }

    /// Bytes in memory.
    #[must_use]
    pub fn full(bytes: Bytes) -> Self {
        let length = bytes.len() as u64;
        Self::new(BodySource::Full(bytes), Some(length))
    }

    /// Part of a file, all of which is there.
    #[must_use]
    pub fn file(file: Arc<dyn FileBytes>, range: Range<u64>) -> Self {
        let length = range.end.saturating_sub(range.start);
        Self::new(BodySource::File(FileSource::new(file, range, None)), Some(length))
    }

    /// Part of a file, sent as far as `extents` releases it.
    #[must_use]
    pub fn extents(file: Arc<dyn FileBytes>, total: Range<u64>, extents: impl Extents) -> Self {
        let length = total.end.saturating_sub(total.start);
        Self::new(BodySource::File(FileSource::new(file, total, Some(Box::new(extents)))), Some(length))
    }

    /// Bytes that come one piece after another; without a length the end of the stream is the end of the body.
    #[must_use]
    pub fn stream(length: Option<u64>, chunks: impl Chunks) -> Self {
        Self::new(BodySource::Stream(Box::new(chunks)), length)
    }

    /// Bodies one after another, `length` bytes together.
    #[must_use]
    pub fn chain(length: u64, bodies: impl Bodies) -> Self {
        let chain = Chain { bodies: Box::new(bodies), current: None, live: None };
        Self::new(BodySource::Chain(Box::new(chain)), Some(length))
    }

    fn new(source: BodySource, left: Option<u64>) -> Self {
        Self { source, left, sent: 0, on_end: None, answering: None }
    }

    /// Reports the end, exactly once, also when the body is dropped. Replaces what was set before.
    #[must_use]
    pub fn on_end(mut self, report: impl FnOnce(BodyEnd) + Send + 'static) -> Self {
        self.on_end = Some(Box::new(report));
        self
    }

    /// Bytes still to come, where that is known.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.left
    }

    /// Ties the body to the connection that carries it. `live`: files may go by sendfile.
    pub(in crate::server) fn attach(&mut self, mut answering: Answering, live: Option<Arc<Live>>) {
        // From here on it is the client's turn, until the source has to wait.
        answering.waits(false);
        self.answering = Some(answering);
        if let Some(live) = live {
            self.send_by(live);
        }
    }

    fn send_by(&mut self, live: Arc<Live>) {
        match &mut self.source {
            BodySource::File(file) => file.send_by(live),
            BodySource::Chain(chain) => chain.live = Some(live),
            BodySource::Ended | BodySource::Full(_) | BodySource::Stream(_) => {}
        }
    }

    /// For an answer to HEAD: the head says the length, no byte follows, and that is a complete answer.
    pub(in crate::server) fn head_only(&mut self) {
        self.finish(BodyOutcome::Complete);
    }

    fn finish(&mut self, outcome: BodyOutcome) {
        drop(self.answering.take());
        if let Some(report) = self.on_end.take() {
            report(BodyEnd { bytes: self.sent, outcome });
        }
    }

    fn fail(&mut self, error: BodyError) -> BodyError {
        self.source = BodySource::Ended;
        self.finish(BodyOutcome::Failed);
        error
    }

    fn account(&mut self, bytes: &Bytes) -> Result<(), BodyError> {
        let length = bytes.len() as u64;
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(length).ok_or(BodyError::Long)?;
        }
        self.sent += length;
        if self.left == Some(0) {
            self.source = BodySource::Ended;
            self.finish(BodyOutcome::Complete);
        }
        Ok(())
    }
}

impl BodySource {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match self {
            Self::Ended => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Ended;
                Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes)))
            }
            Self::File(file) => {
                let piece = ready!(file.poll_next(cx));
                if let Some(rest) = file.take_rest() {
                    *self = Self::Stream(rest);
                    return self.poll_next(cx);
                }
                Poll::Ready(piece)
            }
            Self::Stream(chunks) => chunks.poll_next(cx),
            Self::Chain(chain) => chain.poll_next(cx),
        }
    }
}

impl Chain {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if let Some(body) = &mut self.current {
                // Each ends after exactly its own length, so that one that breaks cannot shift those behind it.
                match ready!(http_body::Body::poll_frame(Pin::new(body), cx)) {
                    Some(Ok(frame)) => {
                        if let Ok(bytes) = frame.into_data() {
                            return Poll::Ready(Some(Ok(bytes)));
                        }
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => self.current = None,
                }
                continue;
            }
            match ready!(self.bodies.poll_next(cx)) {
                Some(Ok(mut body)) => {
                    if let Some(live) = &self.live {
                        body.send_by(Arc::clone(live));
                    }
                    self.current = Some(body);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = self.source.poll_next(cx);
        if let Some(answering) = &mut self.answering {
            answering.waits(polled.is_pending());
        }
        let result = match ready!(polled) {
            Some(Ok(bytes)) => self.account(&bytes).map(|()| Some(Frame::data(bytes))),
            Some(Err(error)) => Err(error),
            None => match self.left {
                Some(missing) if missing > 0 && self.on_the_way() => Err(BodyError::Short { missing }),
                _ => {
                    if self.on_the_way() {
                        self.source = BodySource::Ended;
                        self.finish(BodyOutcome::Complete);
                    }
                    Ok(None)
                }
            },
        };
        Poll::Ready(result.map_err(|error| self.fail(error)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Body {
    fn on_the_way(&self) -> bool {
        !matches!(self.source, BodySource::Ended)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let outcome = if self.left == Some(0) { BodyOutcome::Complete } else { BodyOutcome::Aborted };
        self.finish(outcome);
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("left", &self.left).field("sent", &self.sent).finish_non_exhaustive()
    }
}
