//! The second listener: whether the process lives, whether it serves, and its metrics. Read-only, but for the Unix socket, through
//! which the commands ask for more (`control.rs`).
//!
//! Readiness never depends on an upstream: a larder whose upstream is away serves what it has, which is when it matters most.

use crate::access::{Access, Caller};
use crate::cache::Cache;
use crate::config::Listen;
use crate::server::{Body, Handler, Peer, Routes, Tls, named_host};
use crate::store::Store;
use crate::telemetry::Metrics;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::Instant;

mod control;
mod exports;
mod imports;
mod linking;
mod process;
mod schedule;
mod slices;
mod turn;
mod warms;

/// The handler of the admin listener; a cheap clone.
#[derive(Clone)]
pub struct Admin {
    metrics: Arc<Metrics>,
    store: Store,
    cache: Cache,
    routes: Routes,
    access: Access,
    tls: Option<Tls>,
    started: Instant,
    ready: Arc<AtomicBool>,
    exports: exports::Exports,
    turn: turn::Turn,
    /// Held while what imports wait for is changed.
    importing: Arc<tokio::sync::Mutex<()>>,
}

/// Why a command is refused: the status, and the text for a person.
type Refused = (StatusCode, String);

impl Admin {
    /// Not ready until [`Admin::set_ready`] says so.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, store: Store, cache: Cache, routes: Routes, access: Access) -> Self {
        Self {
            metrics,
            store,
            cache,
            routes,
            access,
            tls: None,
            started: Instant::now(),
            ready: Arc::default(),
            exports: exports::Exports::default(),
            turn: turn::Turn::default(),
            importing: Arc::default(),
        }
    }

    /// Tells of the certificate too.
    #[must_use]
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// Whether the registry's listeners take requests.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    async fn reply(&self, request: &Request<Incoming>, peer: &Peer) -> Response<Body> {
        let (method, path) = (request.method(), request.uri().path());
        if let Listen::Unix(_) = *peer.listener {
            let answer = self.command(method, path, request.uri().query()).await;
            return answer.unwrap_or_else(|| self.answer(method, path));
        }
        let caller = Caller {
            address: peer.address.map(|address| address.ip()),
            local: peer.local.map(|address| address.ip()),
            host: named_host(request.uri(), request.headers()),
            ..Caller::default()
        };
        match self.access.recognize(&caller) {
            Ok(()) => self.answer(method, path),
            Err(refusal) => text(StatusCode::MISDIRECTED_REQUEST, format!("{refusal}\n")),
        }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Body> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "this listener is read-only\n");
        }
        match path {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" if self.ready.load(Ordering::Acquire) => self.readiness(),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "starting or draining\n"),
            "/metrics" => self.metrics(),
            _ => text(StatusCode::NOT_FOUND, "here are /healthz, /readyz and /metrics\n"),
        }
    }

    /// Also with a disk in trouble: what passes through is better than no answer at all.
    fn readiness(&self) -> Response<Body> {
        match self.store.trouble() {
            None => text(StatusCode::OK, "ready\n"),
            Some(trouble) => {
                let why = format!("ready, but nothing is stored ({}): {}\n", trouble.kind.as_str(), trouble.problem);
                text(StatusCode::OK, why)
            }
        }
    }

    fn metrics(&self) -> Response<Body> {
        process::observe(&self.metrics);
        let usage = self.store.usage();
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.store_bytes.with_label_values(&[] as &[&str]).set(gauge(usage.bytes));
        self.metrics.store_limit_bytes.with_label_values(&[] as &[&str]).set(gauge(usage.limit));
        match self.metrics.render() {
            Ok(body) => {
                let mut response = Response::new(Body::full(body.into()));
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
            Err(error) => {
                tracing::error!(%error, "could not write the metrics");
                text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written; the log says why\n")
            }
        }
    }
}

impl Handler for Admin {
    async fn handle(&self, request: Request<Incoming>, peer: Arc<Peer>) -> Response<Body> {
        let of_commands = matches!(*peer.listener, Listen::Unix(_));
        let mut response = match request.uri().path() {
            path if of_commands && path.starts_with("/v1/export") => self.export(request).await,
            path if of_commands && path.starts_with("/v1/import/") => self.import(request).await,
            "/v1/warm" if of_commands => self.warm(request.uri().query()),
            _ => self.reply(&request, &peer).await,
        };
        let nosniff = HeaderValue::from_static("nosniff");
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
        response
    }
}

fn text(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
