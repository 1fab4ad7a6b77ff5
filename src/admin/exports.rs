//! Exports: the command says what it wants, gets a plan with every size, and reads the archives one after another, from any offset.
//!
//! A plan is kept for the command that asked for it, which keeps its content from being evicted meanwhile.

use super::control::{argument, reply};
use super::{Admin, Refused};
use crate::bundle::{self, Content, Entry, Plan, PlanError, Scope, Sizes, Volume};
use crate::cache::Purge;
use crate::oci::{ByteRange, Digest};
use crate::server::http::body::Bodies;
use crate::server::http::body_parts::BodyError;
use crate::server::{Body, stored};
use crate::store::{Blob, Store, StoreError};
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// Plans that are kept at once.
const SESSIONS: usize = 4;
/// A plan that no command has read for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Bytes of a request, which names what the far side has: some 800,000 digests.
const REQUEST: usize = 64 << 20;

/// What a command asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    scope: Scope,
    /// Digests that the far side has.
    #[serde(default)]
    far: HashSet<String>,
    /// The longest that an archive may be.
    #[serde(default)]
    volume_bytes: Option<u64>,
}

/// The plans that commands are reading.
#[derive(Clone, Default)]
pub(super) struct Exports(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    next: u64,
    sessions: BTreeMap<u64, (Arc<Session>, Instant)>,
}

struct Session {
    volumes: Vec<Volume>,
    /// Holds the content.
    _plan: Plan,
}

impl Admin {
    /// `POST /v1/export`, `GET /v1/export/ID/VOLUME?from=OFFSET`, `GET /v1/export/ID/VOLUME/opening`,
    /// `GET /v1/export/ID/VOLUME/contents`, `POST /v1/export/ID/end`.
    pub(super) async fn export(&self, request: http::Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.trim_matches('/').split('/').skip(2).collect();
        let from = argument(request.uri().query(), "from").parse().unwrap_or_default();
        let answer = match (request.method(), parts.as_slice()) {
            (&Method::POST, []) => self.begin_export(request.into_body()).await,
            (&Method::POST, [id, "end"]) => Ok(self.end_export(id.parse().unwrap_or_default())),
            (&Method::GET, [id, volume, rest @ ..]) => {
                let (id, volume) = (id.parse().unwrap_or_default(), volume.parse().unwrap_or(usize::MAX));
                let body = match rest {
                    ["opening"] => self.opening(id, volume),
                    ["contents"] => self.contents(id, volume),
                    _ => self.export_volume(id, volume, from),
                };
                match body {
                    Ok(body) => return Response::new(body),
                    Err(refused) => Err(refused),
                }
            }
            _ => Err((StatusCode::NOT_FOUND, "there is no such command".to_owned())),
        };
        match answer {
            Ok(value) => reply(StatusCode::OK, &value),
            Err((status, message)) => reply(status, &json!({ "error": message })),
        }
    }

