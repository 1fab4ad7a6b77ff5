//! Pushing a blob: the requests of an upload, whose bodies pass through at the pace of the slower side.
//!
//! A body comes from a [`UploadSource`] and is read only when there is a connection and an authorization for it, and no faster than
//! the upstream takes it. An upstream may answer before the body is whole. Where it wants another authorization, or a kept
//! connection turns out to be dead, the body is sent once more if its source can go back to its beginning.

use super::answer::Answer;
use super::classify;
use crate::oci::{Digest, Name};
use crate::upstream::auth::scope::Scope;
use crate::upstream::auth::session::{Authorization, Unauthorized};
use crate::upstream::endpoints::Upstream;
use crate::upstream::error::{ErrorKind, Failure, UpstreamError};
use crate::upstream::limits::op::Op;
use crate::upstream::transport::origin::{self, Origin};
use crate::upstream::transport::payload::{Feed, Payload};
use crate::upstream::transport::pool::{Outgoing, Unanswered};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::timeout;

/// How much longer than another answer one may take that ends an upload: a registry may have gigabytes to hash or to copy.
const PATIENCE: u32 = 10;
/// Bytes that a dead connection may seem to take.
const UNNOTICED: u64 = 256 << 10;
/// What a query cannot hold as it is.
const QUERY: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'&').add(b'+').add(b'<').add(b'>').add(b'%').add(b'=');

/// Where the bytes of an upload come from.
pub trait UploadSource: Send {
    /// Why there are no more.
    type Error: Send;

    /// Bytes of the whole body, if that is known.
    fn length(&self) -> Option<u64>;

    /// The next bytes, never empty; `None` at the end.
    fn chunk(&mut self) -> impl Future<Output = Result<Option<Bytes>, Self::Error>> + Send;

    /// Goes back to the first byte. `false`: the bytes are gone.
    fn rewind(&mut self) -> impl Future<Output = bool> + Send;
}

/// What an upload is begun with.
#[derive(Clone, Debug, Default)]
pub struct UploadStart {
    /// The digest to be mounted, and the repository that may have it.
    pub mount: Option<(String, Option<Name>)>,
    /// The digest of the blob that is the body.
    pub digest: Option<String>,
    /// The algorithm of the digest that will come.
    pub algorithm: Option<String>,
}

/// What is done to a session.
#[derive(Clone, Debug)]
pub enum UploadStep {
    /// Bytes are added.
    Chunk,
    /// The last bytes, perhaps none, and the digest of all.
    End(String),
    /// How far it has come.
    Status,
    /// It is given up.
    Cancel,
}

/// What a client said about its body.
#[derive(Clone, Debug, Default)]
pub struct BodyHeaders {
    /// `Content-Type`
    pub media_type: Option<HeaderValue>,
    /// `Content-Range`
    pub range: Option<HeaderValue>,
}

/// A session as the upstream describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadSession {
    /// Its address, absolute.
    pub location: String,
    /// `Range`: what has come so far.
    pub range: Option<String>,
    /// `Docker-Upload-UUID`
    pub uuid: Option<String>,
    /// `OCI-Chunk-Min-Length`
    pub chunk_min_length: Option<String>,
}

/// What the upstream answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadAnswer {
    /// The upload continues there.
    Session(UploadSession),
    /// The blob is there, under this digest if that was said.
    Created(Option<Digest>),
    /// The session is over.
    Cancelled,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum UploadError<E> {
    /// The source gave up.
    Source(E),
    /// The upstream was asked and this is how it ended; with its `Range`, if it said how far the upload has come.
    Upstream(UpstreamError, Option<String>),
}

/// One request of an upload.
struct Request {
    op: Op,
    method: Method,
    url: Uri,
    headers: HeaderMap,
    scope: Scope,
    attempt: String,
}

/// Why a request has no answer, before it is said what for.
enum Ended<E> {
    Source(E),
    Upstream(Failure),
    /// The connection was dead already.
    Stale(Failure),
}

impl<E> From<Failure> for Ended<E> {
    fn from(failure: Failure) -> Self {
        Self::Upstream(failure)
    }
}

/// An answer to a request whose body may not be whole: as long as the feed is held, the connection lives.
struct Sent {
    answer: Answer,
    feed: Feed,
}

