//! A request's body that is held whole: bounded in bytes, and in the time that its client may take for them.

use super::error::Problem;
use crate::cache::CacheError;
use crate::oci::Code;
use crate::upstream::{Documents, READING, Room, SHORT};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How many times the limit for standing still a whole body may take: a trickle is no request.
const PATIENCE: u32 = 4;

/// The body, if it has at most `limit` bytes and never stands still for longer than `stall`.
pub(in crate::server) async fn collect(
    mut body: Incoming,
    what: &str,
    limit: usize,
    stall: Duration,
    documents: &Documents,
) -> Result<Bytes, Problem> {
    let too_large = || {
        let message = format!("{what} has more than the {limit} bytes that it may have");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, &message)
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let end = Instant::now() + stall * PATIENCE;
    let (mut whole, mut room) = (BytesMut::new(), None);
    loop {
        let frame = match timeout_at(end.min(Instant::now() + stall), body.frame()).await {
            Ok(None) => return Ok(Room::around(room, whole.freeze())),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                let message = format!("{what} ended before its end: {error}");
                return Err(Problem::new(StatusCode::BAD_REQUEST, Code::SizeInvalid, &message));
            }
            Err(_) => {
                let message = format!("{what} did not arrive in time: {} bytes came", whole.len());
                return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, Code::Unknown, &message));
            }
        };
        if let Ok(data) = frame.into_data() {
            let so_far = whole.len() + data.len();
            if so_far > limit {
                return Err(too_large());
            }
            if room.is_none() && so_far > SHORT {
                let left = body.size_hint().exact().and_then(|left| usize::try_from(left).ok());
                let length = left.map_or(limit, |left| so_far.saturating_add(left).min(limit));
                room = documents.room(length.saturating_mul(READING)).await.map_err(CacheError::from)?;
                whole.reserve(length - whole.len());
            }
            whole.extend_from_slice(&data);
        }
    }
}