    /// Plans an export, and says what it has.
    async fn begin_export(&self, body: Incoming) -> Result<Value, Refused> {
        let body = Limited::new(body, REQUEST).collect().await.map_err(|error| wrong(&*error))?.to_bytes();
        let mut request: Request = serde_json::from_slice(&body).map_err(|error| wrong(&error))?;
        let Scope { references, wished, .. } = &mut request.scope;
        for reference in references.iter_mut().chain(wished) {
            *reference = self.full_name(reference)?;
        }
        let far = request.far.iter().map(|digest| digest.parse()).collect::<Result<HashSet<Digest>, _>>();
        let far = far.map_err(|error| wrong(&error))?;
        let plan = Plan::make(&self.store, request.scope, &far).await.map_err(|error| match error {
            PlanError::Store(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            error => (StatusCode::BAD_REQUEST, error.to_string()),
        })?;
        let (volumes, index) = bundle::volumes(&plan, request.volume_bytes).map_err(|error| wrong(&error))?;
        let described = describe(&plan, &volumes, &index);
        let id = self.exports.keep(Session { volumes, _plan: plan })?;
        let Value::Object(mut answer) = described else { return Ok(Value::Null) };
        answer.insert("id".to_owned(), id.into());
        Ok(Value::Object(answer))
    }

    /// The archive's first bytes, by which a part of it is known.
    fn opening(&self, id: u64, volume: usize) -> Result<Body, Refused> {
        let session = self.exports.find(id)?;
        let volume = session.volumes.get(volume).ok_or_else(|| no_volume(volume))?;
        Ok(Body::full(volume.opening()))
    }

    /// The stored contents of an archive, a line each: name and length.
    fn contents(&self, id: u64, volume: usize) -> Result<Body, Refused> {
        let session = self.exports.find(id)?;
        let volume = session.volumes.get(volume).ok_or_else(|| no_volume(volume))?;
        let stored = volume.entries.iter().filter(|entry| matches!(entry.content, Content::Blob(..)));
        let lines = stored.fold(String::new(), |mut lines, entry| {
            let _ = writeln!(lines, "{} {}", entry.name, entry.size());
            lines
        });
        Ok(Body::full(lines.into()))
    }

    /// The archive's bytes from an offset.
    fn export_volume(&self, id: u64, volume: usize, from: u64) -> Result<Body, Refused> {
        let session = self.exports.find(id)?;
        let length = session.volumes.get(volume).map(Volume::length);
        let length = length.ok_or_else(|| no_volume(volume))?;
        let left = length.checked_sub(from).ok_or_else(|| wrong(&"the offset is behind the end"))?;
        Ok(Body::chain(
            left,
            Stream { store: self.store.clone(), session, volume, entry: 0, part: 0, skip: from, opening: None },
        ))
    }

    /// A reference as a person writes it, with its upstream.
    fn full_name(&self, reference: &str) -> Result<String, Refused> {
        Ok(match self.find(reference)? {
            Purge::Tag(repository, tag) => format!("{repository}:{tag}"),
            Purge::Manifest(repository, digest) => format!("{repository}@{digest}"),
            Purge::Repository(repository) => repository.to_string(),
            Purge::Upstream(_) | Purge::Unpinned => return Err(wrong(&"no reference leads here")),
        })
    }

    fn end_export(&self, id: u64) -> Value {
        self.exports.0.lock().sessions.remove(&id);
        json!({})
    }
}

impl Exports {
    fn keep(&self, session: Session) -> Result<u64, Refused> {
        let mut state = self.0.lock();
        let now = Instant::now();
        state.sessions.retain(|_, (session, used)| Arc::strong_count(session) > 1 || now - *used < FORGOTTEN);
        if state.sessions.len() >= SESSIONS {
            let message = format!("{SESSIONS} exports are under way; try again when one is done");
            return Err((StatusCode::TOO_MANY_REQUESTS, message));
        }
        state.next += 1;
        let id = state.next;
        state.sessions.insert(id, (Arc::new(session), now));
        Ok(id)
    }

    fn find(&self, id: u64) -> Result<Arc<Session>, Refused> {
        self.get(id).ok_or_else(|| {
            (StatusCode::NOT_FOUND, "this export is not known any more: begin it anew, and it continues".to_owned())
        })
    }

    fn get(&self, id: u64) -> Option<Arc<Session>> {
        let mut state = self.0.lock();
        let (session, used) = state.sessions.get_mut(&id)?;
        *used = Instant::now();
        Some(Arc::clone(session))
    }
}

fn describe(plan: &Plan, volumes: &[Volume], index: &[u8]) -> Value {
    let sizes = |sizes: &Sizes| json!({ "bytes": sizes.bytes, "unique_bytes": sizes.unique, "far_bytes": sizes.far });
    let repositories = plan.repositories.iter().map(|(name, of_one)| {
        let mut value = sizes(of_one);
        value["repository"] = name.as_str().into();
        value
    });
    let absent: Vec<String> = plan.absent().iter().take(100).map(ToString::to_string).collect();
    let mut value = sizes(&plan.sizes());
    value["repositories"] = repositories.collect();
    value["volumes"] = volumes.iter().map(|volume| Value::from(volume.length())).collect();
    value["index_sha256"] = Digest::of(crate::oci::Algorithm::Sha256, index).hex().into();
    value["unmet"] = plan.unmet.iter().map(String::as_str).collect();
    value["absent"] = absent.into();
    value["absent_count"] = plan.absent().len().into();
    value
}

fn no_volume(number: usize) -> Refused {
    (StatusCode::NOT_FOUND, format!("there is no volume {number}"))
}

fn wrong(error: &dyn std::fmt::Display) -> Refused {
    (StatusCode::BAD_REQUEST, error.to_string())
}

type Opened = Result<Option<Blob>, StoreError>;

/// An archive on its way out: headers, contents and padding, one after another.
struct Stream {
    store: Store,
    session: Arc<Session>,
    volume: usize,
    entry: usize,
    /// 0: the head is next, 1: the content, 2: the padding.
    part: u8,
    /// Bytes that are not sent, since the reader has them.
    skip: u64,
    opening: Option<Pin<Box<dyn Future<Output = Opened> + Send>>>,
}

impl Stream {
    fn current(&self) -> Option<&Entry> {
        self.session.volumes.get(self.volume)?.entries.get(self.entry)
    }