impl Upstream {
    /// Begins an upload, mounts a blob, or uploads one in a single request.
    pub async fn start_upload<S: UploadSource>(
        &self,
        repository: &Name,
        start: &UploadStart,
        headers: &BodyHeaders,
        source: &mut S,
    ) -> Result<UploadAnswer, UploadError<S::Error>> {
        let mut query = Vec::new();
        let mut from = None;
        if let Some((digest, repository)) = &start.mount {
            query.push(("mount", digest.as_str()));
            query.extend(repository.as_ref().map(|name| ("from", name.as_str())));
            from.clone_from(repository);
        }
        query.extend(start.digest.iter().map(|digest| ("digest", digest.as_str())));
        query.extend(start.algorithm.iter().map(|algorithm| ("digest-algorithm", algorithm.as_str())));
        let query: Vec<String> =
            query.into_iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, QUERY))).collect();
        let joint = if query.is_empty() { "" } else { "?" };
        let attempt = format!("begin an upload to {repository} at {}", self.name());
        let url = self.own().url(&format!("/v2/{repository}/blobs/uploads/{joint}{}", query.join("&")));
        let url = url.map_err(|failure| UploadError::Upstream(failure.during(attempt.clone()), None))?;
        let request = Request {
            op: Op::UploadStart,
            method: Method::POST,
            url,
            headers: body_headers(headers),
            scope: match from {
                Some(from) => Scope::Mount(repository.clone(), from),
                None => Scope::Push(repository.clone()),
            },
            attempt,
        };
        self.ask_upload(request, None, source).await
    }

    /// Goes on with the session at `location`.
    pub async fn continue_upload<S: UploadSource>(
        &self,
        repository: &Name,
        location: &str,
        step: &UploadStep,
        headers: &BodyHeaders,
        source: &mut S,
    ) -> Result<UploadAnswer, UploadError<S::Error>> {
        let (op, method, what) = match step {
            UploadStep::Chunk => (Op::UploadChunk, Method::PATCH, "upload a part of a blob"),
            UploadStep::End(_) => (Op::UploadEnd, Method::PUT, "upload a blob"),
            UploadStep::Status => (Op::UploadStatus, Method::GET, "ask how far an upload has come"),
            UploadStep::Cancel => (Op::UploadCancel, Method::DELETE, "give up an upload"),
        };
        let attempt = format!("{what} to {repository} at {}", self.name());
        let url = match step {
            UploadStep::End(digest) => end(location, digest).parse(),
            _ => location.parse(),
        };
        let url = url.map_err(|_| {
            let failure = Failure::foreign("the address of the upload that it gave is none");
            UploadError::Upstream(failure.during(attempt.clone()), None)
        })?;
        let headers = match step {
            UploadStep::Chunk | UploadStep::End(_) => body_headers(headers),
            UploadStep::Status | UploadStep::Cancel => HeaderMap::new(),
        };
        // To give an upload up is a deletion for registries.
        let scope = match step {
            UploadStep::Cancel => Scope::Delete(repository.clone()),
            _ => Scope::Push(repository.clone()),
        };
        let request = Request { op, method, url, headers, scope, attempt };
        self.ask_upload(request, Some(location), source).await
    }

    async fn ask_upload<S: UploadSource>(
        &self,
        request: Request,
        location: Option<&str>,
        source: &mut S,
    ) -> Result<UploadAnswer, UploadError<S::Error>> {
        // On the heap, since the state of a request upstream is large and would be a part of every caller's.
        let answered = Box::pin(self.answered(&request, location, source)).await;
        let (result, range) = match answered {
            Ok(answer) => (Ok(answer), None),
            Err((Ended::Source(error), _)) => return Err(UploadError::Source(error)),
            Err((Ended::Upstream(failure) | Ended::Stale(failure), range)) => (Err(failure), range),
        };
        self.own().settled(result, || request.attempt).map_err(|error| UploadError::Upstream(error, range))
    }

    async fn answered<S: UploadSource>(
        &self,
        request: &Request,
        location: Option<&str>,
        source: &mut S,
    ) -> Result<UploadAnswer, (Ended<S::Error>, Option<String>)> {
        let (sent, authorization) = self.authorized(request, source).await.map_err(|ended| (ended, None))?;
        let Sent { answer, feed } = sent;
        let status = answer.status;
        let result = match (request.op, status) {
            (Op::UploadStart | Op::UploadEnd, StatusCode::CREATED)
            | (Op::UploadEnd, StatusCode::OK | StatusCode::NO_CONTENT) => Ok(UploadAnswer::Created(answer.digest())),
            (Op::UploadCancel, status) if status.is_success() => Ok(UploadAnswer::Cancelled),
            (Op::UploadStart, StatusCode::ACCEPTED) | (Op::UploadChunk | Op::UploadStatus, _)
                if status.is_success() =>
            {
                self.session_of(&answer, location).map(UploadAnswer::Session)
            }
            _ => {
                let range = answer.header(RANGE).map(str::to_owned);
                let identity = authorization.as_ref().map(|authorization| authorization.identity.as_str());
                let failure = classify::failure(request.op, answer, identity).await;
                drop(feed);
                return Err((failure.into(), range));
            }
        };
        answer.body.drain().await;
        drop(feed);
        result.map_err(|failure| (failure.into(), None))
    }

    /// Sends the request with the authorization that the upstream wants.
    async fn authorized<S: UploadSource>(
        &self,
        request: &Request,
        source: &mut S,
    ) -> Result<(Sent, Option<Authorization>), Ended<S::Error>> {
        let session = self.own().session();
        // Whoever the upstream leads to is not told its credential.
        let own = Origin::of(&request.url).is_some_and(|target| target == *self.own().origin());
        let mut authorization = if own { session.prepare(request.op, &request.scope).await? } else { None };
        let mut stale = false;
        let mut refused = false;
        loop {
            let sent = match self.sent(request, authorization.as_ref(), source).await {
                Err(Ended::Stale(failure)) if !stale => {
                    again(source, failure, "a kept connection had died").await?;
                    session.client.retried("connection");
                    stale = true;
                    continue;
                }
                sent => sent?,
            };
            if sent.answer.status != StatusCode::UNAUTHORIZED || !own {
                session.forget_forbidden(&sent.answer, authorization.as_ref());
                return Ok((sent, authorization));
            }
            let refusal = Unauthorized::read(sent.answer).await;
            drop(sent.feed);
            if refused {
                return Err(session.refused(request.op, &refusal, authorization).into());
            }
            authorization = Some(session.respond(request.op, &refusal, &request.scope, authorization).await?);
            let reason = format!("{} wanted another authorization", self.own().origin());
            again(source, Failure::new(ErrorKind::Interrupted, reason), "the body had gone").await?;
            session.client.retried("unauthorized");
            refused = true;
        }
    }

    /// Sends the request once.
    async fn sent<S: UploadSource>(
        &self,
        request: &Request,
        authorization: Option<&Authorization>,
        source: &mut S,
    ) -> Result<Sent, Ended<S::Error>> {
        let mut outgoing = Outgoing {
            method: request.method.clone(),
            url: request.url.clone(),
            headers: request.headers.clone(),
            body: Bytes::new(),
        };
        let length = source.length();
        let bodiless = matches!(request.op, Op::UploadStatus | Op::UploadCancel);
        if let Some(length) = length.filter(|_| !bodiless) {
            outgoing.headers.insert(CONTENT_LENGTH, length.into());
        }
        if let Some(authorization) = authorization {
            authorization.sign(&mut outgoing);
        }
        let Some(origin) = Origin::of(&request.url) else {
            return Err(Failure::foreign("an address that is neither http:// nor https://, or names a user").into());
        };
        let client = self.own().client();
        let reserved = client.reserve(request.op, &origin).await?;
        let (feed, payload) = Payload::stream(length);
        let mut sending = pin!(client.stream(request.op, reserved, outgoing, payload));
        let handed = AtomicU64::new(0);
        let outcome = tokio::select! {
            biased;
            answer = &mut sending => return held(answer, feed, &handed),
            outcome = self.feed(&feed, source, &origin, &handed) => outcome,
        };
        outcome?;
        let patience = if request.op == Op::UploadEnd { PATIENCE } else { 1 };
        let limit = client.first_byte() * patience;
        if let Ok(answer) = timeout(limit, sending).await {
            return held(answer, feed, &handed);
        }
        let text = format!("{origin} did not begin to answer within {} s of the body's end", limit.as_secs());
        Err(Failure::new(ErrorKind::Timeout, text).into())
    }

    /// Hands the source's bytes on until they end. Never ends if the request is over before: its answer tells.
    async fn feed<S: UploadSource>(
        &self,
        feed: &Feed,
        source: &mut S,
        origin: &Origin,
        handed: &AtomicU64,
    ) -> Result<(), Ended<S::Error>> {
        let sent = self.own().sent_bytes();
        while let Some(chunk) = source.chunk().await.map_err(Ended::Source)? {
            let bytes = chunk.len() as u64;
            let stall = self.own().session().client.stall();
            match timeout(stall, feed.chunk(chunk)).await {
                Ok(true) => {
                    sent.inc_by(bytes);
                    handed.fetch_add(bytes, Ordering::Relaxed);
                }
                Ok(false) => std::future::pending().await,
                Err(_) => {
                    let text = format!("{origin} took nothing for {} s in the middle of a body", stall.as_secs_f32());
                    return Err(Failure::new(ErrorKind::Timeout, text).into());
                }
            }
        }
        feed.end().await;
        Ok(())
    }

    /// What a session's answer says about it; without a `Location` it stays where it is.
    fn session_of(&self, answer: &Answer, location: Option<&str>) -> Result<UploadSession, Failure> {
        let text = |name: &str| answer.header(name).map(str::to_owned);
        let location = match (answer.headers.get(LOCATION).and_then(|to| to.to_str().ok()), location) {
            (Some(to), _) => home(self.own().origin(), &answer.url, to)?,
            (None, Some(location)) => location.to_owned(),
            (None, None) => {
                return Err(Failure::foreign(format!("{} began an upload without a Location", answer.origin)));
            }
        };
        let chunk_min_length = text("oci-chunk-min-length");
        Ok(UploadSession { location, range: text("range"), uuid: text("docker-upload-uuid"), chunk_min_length })
    }
}

