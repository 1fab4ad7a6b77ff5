//! One question to the upstream: authorized, redirected as storage wants it, and told apart from what a portal says.

use super::answer::Answer;
use super::classify;
use crate::upstream::auth::scope::Scope;
use crate::upstream::auth::session::{Authorization, Session};
use crate::upstream::error::{ErrorKind, Failure};
use crate::upstream::limits::op::Op;
use crate::upstream::transport::location;
use crate::upstream::transport::origin::{self, Origin};
use crate::upstream::transport::pool::Outgoing;
use bytes::Bytes;
use http::header::{LOCATION, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use tokio::time::Instant;

/// As many hops as clients follow (Go's `net/http`).
const HOPS: usize = 10;
/// What changes bytes. Other words in `Content-Encoding` are labels (`utf-8`, `aws-chunked`, nothing), which clients pass over.
const ENCODINGS: [&str; 7] = ["gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd"];

/// The value of a header of a request.
pub(in crate::upstream) fn header(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text).map_err(|_| {
        let kind = ErrorKind::Rejected {
            status: 400,
            code: "UNSUPPORTED".to_owned(),
            message: String::new(),
            about: Vec::new(),
        };
        Failure::new(kind, "the request has a header that cannot be sent")
    })
}

/// A question.
pub(in crate::upstream) struct Ask {
    pub(in crate::upstream) op: Op,
    pub(in crate::upstream) method: Method,
    pub(in crate::upstream) url: Uri,
    pub(in crate::upstream) headers: HeaderMap,
    pub(in crate::upstream) scope: Scope,
}

/// An answer after all redirects, whatever its status, and what is needed to judge it.
struct Arrived {
    answer: Answer,
    authorization: Option<Authorization>,
    redirected: bool,
    told: Told,
}

/// What the upstream's own answer said of itself and of the content, before any storage that it led to spoke.
#[derive(Clone, Debug, Default)]
pub(in crate::upstream) struct Told {
    /// Whether it showed that a registry speaks.
    pub(in crate::upstream) is_speaker: bool,
    /// The digest that it named.
    pub(in crate::upstream) digest: Option<String>,
}

impl Told {
    fn by(answer: &Answer) -> Self {
        let digest = answer.header("docker-content-digest").map(|digest| digest.trim().to_owned());
        Self { is_speaker: classify::is_speaker(&answer.headers), digest }
    }
}

impl Session {
    /// Asks, and asks the upstream once more if the place that it led to refuses: signed addresses expire.
    pub(in crate::upstream) async fn fetch(&self, ask: &Ask) -> Result<Answer, Failure> {
        self.fetch_told(ask).await.map(|(answer, _)| answer)
    }

    async fn fetch_told(&self, ask: &Ask) -> Result<(Answer, Told), Failure> {
        let mut arrived = self.arrive(ask).await?;
        if arrived.redirected && is_refused_address(arrived.answer.status) {
            arrived.answer.body.drain().await;
            self.client.retried("redirect");
            arrived = self.arrive(ask).await?;
        }
        let Arrived { answer, authorization, redirected, told } = arrived;
        // Only of a blob may a part be asked for.
        if is_whole(ask.op, answer.status) || answer.status == StatusCode::PARTIAL_CONTENT && ask.op.is_bulk() {
            return as_content(ask.op, answer).map(|answer| (answer, told));
        }
        let failure = classify::failure(
            ask.op,
            answer,
            authorization.as_ref().map(|authorization| authorization.identity.as_str()),
        )
        .await;
        // Whoever the upstream leads to has not seen the login, and so has not judged it.
        let misled = redirected && matches!(failure.kind, ErrorKind::RepositoryRefused { .. });
        Err(if misled { Failure::foreign(failure.reason) } else { failure })
    }

    /// Asks for something that is held whole, and reads it with `read`; once more if it breaks off in the middle, as a blob would be
    /// gone on with. Whoever had all its time, and stood still, is not waited for twice.
    pub(in crate::upstream) async fn fetch_whole<T, F>(
        &self,
        ask: &Ask,
        read: impl Fn(Answer) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let answer = self.fetch(ask).await?;
        let began = Instant::now();
        match read(answer).await {
            Err(failure) if matches!(failure.kind, ErrorKind::Interrupted) && began.elapsed() < self.client.stall() => {
                self.client.retried("resume");
                read(self.fetch(ask).await?).await
            }
            result => result,
        }
    }

