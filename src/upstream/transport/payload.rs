//! The body of a request to an upstream: bytes in memory, or a stream.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;

/// Chunks that may wait to be written to the connection, besides what it buffers itself.
const AHEAD: usize = 2;

/// A request's body.
pub(in crate::upstream) struct Payload(Kind);

enum Kind {
    Whole(Option<Bytes>),
    Stream { parts: mpsc::Receiver<Part>, left: Option<u64>, ended: bool },
}

enum Part {
    Chunk(Bytes),
    End,
}

/// The stream was given up: the request must not end as if it were whole.
#[derive(Debug, thiserror::Error)]
#[error("the upload was given up in the middle of its body")]
pub(in crate::upstream) struct GivenUp;

/// The other end of a stream. Dropped before [`Feed::end`], it breaks the request off.
pub(in crate::upstream) struct Feed(mpsc::Sender<Part>);

impl Feed {
    /// Hands on a chunk. `false`: the request has ended.
    pub(in crate::upstream) async fn chunk(&self, chunk: Bytes) -> bool {
        self.0.send(Part::Chunk(chunk)).await.is_ok()
    }

    /// The body is whole.
    pub(in crate::upstream) async fn end(&self) {
        let _ = self.0.send(Part::End).await;
    }
}

impl Payload {
    /// A body of these bytes.
    pub(in crate::upstream) fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    /// A body of `length` bytes, or of as many as come.
    pub(in crate::upstream) fn stream(length: Option<u64>) -> (Feed, Self) {
        let (sender, parts) = mpsc::channel(AHEAD);
        (Feed(sender), Self(Kind::Stream { parts, left: length, ended: false }))
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = GivenUp;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, GivenUp>>> {
        match &mut self.0 {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Stream { ended: true, .. } => Poll::Ready(None),
            Kind::Stream { parts, left, ended } => match ready!(parts.poll_recv(cx)) {
                Some(Part::Chunk(chunk)) => {
                    if let Some(left) = left {
                        *left = left.saturating_sub(chunk.len() as u64);
                    }
                    Poll::Ready(Some(Ok(Frame::data(chunk))))
                }
                Some(Part::End) => {
                    *ended = true;
                    Poll::Ready(None)
                }
                None => {
                    *ended = true;
                    Poll::Ready(Some(Err(GivenUp)))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Stream { left, ended, .. } => *ended || *left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Stream { left, .. } => left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