    /// The next bytes in memory, less what is skipped; `None` if a stored blob is next, or the end.
    fn small(&self, entry: &Entry) -> Option<Bytes> {
        match (self.part, &entry.content) {
            (0, _) => Some(entry.head()),
            (1, Content::Memory(bytes)) => Some(bytes.clone()),
            (1, Content::Blob(..)) => None,
            _ => Some(Bytes::from(vec![0; entry.padding()])),
        }
    }

    fn advance(&mut self) {
        if self.part == 2 {
            (self.entry, self.part) = (self.entry + 1, 0);
        } else {
            self.part += 1;
        }
    }

    /// Skips what the reader has; the rest of these bytes.
    fn rest_of(&mut self, bytes: &Bytes) -> Bytes {
        let skipped = self.skip.min(bytes.len() as u64);
        self.skip -= skipped;
        bytes.slice(usize::try_from(skipped).unwrap_or(bytes.len())..)
    }
}

impl Bodies for Stream {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Body, BodyError>>> {
        loop {
            let Some(entry) = self.current().cloned() else {
                return Poll::Ready(self.end());
            };
            if let Some(bytes) = self.small(&entry) {
                let rest = self.rest_of(&bytes);
                self.advance();
                if rest.is_empty() {
                    continue;
                }
                return Poll::Ready(Some(Ok(Body::full(rest))));
            }
            let Content::Blob(digest, range) = entry.content else { return Poll::Ready(None) };
            let length = range.end - range.start;
            if self.skip >= length {
                self.skip -= length;
                self.advance();
                continue;
            }
            let start = range.start + self.skip;
            let blob = ready!(self.poll_open(cx, digest));
            self.skip = 0;
            self.advance();
            return Poll::Ready(Some(blob.map(|blob| stored(&blob, ByteRange { start, end: range.end }))));
        }
    }
}

impl Stream {
    fn poll_open(&mut self, cx: &mut Context<'_>, digest: Digest) -> Poll<Result<Blob, BodyError>> {
        let store = &self.store;
        let opening = self.opening.get_or_insert_with(|| {
            let store = store.clone();
            Box::pin(async move { store.blob(&digest).await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening = None;
        let gone = || BodyError::Source(format!("{digest} is not stored any more: pull it, and export again").into());
        Poll::Ready(match opened {
            Ok(blob) => blob.ok_or_else(gone),
            Err(error) => Err(BodyError::Source(Box::new(error))),
        })
    }

    /// The two blocks of zeros that end a tar, once.
    fn end(&mut self) -> Option<Result<Body, BodyError>> {
        let entries = self.session.volumes.get(self.volume)?.entries.len();
        if self.entry > entries {
            return None;
        }
        self.entry += 1;
        let rest = self.rest_of(&Bytes::from_static(&[0; 1024]));
        (!rest.is_empty()).then(|| Ok(Body::full(rest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_plan_that_nobody_asks_for_makes_room_for_another_after_ten_minutes() {
        let exports = Exports::default();
        let session = || Session { volumes: Vec::new(), _plan: Plan::default() };
        let first = exports.keep(session()).unwrap();
        for _ in 1..SESSIONS {
            exports.keep(session()).unwrap();
        }
        assert_eq!(exports.keep(session()).unwrap_err().0, StatusCode::TOO_MANY_REQUESTS);
        tokio::time::advance(FORGOTTEN / 2).await;
        assert!(exports.get(first).is_some());
        tokio::time::advance(FORGOTTEN / 2 + Duration::from_secs(1)).await;
        exports.keep(session()).unwrap();
        assert!(exports.get(first).is_some(), "it was asked for meanwhile");
    }
}
