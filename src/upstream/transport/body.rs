use super::pace::{Pace, TooSlow};
use super::pool::Lease;
use crate::upstream::error::{ErrorKind, Failure, UpstreamError};
use crate::upstream::limits::documents::{Documents, NoRoom, READING, Room, SHORT};
use crate::upstream::limits::rate::{Rate, SHARE};
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prometheus::IntCounter;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// A body that must be held whole may take this many stall limits: a trickle is no answer.
const PATIENCE: u32 = 10;
/// What is worth reading of an unwanted body to keep its connection.
const DRAINED: usize = 64 << 10;

/// A body under way, with its connection.
pub(in crate::upstream) struct Body {
    incoming: Incoming,
    lease: Option<Lease>,
    stall: Duration,
    received: IntCounter,
    host: String,
}

impl Body {
    pub(in crate::upstream) fn new(
        incoming: Incoming,
        lease: Lease,
        stall: Duration,
        received: IntCounter,
        host: String,
    ) -> Self {
        let mut body = Self { incoming, lease: Some(lease), stall, received, host };
        body.finish();
        body
    }

    /// The next bytes, never empty; `None` at the end.
    pub(in crate::upstream) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = match timeout(self.stall, self.incoming.frame()).await {
                Ok(None) => {
                    self.finish();
                    return Ok(None);
                }
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    let text = super::connect::chain(&error);
                    return Err(interrupted(&format!("{} broke off in mid-answer ({text})", self.host)));
                }
                Err(_) => {
                    let limit = self.stall.as_secs_f32();
                    return Err(interrupted(&format!("{} sent nothing for {limit} s in mid-answer", self.host)));
                }
            };
            self.finish();
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                self.received.inc_by(data.len() as u64);
                return Ok(Some(data));
            }
        }
    }

    /// The whole body, if it has at most `limit` bytes.
    pub(in crate::upstream) async fn collect(self, limit: usize) -> Result<Bytes, Failure> {
        self.gather(limit, None).await
    }

    /// The same of a document, with what is made of it: where it is large, there has to be room.
    pub(in crate::upstream) async fn collect_document(
        self,
        limit: usize,
        documents: &Documents,
    ) -> Result<Bytes, Failure> {
        self.gather(limit, Some(documents)).await
    }

    async fn gather(mut self, limit: usize, documents: Option<&Documents>) -> Result<Bytes, Failure> {
        let too_large = || {
            Failure::new(ErrorKind::TooLarge, format!("the answer has more than the {limit} bytes that it may have"))
        };
        if self.incoming.size_hint().lower() > limit as u64 {
            return Err(too_large());
        }
        let end = Instant::now() + self.stall * PATIENCE;
        let (mut whole, mut room) = (BytesMut::new(), None);
        loop {
            let chunk = match timeout_at(end, self.chunk()).await {
                Ok(chunk) => chunk?,
                Err(_) => return Err(interrupted(&format!("{} sends too slowly", self.host))),
            };
            let Some(chunk) = chunk else { return Ok(Room::around(room, whole.freeze())) };
            let so_far = whole.len() + chunk.len();
            if so_far > limit {
                return Err(too_large());
            }
            if let Some(documents) = documents.filter(|_| room.is_none() && so_far > SHORT) {
                let left = self.incoming.size_hint().exact().and_then(|left| usize::try_from(left).ok());
                let length = left.map_or(limit, |left| so_far.saturating_add(left).min(limit));
                room = documents.room(length.saturating_mul(READING)).await.map_err(no_room)?;
                whole.reserve(length - whole.len());
            }
            whole.extend_from_slice(&chunk);
        }
    }

    /// Reads an unwanted body to its end, if that is near, so that the connection can be used again.
    pub(in crate::upstream) async fn drain(self) {
        drop(timeout(Duration::from_secs(1), self.collect(DRAINED)).await);
    }

    /// Gives the connection back as soon as nothing more can come.
    fn finish(&mut self) {
        if self.incoming.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}

fn no_room(no: NoRoom) -> Failure {
    Failure::new(ErrorKind::Throttled { retry_after: Some(no.retry) }, no.to_string())
}

fn interrupted(reason: &str) -> Failure {
    Failure::new(ErrorKind::Interrupted, reason)
}

/// The bytes of a blob as they come from upstream, unverified, no faster than it may bring them.
pub struct UpstreamBody {
    body: Body,
    attempt: String,
    rate: Option<Arc<Rate>>,
    /// What has arrived and is not due yet.
    ahead: Bytes,
    pace: Pace,
}

impl UpstreamBody {
    pub(in crate::upstream) fn new(body: Body, attempt: String, rate: Option<Arc<Rate>>) -> Self {
        let pace = Pace::new(body.stall);
        Self { body, attempt, rate, ahead: Bytes::new(), pace }
    }

    /// The next bytes, never empty; `None` at the end. An end before the promised length is an error.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let Some(rate) = &self.rate else { return self.arrived().await };
        let rate = Arc::clone(rate);
        if self.ahead.is_empty() {
            let Some(chunk) = self.arrived().await? else { return Ok(None) };
            self.ahead = chunk;
        }
        let share = self.ahead.split_to(SHARE.min(self.ahead.len()));
        rate.turn(share.len()).await;
        Ok(Some(share))
    }

    async fn arrived(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let count = |chunk: &Result<Option<Bytes>, Failure>| Some(chunk.as_ref().ok()?.as_ref()?.len() as u64);
        let chunk = self.pace.of(self.body.chunk(), count).await.unwrap_or_else(|TooSlow { bytes, waited }| {
            let (host, waited) = (&self.body.host, waited.as_secs());
            Err(interrupted(&format!("{host} sent {bytes} bytes in {waited} s, too few for the answer ever to end")))
        });
        chunk.map_err(|failure| failure.during(self.attempt.as_str()))
    }

    /// Whether it was given up since it came too slowly.
    #[must_use]
    pub fn is_too_slow(&self) -> bool {
        self.pace.is_lost()
    }

    /// Whether it came fast enough at least for a while.
    #[must_use]
    pub fn was_in_pace(&self) -> bool {
        self.pace.was_kept()
    }
}

impl std::fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamBody").field("host", &self.body.host).finish_non_exhaustive()
    }
}
