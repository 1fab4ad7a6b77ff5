//! What is noted about one request, from its head to the last byte of its answer: the log line and the metrics.

use super::request::{AcrResource, Target};
use crate::oci::{Digest, Name, Reference, Registry, Tag};
use crate::server::http::body::{BodyEnd, BodyOutcome};
use crate::server::http::peer::Peer;
use crate::telemetry::{AccessRecord, CacheStatus, Log, Metrics};
use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// One request. Dropping it without [`RequestRecord::ended`] notes nothing.
pub(in crate::server) struct RequestRecord {
    metrics: Arc<Metrics>,
    log: Log,
    start: Instant,
    number: u64,
    method: Method,
    client: Option<IpAddr>,
    user_agent: Option<HeaderValue>,
    route: &'static str,
    registry: Option<Registry>,
    repository: Option<Name>,
    tag: Option<Tag>,
    digest: Option<Digest>,
    status: StatusCode,
    cache_status: Option<CacheStatus>,
    first_byte: Duration,
    detail: Option<String>,
}

impl RequestRecord {
    pub(in crate::server) fn new<B>(
        request: &Request<B>,
        peer: &Peer,
        number: u64,
        metrics: Arc<Metrics>,
        log: Log,
    ) -> Self {
        metrics.http_inflight.with_label_values(&NONE).inc();
        Self {
            metrics,
            log,
            start: Instant::now(),
            number,
            method: request.method().clone(),
            client: peer.address.map(|address| address.ip().to_canonical()),
            user_agent: request.headers().get(header::USER_AGENT).cloned(),
            route: "other",
            registry: None,
            repository: None,
            tag: None,
            digest: None,
            status: StatusCode::OK,
            cache_status: None,
            first_byte: Duration::ZERO,
            detail: None,
        }
    }

    /// What a client can quote and the log can be searched for.
    pub(in crate::server) fn request_id(&self) -> String {
        format!("{:08x}", self.number)
    }

    pub(in crate::server) fn resolved(&mut self, target: &Target) {
        self.route = target.route();
        self.registry = target.registry().cloned();
        self.repository = target.repository().map(|repository| repository.name.clone());
        match target {
            Target::Manifest(_, Reference::Tag(tag)) | Target::Acr(AcrResource::Tag(_, tag)) => {
                self.tag = Some(tag.clone());
            }
            Target::Manifest(_, Reference::Digest(digest))
            | Target::Blob(_, digest)
            | Target::Referrers(_, digest)
            | Target::Acr(AcrResource::Manifest(_, digest)) => self.digest = Some(*digest),
            _ => {}
        }
    }

    pub(in crate::server) fn answered(
        &mut self,
        status: StatusCode,
        cache_status: Option<CacheStatus>,
        detail: Option<String>,
    ) {
        self.status = status;
        self.cache_status = cache_status;
        self.detail = detail;
        self.first_byte = self.start.elapsed();
    }

    pub(in crate::server) fn ended(self, end: BodyEnd) {
        let duration = self.start.elapsed();
        let metrics = &self.metrics;
        metrics.http_inflight.with_label_values(&NONE).dec();
        metrics.http_requests.with_label_values(&[method_label(&self.method), self.route, self.status.as_str()]).inc();
        metrics.http_request_duration.with_label_values(&[self.route]).observe(duration.as_secs_f64());
        // A write asks for no content.
        let reads = matches!(self.method, Method::GET | Method::HEAD);
        if let (Some(registry), Some(status), true) = (&self.registry, self.cache_status, reads) {
            self.count(registry, status, end.bytes);
        }
        self.write(end, duration);
    }

    fn count(&self, registry: &Registry, status: CacheStatus, bytes: u64) {
        let metrics = &self.metrics;
        let kind = match (self.route, &self.tag) {
            ("manifest", Some(_)) => "tag",
            (route, _) => route,
        };
        metrics.cache_requests.with_label_values(&[registry.as_str(), kind, status.as_str()]).inc();
        metrics.time_to_first_byte.with_label_values(&[status.as_str()]).observe(self.first_byte.as_secs_f64());
        let source = match status {
            CacheStatus::Hit | CacheStatus::Stale | CacheStatus::Revalidated | CacheStatus::Negative => "cache",
            CacheStatus::Miss | CacheStatus::Coalesced | CacheStatus::Bypass => "upstream",
        };
        metrics.response_bytes.with_label_values(&[registry.as_str(), source]).inc_by(bytes);
    }

    fn write(&self, end: BodyEnd, duration: Duration) {
        let digest = self.digest.map(|digest| digest.to_string());
        let request_id = self.status.is_server_error().then(|| self.request_id());
        let detail = match end.outcome {
            BodyOutcome::Complete => self.detail.as_deref(),
            BodyOutcome::Aborted => Some("the client went away before the end"),
            BodyOutcome::Failed => Some("the answer was broken off: its content failed"),
        };
        self.log.access(&AccessRecord {
            method: self.method.as_str(),
            route: self.route,
            repository: self.repository.as_ref().map(Name::as_str),
            upstream: self.registry.as_ref().map(Registry::as_str),
            reference: self.tag.as_ref().map(Tag::as_str),
            digest: digest.as_deref(),
            status: self.status.as_u16(),
            cache_status: self.cache_status,
            bytes: end.bytes,
            duration,
            ttfb: Some(self.first_byte),
            client: self.client,
            user_agent: self.user_agent.as_ref().and_then(|agent| agent.to_str().ok()),
            request_id: request_id.as_deref(),
            detail,
        });
    }
}

const NONE: [&str; 0] = [];

/// A client can invent methods, and a label must not grow with them.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}