    /// Asks for the head of a manifest. `None`: its answer is not to be believed, and only a GET can tell; registries and storage behind
    /// signed addresses refuse a HEAD, or say 404 to it, of what a GET finds.
    pub(in crate::upstream) async fn head_of_manifest(&self, ask: &Ask) -> Result<Option<Answer>, Failure> {
        let Arrived { answer, authorization, .. } = match self.arrive(ask).await {
            Ok(arrived) => arrived,
            Err(failure) if failure.withheld.is_none() && is_refusal(&failure.kind, self.takes_passwords()) => {
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        };
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            return Err(classify::failure(
                ask.op,
                answer,
                authorization.as_ref().map(|authorization| authorization.identity.as_str()),
            )
            .await);
        }
        let told = answer.status == StatusCode::OK && (answer.spoken || !classify::is_page(&answer.headers));
        Ok(told.then_some(answer))
    }

    /// Whether the answer to a HEAD, even a refusal, is one that only a registry gives.
    pub(in crate::upstream) async fn speaks(&self, ask: &Ask) -> bool {
        let Ok(Arrived { answer, .. }) = self.arrive(ask).await else { return false };
        let (found, unknown) = (answer.status == StatusCode::OK, answer.status == StatusCode::NOT_FOUND);
        found && !classify::is_page(&answer.headers) && (answer.spoken || answer.digest().is_some())
            || unknown && answer.spoken
    }

    /// Asks for the head of a blob. One that fails without saying who speaks, or why, is confirmed by a GET, which has a body.
    pub(in crate::upstream) async fn fetch_head(&self, ask: Ask) -> Result<(Answer, Told), Failure> {
        let Arrived { answer, authorization, redirected, told } = self.arrive(&ask).await?;
        let status = answer.status;
        if status == StatusCode::OK && !is_unspoken_page(&answer) {
            return Ok((answer, told));
        }
        let believed = status == StatusCode::NOT_FOUND && classify::is_speaker(&answer.headers) && !redirected;
        if believed || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(classify::failure(
                ask.op,
                answer,
                authorization.as_ref().map(|authorization| authorization.identity.as_str()),
            )
            .await);
        }
        answer.body.drain().await;
        let mut ask = Ask { method: Method::GET, op: Op::BlobGet, ..ask };
        ask.headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        let (answer, told) = self.fetch_told(&ask).await?;
        // Nobody checks a digest here. No portal gives a part.
        if answer.status != StatusCode::PARTIAL_CONTENT && is_unspoken_page(&answer) {
            return Err(page(&answer));
        }
        Ok((answer, told))
    }

    /// Asks for something to be done. A redirect leads to no place where that could be: it is not followed.
    pub(in crate::upstream) async fn write(&self, ask: &Ask, body: Bytes) -> Result<Answer, Failure> {
        let outgoing =
            Outgoing { method: ask.method.clone(), url: ask.url.clone(), headers: ask.headers.clone(), body };
        let (answer, authorization) = self.send(ask.op, &outgoing, &ask.scope).await?;
        // A portal says 200 to everything; a registry that has done something says 201, 202 or 204, or says that it is one.
        let done = answer.status.is_success()
            && !classify::is_page(&answer.headers)
            && (answer.status != StatusCode::OK
                || classify::is_speaker(&answer.headers)
                || ask.op == Op::AcrRead && classify::is_json(&answer.headers));
        if done {
            return Ok(answer);
        }
        Err(classify::failure(
            ask.op,
            answer,
            authorization.as_ref().map(|authorization| authorization.identity.as_str()),
        )
        .await)
    }

    async fn arrive(&self, ask: &Ask) -> Result<Arrived, Failure> {
        let outgoing = Outgoing {
            method: ask.method.clone(),
            url: ask.url.clone(),
            headers: ask.headers.clone(),
            body: Bytes::new(),
        };
        let (mut answer, authorization) = self.send(ask.op, &outgoing, &ask.scope).await?;
        let (home, told) = (answer.origin.clone(), Told::by(&answer));
        let mut secure = home.https;
        let mut at_home = true;
        let mut hops = 0;
        loop {
            if !is_redirect(answer.status) {
                return Ok(Arrived { answer, authorization, redirected: hops > 0, told });
            }
            if hops == HOPS {
                return Err(Failure::foreign(format!("{home} leads through more than {HOPS} redirects")));
            }
            let (url, target) = target(&answer, secure)?;
            secure = target.https;
            let spoken = answer.spoken;
            answer.body.drain().await;
            let mut outgoing = Outgoing { url, ..outgoing.clone() };
            // A credential never leaves the origin that it is for. A redirect back to that origin does not get it.
            at_home &= target == home;
            if let Some(authorization) = authorization.as_ref().filter(|_| at_home) {
                authorization.sign(&mut outgoing);
            }
            let op = if ask.op == Op::BlobGet { Op::BlobStorage } else { ask.op };
            answer = self.client.send(op, outgoing).await?;
            answer.spoken |= spoken;
            hops += 1;
        }
    }
}

