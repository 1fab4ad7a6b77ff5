//! What clients did: every request, and everything that ACR would have refused.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use http::HeaderMap;
use http::header::{ACCEPT, AUTHORIZATION, RANGE};
use serde::Serialize;

use super::auth;

/// Which listener a request came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Listener {
    Login,
    Storage,
}

/// The kind of credential, never the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Credential {
    None,
    Basic { user: String },
    Bearer,
    Other,
}

/// One request.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    #[serde(skip)]
    pub at: SystemTime,
    pub listener: Listener,
    pub method: String,
    /// Path and query, byte for byte as they came.
    pub target: String,
    pub authorization: Credential,
    /// One entry per header line.
    pub accept: Vec<String>,
    pub range: Option<String>,
    /// All headers, `authorization` left out.
    #[serde(skip)]
    pub headers: HeaderMap,
    /// 0 until the answer's headers are ready.
    pub status: u16,
    /// Bytes of the answer's body handed to the connection so far.
    pub sent: u64,
    /// Bytes of the request's body read so far.
    pub received: u64,
}

impl Seen {
    /// A GET of blob bytes (from storage or, without a redirect, from the login server).
    pub fn is_blob_body(&self) -> bool {
        self.method == "GET"
            && (200..300).contains(&self.status)
            && (self.listener == Listener::Storage || self.target.contains("/blobs/"))
            && !self.target.contains("/blobs/uploads/")
    }

    /// A request that brings bytes of a blob.
    pub fn is_upload_body(&self) -> bool {
        self.received > 0 && self.path().contains("/blobs/uploads/")
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// The entry of a request in flight; its answer fills in what is not known at first.
pub(super) struct Record {
    seen: Seen,
    status: AtomicU16,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Record {
    pub(super) fn new(listener: Listener, method: &str, target: &str, headers: &HeaderMap) -> Arc<Self> {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let mut kept = headers.clone();
        kept.remove(AUTHORIZATION);
        let seen = Seen {
            at: SystemTime::now(),
            listener,
            method: method.to_owned(),
            target: target.to_owned(),
            authorization: auth::credential_kind(headers),
            accept: headers.get_all(ACCEPT).iter().map(text).collect(),
            range: headers.get(RANGE).map(text),
            headers: kept,
            status: 0,
            sent: 0,
            received: 0,
        };
        Arc::new(Self { seen, status: AtomicU16::new(0), sent: AtomicU64::new(0), received: AtomicU64::new(0) })
    }

    pub(super) fn answered(&self, status: u16) {
        self.status.store(status, Ordering::Release);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::AcqRel);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::AcqRel);
    }

    fn seen(&self) -> Seen {
        Seen {
            status: self.status.load(Ordering::Acquire),
            sent: self.sent.load(Ordering::Acquire),
            received: self.received.load(Ordering::Acquire),
            ..self.seen.clone()
        }
    }
}

#[derive(Default)]
pub(super) struct Log {
    requests: Mutex<Vec<Arc<Record>>>,
    violations: Mutex<Vec<String>>,
}

impl Log {
    pub(super) fn add(&self, record: Arc<Record>) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(record);
    }

    pub(super) fn violation(&self, what: String) {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|r| r.seen()).collect()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn clear(&self) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
