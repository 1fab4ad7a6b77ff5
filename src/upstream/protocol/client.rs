use super::answer::Answer;
use super::classify;
use super::relayed::{self, Passers};
use crate::oci::Registry;
use crate::telemetry::Metrics;
use crate::upstream::error::{ErrorKind, Failure, Withheld};
use crate::upstream::limits::op::{Op, QuotaClass};
use crate::upstream::limits::throttle::Throttle;
use crate::upstream::transport::body::Body;
use crate::upstream::transport::origin::Origin;
use crate::upstream::transport::payload::Payload;
use crate::upstream::transport::pool::{Head, Outgoing, Pool, Reserved, Turn, Unanswered};
use http::header::{ACCEPT_ENCODING, USER_AGENT, VIA};
use http::{HeaderValue, StatusCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// One upstream's connections with everything that every request has: leave to be sent, its own headers, its metrics, its log
/// line.
pub(in crate::upstream) struct HttpClient {
    name: Registry,
    pool: Pool,
    throttle: Throttle,
    metrics: Arc<Metrics>,
    stall: Duration,
    /// Whom its requests have passed.
    passers: Arc<Passers>,
    /// Whether the last answer was another than a larder's.
    stranger: AtomicBool,
    /// Whether nothing is ever sent.
    sealed: bool,
}

impl HttpClient {
    pub(in crate::upstream) fn new(
        name: Registry,
        pool: Pool,
        metrics: Arc<Metrics>,
        stall: Duration,
        throttle: Throttle,
        passers: Arc<Passers>,
        sealed: bool,
    ) -> Self {
        Self { name, pool, throttle, metrics, stall, passers, stranger: AtomicBool::new(false), sealed }
    }

    /// Whether a request may be sent at all now; what has to be done before it is sent can then be spared.
    pub(in crate::upstream) fn admit(&self, op: Op) -> Result<(), Failure> {
        let admitted = if self.sealed {
            let reason = "it is sealed ([[upstream]] sealed, or --sealed), and never asked";
            Err(Failure::withheld(Withheld::Sealed, ErrorKind::Unreachable, reason))
        } else {
            self.throttle.admit(op)
        };
        admitted.inspect_err(|failure| {
            self.count_withheld(failure);
        })
    }

    pub(in crate::upstream) fn passers(&self) -> &Passers {
        &self.passers
    }

    /// What waits for a larder's answer is asked again, since it does not name all whom it is for: it may be waiting for itself.
    pub(in crate::upstream) fn name_passers(&self) {
        if !self.stranger.load(Ordering::Relaxed) {
            self.pool.ask_again();
        }
    }

    /// The hosts that do not answer: since when, and the sentence that says so.
    pub(in crate::upstream) fn silent_hosts(&self) -> Vec<(String, SystemTime, String)> {
        self.pool.silent()
    }

    /// What a 429 holds back, and for how long.
    pub(in crate::upstream) fn held_back(&self) -> Vec<(QuotaClass, Duration)> {
        self.throttle.held()
    }

    /// Waits for its turn in the budget of its category.
    async fn turn(&self, op: Op) -> Result<(), Failure> {
        let waited = self.throttle.turn(op).await.inspect_err(|failure| {
            self.count_withheld(failure);
        })?;
        if waited {
            self.metrics.upstream_paced.with_label_values(&[self.name.as_str()]).inc();
        }
        Ok(())
    }

    /// Whether `failure` is one of a request that was not sent.
    fn count_withheld(&self, failure: &Failure) -> bool {
        if let Some(why) = failure.withheld {
            self.metrics.upstream_withheld.with_label_values(&[self.name.as_str(), why.as_str()]).inc();
        }
        failure.withheld.is_some()
    }

    /// Sends one request and waits for the head of its answer, whatever its status.
    pub(in crate::upstream) async fn send(&self, op: Op, outgoing: Outgoing) -> Result<Answer, Failure> {
        let Some(origin) = Origin::of(&outgoing.url) else {
            return Err(Failure::foreign("an address that is neither http:// nor https://, or names a user"));
        };
        self.admit(op)?;
        self.turn(op).await?;
        let outgoing = self.with_own_headers(outgoing);
        let begun = Instant::now();
        // While it waited for a connection, others may have been refused.
        let admit = || self.throttle.admit(op);
        let again = || {
            self.throttle.spare(op).then(|| {
                self.retried("silence");
                // For others too by now, perhaps.
                self.with_own_headers(outgoing.clone())
            })
        };
        let again = op.is_question().then_some(&again as &(dyn Fn() -> _ + Sync));
        let turn = Turn { share: op.connection_class(), admit: &admit, again };
        let scope = self.pool.border().scope(&origin, op.is_for_token());
        let head = self.pool.send(&outgoing, (&origin, scope), turn).await;
        if let Err(failure) = &head
            && self.count_withheld(failure)
        {
            return Err(failure.clone());
        }
        self.note(op, &outgoing, &origin, begun, head.as_ref().ok());
        Ok(self.answer(op, outgoing, origin, head?))
    }

    /// Finds a connection for a request whose body can be sent only once.
    pub(in crate::upstream) async fn reserve(&self, op: Op, origin: &Origin) -> Result<Reserved, Failure> {
        self.admit(op)?;
        let admit = || self.throttle.admit(op);
        let scope = self.pool.border().scope(origin, op.is_for_token());
        self.pool.reserve((origin, scope), op.connection_class(), admit).await.inspect_err(|failure| {
            self.count_withheld(failure);
        })
    }

    /// Sends a request on its connection, whose body is fed meanwhile, and waits for the head of its answer without a limit.
    pub(in crate::upstream) async fn stream(
        &self,
        op: Op,
        reserved: Reserved,
        outgoing: Outgoing,
        body: Payload,
    ) -> Result<Answer, Unanswered> {
        let outgoing = self.with_own_headers(outgoing);
        let begun = Instant::now();
        let origin = reserved.origin().clone();
        let head = reserved.send(&outgoing, body).await;
        self.note(op, &outgoing, &origin, begun, head.as_ref().ok());
        head.map(|head| self.answer(op, outgoing, origin, head))
    }

    /// Counts and logs a request that was sent.
    fn note(&self, op: Op, outgoing: &Outgoing, origin: &Origin, begun: Instant, head: Option<&Head>) {
        let duration = begun.elapsed();
        let code = head.map_or_else(|| "error".to_owned(), |head| head.response.status().as_str().to_owned());
        let upstream = self.name.as_str();
        self.metrics.upstream_requests.with_label_values(&[upstream, op.as_str(), &code]).inc();
        let seconds = self.metrics.upstream_request_duration.with_label_values(&[upstream, op.as_str()]);
        seconds.observe(duration.as_secs_f64());
        // The path without its query: what storage signs stands in the query.
        tracing::debug!(
            upstream.name = upstream,
            upstream.host = %origin,
            op = op.as_str(),
            method = %outgoing.method,
            path = outgoing.url.path(),
            code,
            duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            "asked upstream"
        );
    }

    fn answer(&self, op: Op, outgoing: Outgoing, origin: Origin, head: Head) -> Answer {
        let upstream = self.name.as_str();
        if head.replaced {
            self.retried("connection");
        }
        let status = head.response.status();
        let retry_after = self.throttle.note(op, status, classify::retry_after(head.response.headers()));
        if status == StatusCode::TOO_MANY_REQUESTS {
            self.metrics.upstream_throttled.with_label_values(&[upstream]).inc();
        }
        self.stranger.store(!relayed::is_larder(head.response.headers()), Ordering::Relaxed);
        let (parts, incoming) = head.response.into_parts();
        let received = self.metrics.upstream_received_bytes.with_label_values(&[upstream]);
        let body = Body::new(incoming, head.lease, self.stall, received, origin.to_string());
        let spoken = classify::is_speaker(&parts.headers);
        Answer { status: parts.status, headers: parts.headers, body, url: outgoing.url, origin, retry_after, spoken }
    }

    /// How long an upstream may give, or take, nothing of a body.
    pub(in crate::upstream) fn stall(&self) -> Duration {
        self.stall
    }

    /// How long an upstream may take to begin its answer.
    pub(in crate::upstream) fn first_byte(&self) -> Duration {
        self.pool.first_byte()
    }

    /// Counts a request that is sent once more.
    pub(in crate::upstream) fn retried(&self, reason: &str) {
        self.metrics.upstream_retries.with_label_values(&[self.name.as_str(), reason]).inc();
    }

    /// What every request carries: bytes as they are stored, who asks, ACR's way for a client to say what it is, and whom it has
    /// passed.
    fn with_own_headers(&self, mut outgoing: Outgoing) -> Outgoing {
        const AGENT: &str = concat!("larder/", env!("CARGO_PKG_VERSION"));
        let headers = &mut outgoing.headers;
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert("x-meta-source-client", HeaderValue::from_static("on-prem/larder"));
        if let Some(via) = self.passers.via() {
            headers.insert(VIA, via);
        }
        outgoing
    }
}