/// Where a redirect leads.
fn target(answer: &Answer, secure: bool) -> Result<(Uri, Origin), Failure> {
    let origin = &answer.origin;
    let location = answer.headers.get(LOCATION).and_then(|value| location::of(value.as_bytes()));
    let url = location.and_then(|location| origin::resolve(&answer.url, &location));
    let target = url.and_then(|url| Origin::of(&url).map(|target| (url, target)));
    let Some((url, target)) = target else {
        return Err(Failure::foreign(format!("{origin} redirects to something that is no address")));
    };
    if secure && !target.https {
        return Err(Failure::foreign(format!(
            "{origin} redirects from https to http ({target}); that is not followed"
        )));
    }
    Ok((url, target))
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Whether an answer has content, as clients see it: they take any success that is no part and has a body. A list, which has no digest to
/// be judged by, they take under 200 alone.
fn is_whole(op: Op, status: StatusCode) -> bool {
    match op {
        Op::Tags | Op::Catalogue | Op::Referrers => status == StatusCode::OK,
        _ => (200..=203).contains(&status.as_u16()),
    }
}

/// Whether a new address may help: any refusal but of the range itself or of the pace.
fn is_refused_address(status: StatusCode) -> bool {
    status.is_client_error() && status != StatusCode::RANGE_NOT_SATISFIABLE && status != StatusCode::TOO_MANY_REQUESTS
}

/// Refusals that a HEAD alone may have met.
fn is_refusal(kind: &ErrorKind, by_password: bool) -> bool {
    match kind {
        ErrorKind::RepositoryRefused { .. } | ErrorKind::Foreign => true,
        // What a token service has refused it would refuse once more; a password the HEAD itself has met.
        ErrorKind::CredentialRefused { identity, .. } => by_password || identity == "anonymous",
        _ => false,
    }
}

/// A success that is no content: a page for people, or bytes that something has encoded on the way. What has a digest or a shape of its
/// own is judged by that, whatever it is labelled as.
fn as_content(op: Op, answer: Answer) -> Result<Answer, Failure> {
    let labelled = matches!(op, Op::ManifestGet | Op::Tags | Op::Catalogue | Op::Referrers) || op.is_bulk();
    if !labelled && classify::is_page(&answer.headers) {
        return Err(page(&answer));
    }
    // Of a blob's bytes the digest decides: some storage hands out a label of the upload here.
    let encoding = answer.header(http::header::CONTENT_ENCODING).unwrap_or_default().trim().to_ascii_lowercase();
    if encoding.split(',').any(|word| ENCODINGS.contains(&word.trim())) && !op.is_bulk() {
        let origin = &answer.origin;
        return Err(Failure::foreign(format!("{origin} answered with content encoded as {encoding}, unasked")));
    }
    Ok(answer)
}

/// A web page from a sender that does not speak the protocol.
fn is_unspoken_page(answer: &Answer) -> bool {
    classify::is_page(&answer.headers) && !classify::is_speaker(&answer.headers)
}

fn page(answer: &Answer) -> Failure {
    Failure::foreign(format!("{} answered with a web page; {}", answer.origin, classify::LOOK))
}
