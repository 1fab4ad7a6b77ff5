//! A request's body that is held whole: bounded in bytes, and in the time that its client may take for them.

use super::error::Problem;
use crate::oci::Code;
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
) -> Result<Bytes, Problem> {
    let too_large = || {
        let message = format!("{what} has more than the {limit} bytes that it may have");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, &message)
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let end = Instant::now() + stall * PATIENCE;
    let mut whole = BytesMut::new();
    loop {
        let frame = match timeout_at(end.min(Instant::now() + stall), body.frame()).await {
            Ok(None) => return Ok(whole.freeze()),
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
            if whole.len() + data.len() > limit {
                return Err(too_large());
            }
            whole.extend_from_slice(&data);
        }
    }
}
