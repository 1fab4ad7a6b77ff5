//! Imports: a command brings contents one by one, each of which is stored when it has its digest, then what names them. A name is
//! linked when all that it needs is here (`linking.rs`).
//!
//! `POST /v1/import/begin` takes the turn, of which there is one, for as long as its connection is open, `PUT /v1/import/DIGEST?length=N` stores a content, `PUT
//! /v1/import/DIGEST?offset=N&total=N` a slice of one (`slices.rs`), `POST /v1/import/wanted` says which of some digests are not here,
//! `POST /v1/import/room?bytes=N` whether so much could be stored, `POST /v1/import/link` links names. Nothing is linked before the
//! last: a bundle that turns out to be wrong leaves only contents that nobody can ask for.

use super::control::{argument, failed, reply};
use super::{Admin, Refused};
use crate::oci::{Digest, MAX_MANIFEST};
use crate::server::Body;
use crate::store::{IngestError, StoreError};
use bytes::{Bytes, BytesMut};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

/// Bytes of a request that names things.
const REQUEST: usize = 64 << 20;
/// Bytes written at a time.
pub(super) const BATCH: usize = 1 << 20;
impl Admin {
    pub(super) async fn import(&self, request: http::Request<Incoming>) -> Response<Body> {
        if request.uri().path() == "/v1/import/begin" {
            return match self.turn.begin_soon().await {
                Ok(held) => Response::new(Body::stream(None, held)),
                Err(message) => reply(StatusCode::CONFLICT, &json!({ "error": message })),
            };
        }
        match self.answer_import(request).await {
            Ok(value) => reply(StatusCode::OK, &value),
            Err((status, message)) => reply(status, &json!({ "error": message })),
        }
    }

    async fn answer_import(&self, request: http::Request<Incoming>) -> Result<Value, Refused> {
        let (parts, body) = request.into_parts();
        let number = |name: &str| argument(parts.uri.query(), name).parse::<u64>().ok();
        let what = parts.uri.path().strip_prefix("/v1/import/").unwrap_or_default();
        let session = number("session").unwrap_or_default();
        self.turn.check(session).map_err(lost)?;
        match (&parts.method, what) {
            (&Method::POST, "wanted") => self.wanted(body).await,
            (&Method::POST, "room") => self.room(number("bytes").unwrap_or_default()).await,
            (&Method::POST, "link") => self.link(read(body).await?).await,
            (method, digest) => {
                let wrong = || (StatusCode::BAD_REQUEST, format!("'{digest}' is no digest"));
                let digest: Digest = digest.parse().map_err(|_| wrong())?;
                match (method, number("offset"), number("total")) {
                    (&Method::GET, Some(offset), _) => self.has_slice(digest, offset, number("length")).await,
                    (&Method::PUT, Some(offset), Some(total)) => {
                        self.receive_slice(session, digest, offset, total, body).await
                    }
                    (&Method::PUT, None, _) => self.receive(session, digest, number("length"), body).await,
                    _ => Err((StatusCode::NOT_FOUND, "there is no such command".to_owned())),
                }
            }
        }
    }

    /// Which of the digests, a JSON list, are not stored.
    async fn wanted(&self, body: Incoming) -> Result<Value, Refused> {
        let digests: Vec<String> = read(body).await?;
        let digests = digests.iter().map(|digest| digest.parse()).collect::<Result<Vec<Digest>, _>>();
        let digests = digests.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
        let wanted = digests.iter().filter(|digest| self.store.length(digest).is_none());
        Ok(json!({ "wanted": wanted.map(ToString::to_string).collect::<Vec<_>>() }))
    }

    /// Whether so much could be stored, before the first byte of it comes.
    async fn room(&self, bytes: u64) -> Result<Value, Refused> {
        let usage = self.store.usage();
        match self.store.could_hold(bytes).await {
            Ok(()) => Ok(json!({ "free_bytes": usage.limit.saturating_sub(usage.bytes) })),
            Err(error @ StoreError::Refused(_)) => {
                let text =
                    format!("the bundle brings {bytes} bytes that are not here, and {error}; nothing was stored");
                Err((StatusCode::INSUFFICIENT_STORAGE, text))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Stores a content, if it has its digest.
    async fn receive(
        &self,
        session: u64,
        digest: Digest,
        length: Option<u64>,
        body: Incoming,
    ) -> Result<Value, Refused> {
        if self.store.length(&digest).is_some() {
            return Ok(json!({ "present": true }));
        }
        let mut ingest = match self.store.ingest(&digest, length).await {
            Ok(ingest) => ingest,
            Err(IngestError::Busy(_)) => {
                let message = format!("{digest} is being stored by somebody else, such as a pull; try again");
                return Err((StatusCode::CONFLICT, message));
            }
            Err(error) => return Err(failed(error)),
        };
        // What is kept of an interrupted import is skipped: the digest decides whether both are the same content.
        let mut skip = ingest.received();
        let mut batches = Batches::of(body, digest);
        while let Some(mut batch) = batches.next().await? {
            self.turn.check(session).map_err(lost)?;
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(batch.len());
            skip -= skipped as u64;
            ingest.write(batch.split_off(skipped)).await.map_err(failed)?;
        }
        let verified = ingest.verify().await.map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
        verified.commit().await.map_err(failed)?;
        Ok(json!({ "present": false }))
    }
}

/// A body in pieces that are worth a write.
pub(super) struct Batches {
    body: Option<Incoming>,
    digest: Digest,
}

impl Batches {
    pub(super) fn of(body: Incoming, digest: Digest) -> Self {
        Self { body: Some(body), digest }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Refused> {
        let Some(body) = &mut self.body else { return Ok(None) };
        let mut batch = BytesMut::new();
        while batch.len() < BATCH {
            let Some(frame) = body.frame().await else {
                self.body = None;
                return Ok((!batch.is_empty()).then(|| batch.freeze()));
            };
            let broken = |error| (StatusCode::BAD_REQUEST, format!("{} ended before its end: {error}", self.digest));
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                batch.extend_from_slice(&data);
            }
        }
        Ok(Some(batch.freeze()))
    }
}

/// Another import has the turn by now.
pub(super) fn lost(message: String) -> Refused {
    (StatusCode::CONFLICT, message)
}

async fn read<T: serde::de::DeserializeOwned>(body: Incoming) -> Result<T, Refused> {
    let wrong = |error: &dyn std::fmt::Display| (StatusCode::BAD_REQUEST, error.to_string());
    let bytes: Bytes = Limited::new(body, REQUEST).collect().await.map_err(|error| wrong(&error))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| wrong(&error))
}

/// A manifest is no longer than this.
const _: () = assert!(MAX_MANIFEST <= REQUEST);
