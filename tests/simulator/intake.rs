//! A request's body on its way in: counted, at the pace that the knobs ask for, and cut off where they say.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};

use super::State;
use super::body::advance;
use super::record::Record;

pub(super) struct Intake {
    body: Incoming,
    state: Arc<State>,
    record: Arc<Record>,
    abort: Arc<AtomicBool>,
    due: Option<Instant>,
    received: u64,
    cut: bool,
}

impl Intake {
    pub(super) fn new(body: Incoming, state: Arc<State>, record: Arc<Record>, abort: Arc<AtomicBool>) -> Self {
        Self { body, state, record, abort, due: None, received: 0, cut: false }
    }

    /// The next piece; none at the end. An error ends the connection.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.cut {
            self.abort.store(true, Ordering::Release);
            return Err(io::Error::other("the simulator cuts this upload off on purpose"));
        }
        while let Some(frame) = self.body.frame().await {
            let Ok(mut piece) = frame.map_err(io::Error::other)?.into_data() else { continue };
            let before = self.received;
            self.received += piece.len() as u64;
            if let Some(at) = self.state.knobs.take_cut(self.received) {
                piece.truncate(at.saturating_sub(before) as usize);
                self.cut = true;
            }
            self.record.received(piece.len());
            if let Some(rate) = self.state.knobs.read(|k| k.upload_rate) {
                advance(&mut self.due, Instant::now(), piece.len(), rate);
                sleep_until(self.due.unwrap_or_else(Instant::now)).await;
            }
            return Ok(Some(piece));
        }
        Ok(None)
    }

    /// The whole body; none if it is longer than that.
    pub(super) async fn collect(&mut self, limit: usize) -> io::Result<Option<Bytes>> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if whole.len() + piece.len() > limit {
                return Ok(None);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(Some(whole.freeze()))
    }

    /// Reads what is left: most clients look at an answer only when they have sent everything.
    pub(super) async fn drain(&mut self) -> io::Result<()> {
        while self.next().await?.is_some() {}
        Ok(())
    }
}
