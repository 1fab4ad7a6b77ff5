//! Answers before they go out: what they are made of, and the shapes that several of them share.

use super::error::Problem;
use super::lists::Page;
use crate::cache::Provenance;
use crate::oci::{ErrorBody, RegistryError};
use crate::server::http::body::Body;
use crate::upstream::Room;
use http::header::{self, HeaderName};
use http::{HeaderValue, Method, Response};

pub(in crate::server) const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
pub(in crate::server) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub(in crate::server) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
pub(in crate::server) const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
pub(in crate::server) const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
pub(in crate::server) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(in crate::server) const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// An answer, before it is known how it ends.
pub(in crate::server) struct Reply {
    pub(in crate::server) response: Response<Body>,
    pub(in crate::server) provenance: Option<Provenance>,
    /// For the log line.
    pub(in crate::server) detail: Option<String>,
}

pub(in crate::server) fn ping(head: bool) -> Reply {
    let body = if head { Body::empty() } else { Body::full("{}".into()) };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response.headers_mut().insert(header::CONTENT_LENGTH, 2.into());
    Reply { response, provenance: None, detail: None }
}

pub(in crate::server) fn list_reply(
    page: Page,
    kind: HeaderValue,
    head: bool,
    provenance: Provenance,
    room: Option<Room>,
) -> Reply {
    let length = page.body.len();
    let body = if head { Body::empty() } else { Body::full(Room::around(room, page.body.into())) };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CONTENT_LENGTH, length.into());
    if let Some(link) = page.link {
        headers.insert(header::LINK, value(&link));
    }
    if page.filtered {
        headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    Reply { response, provenance: Some(provenance), detail: None }
}

pub(in crate::server) fn problem_reply(problem: &Problem, request_id: &str) -> Reply {
    let hidden = format!("larder met an error of its own; its log names it under request {request_id}");
    let message = if problem.is_ours() { &hidden } else { &problem.message };
    let (detail, more) = match problem.said.split_first() {
        _ if problem.status.is_server_error() => (Some(request_id.into()), &[][..]),
        Some((first, more)) => (first.detail.clone(), more),
        None => (None, &[][..]),
    };
    let first = RegistryError { code: problem.code.clone(), message: message.clone(), detail };
    let body = ErrorBody::new(first, more).to_json();
    let mut response = Response::new(Body::full(body.into()));
    *response.status_mut() = problem.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    if let Some(after) = problem.retry_after {
        headers.insert(header::RETRY_AFTER, after.as_secs().max(1).into());
    }
    if let Some(length) = problem.length {
        headers.insert(header::CONTENT_RANGE, value(&format!("bytes */{length}")));
    }
    if let Some(range) = &problem.range {
        headers.insert(header::RANGE, value(range));
    }
    if !problem.allow.is_empty() {
        headers.insert(header::ALLOW, value(&problem.allow.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")));
    }
    if let Some(challenge) = &problem.challenge {
        headers.insert(header::WWW_AUTHENTICATE, value(challenge));
    }
    let provenance = problem.origin.map(|origin| Provenance { stored: false, ..Provenance::new(origin) });
    Reply { response, provenance, detail: Some(problem.message.clone()) }
}

/// A header from text that is known to be one: digests, numbers, validated names.
pub(in crate::server) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}