/// The absolute address of a `Location`. A registry behind a proxy may name itself with the wrong scheme: its host stays the
/// upstream, asked as it is configured.
pub(in crate::upstream) fn home(own: &Origin, base: &Uri, location: &str) -> Result<String, Failure> {
    let target = origin::resolve(base, location).and_then(|url| Origin::of(&url).map(|target| (url, target)));
    let Some((url, target)) = target else {
        return Err(Failure::foreign(format!("{own} leads an upload to something that is no address")));
    };
    if own.https && !target.https {
        if target.host != own.host {
            let reason = format!("{own} leads an upload from https to http ({target}); that is not followed");
            return Err(Failure::foreign(reason));
        }
        let path = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        return Ok(format!("{}://{}{path}", own.scheme(), own.authority()));
    }
    Ok(url.to_string())
}

/// The address at which an upload ends: `location` with the digest.
pub(in crate::upstream) fn end(location: &str, digest: &str) -> String {
    let joint = if location.contains('?') { '&' } else { '?' };
    format!("{location}{joint}digest={}", utf8_percent_encode(digest, QUERY))
}

/// The answer with the feed that keeps its connection.
fn held<E>(answer: Result<Answer, Unanswered>, feed: Feed, handed: &AtomicU64) -> Result<Sent, Ended<E>> {
    match answer {
        Ok(answer) => Ok(Sent { answer, feed }),
        // One that has taken so much was alive: the upstream has a part of the body, and another one would not fit behind it.
        Err(Unanswered { failure, stale: true }) if handed.load(Ordering::Relaxed) <= UNNOTICED => {
            Err(Ended::Stale(failure))
        }
        Err(Unanswered { failure, .. }) => Err(Ended::Upstream(failure)),
    }
}

/// Has the body sent once more; if it is gone, the client has to.
async fn again<S: UploadSource>(source: &mut S, failure: Failure, why: &str) -> Result<(), Ended<S::Error>> {
    if source.rewind().await {
        return Ok(());
    }
    let reason = format!("{}; {why} and is not kept here, so that it has to be sent again", failure.reason);
    Err(Failure::new(ErrorKind::Interrupted, reason).into())
}

fn body_headers(headers: &BodyHeaders) -> HeaderMap {
    let mut all = HeaderMap::new();
    if let Some(media_type) = &headers.media_type {
        all.insert(CONTENT_TYPE, media_type.clone());
    }
    if let Some(range) = &headers.range {
        all.insert(CONTENT_RANGE, range.clone());
    }
    all
}
