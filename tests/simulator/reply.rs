//! Answers as the login server words them: its standing headers, its errors, its texts.
//!
//! Bodies are written out rather than serialised, because the order of the keys is part of the evidence.

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, SERVER};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::body::Body;
use super::faults::FaultAnswer;

pub(super) type Reply = Response<Body>;

pub(super) const JSON: &str = "application/json; charset=utf-8";
const HSTS: &str = "max-age=31536000; includeSubDomains";
pub(super) const UNAUTHORIZED: &str =
    "authentication required, visit https://aka.ms/acr/authorization for more information.";
const DISALLOWED: &str = "The operation is disallowed on this registry, repository or image. View troubleshooting steps at \
                          https://aka.ms/acr/faq/#why-does-my-pull-or-push-request-fail-with-disallowed-operation";
const THROTTLED: &str =
    "Too many requests. Please visit https://aka.ms/acr/skus#sku-feature-matrix to view limits of all service tiers.";

/// A body with its length and type.
pub(super) fn text(status: u16, content_type: &str, body: impl Into<String>) -> Reply {
    let body = body.into();
    let mut reply = bare(status);
    set(&mut reply, CONTENT_TYPE.as_str(), content_type);
    set(&mut reply, CONTENT_LENGTH.as_str(), &body.len().to_string());
    *reply.body_mut() = Body::of(body);
    reply
}

/// No body, and says so.
pub(super) fn empty(status: u16) -> Reply {
    let mut reply = bare(status);
    set(&mut reply, CONTENT_LENGTH.as_str(), "0");
    reply
}

pub(super) fn bare(status: u16) -> Reply {
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply
}

/// Sets a header; a value that HTTP cannot carry is left out.
pub(super) fn set(reply: &mut Reply, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
        reply.headers_mut().insert(name, value);
    }
}

/// JSON text of a string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// An error in the OCI form; `detail` is JSON, left out if there is none.
pub(super) fn error(status: u16, code: &str, message: &str, detail: Option<&str>) -> Reply {
    let detail = detail.map(|d| format!(",\"detail\":{d}")).unwrap_or_default();
    let body = format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":{}{detail}}}]}}\n", quoted(message));
    text(status, JSON, body)
}

/// An upload or manifest that is not what its digest says.
pub(super) fn wrong_digest() -> Reply {
    let message = "provided digest did not match uploaded content";
    error(400, "DIGEST_INVALID", message, Some("\"digest parsing failed\""))
}

/// What a lock forbids.
pub(super) fn disallowed() -> Reply {
    error(405, "REGISTRY_DISALLOWED_OPERATION", DISALLOWED, Some("{}"))
}

/// A method that the path does not have.
pub(super) fn unsupported() -> Reply {
    error(405, "UNSUPPORTED", "The operation is unsupported.", None)
}

/// What the router says before anything else is looked at.
pub(super) fn route_not_found() -> Reply {
    text(404, "text/plain; charset=utf-8", "404 page not found\n")
}

pub(super) fn firewall(client: &str) -> Reply {
    let body = format!(
        "{{\"errors\":[{{\"code\":\"DENIED\",\"message\":\"client with IP \\u0027{client}\\u0027 is not allowed access. \
         Refer https://aka.ms/acr/firewall to grant access.\"}}]}}\n"
    );
    text(403, JSON, body)
}

pub(super) fn throttled(retry_after: Option<u64>) -> Reply {
    with_retry_after(error(429, "TOOMANYREQUESTS", THROTTLED, None), retry_after)
}

fn with_retry_after(mut reply: Reply, seconds: Option<u64>) -> Reply {
    if let Some(seconds) = seconds {
        set(&mut reply, RETRY_AFTER.as_str(), &seconds.to_string());
    }
    reply
}

pub(super) fn not_found(what: &NotFound<'_>) -> Reply {
    match what {
        NotFound::Tag(tag) => error(
            404,
            "MANIFEST_UNKNOWN",
            &format!("manifest tagged by \"{tag}\" is not found"),
            Some(&format!("{{\"Tag\":{}}}", quoted(tag))),
        ),
        NotFound::Manifest { name, digest } => error(
            404,
            "MANIFEST_UNKNOWN",
            &format!("manifest {digest} is not found"),
            Some(&format!("{{\"Name\":{},\"Revision\":{}}}", quoted(name), quoted(digest))),
        ),
        NotFound::Repository(name) => error(404, "NAME_UNKNOWN", &format!("repository \"{name}\" is not found"), None),
        NotFound::AcrTag => error(404, "TAG_UNKNOWN", "the specified tag does not exist", None),
        NotFound::Blob(digest) => error(404, "BLOB_UNKNOWN", "blob unknown to registry", Some(&quoted(digest))),
        NotFound::AcceptLacks(kind) => error(404, "MANIFEST_UNKNOWN", kind, None),
    }
}

pub(super) enum NotFound<'a> {
    Tag(&'a str),
    /// In the words of `/acr/v1`.
    AcrTag,
    Manifest {
        name: &'a str,
        digest: &'a str,
    },
    Repository(&'a str),
    Blob(&'a str),
    AcceptLacks(&'a str),
}

/// The answer that a fault puts in the place of the real one.
pub(super) fn faulty(answer: &FaultAnswer, left: Option<u64>, client: &str) -> Reply {
    match answer {
        FaultAnswer::Status { status, body } if body.is_empty() => empty(*status),
        FaultAnswer::Status { status, body } => text(*status, "text/html", body.clone()),
        FaultAnswer::Oci { status, code, message } => error(*status, code, message, None),
        FaultAnswer::TooManyRequests { retry_after_s, front_door, .. } => {
            let reply = if *front_door {
                text(429, "text/html", "Ref A: 2B8F01 Ref B: AMS231032609 Ref C: 2026-11-24T06:00:00Z")
            } else {
                throttled(None)
            };
            with_retry_after(reply, left.or(*retry_after_s))
        }
        FaultAnswer::Firewall => firewall(client),
        FaultAnswer::Portal { status } => text(
            *status,
            "text/html",
            "<!DOCTYPE html><html><head><title>Welcome</title></head><body>Please sign in to use this network.</body></html>",
        ),
        FaultAnswer::ForeignRedirect { location } => {
            let mut reply = empty(302);
            set(&mut reply, "location", location);
            reply
        }
    }
}

/// The headers that every answer of `/v2` and `/acr` carries (twice HSTS included), or the fewer ones of `/oauth2`.
pub(super) fn standing_headers(reply: &mut Reply, registry_path: bool, correlation_id: &str) {
    let headers = reply.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("openresty"));
    headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
    headers.append("strict-transport-security", HeaderValue::from_static(HSTS));
    if registry_path {
        headers.append("strict-transport-security", HeaderValue::from_static(HSTS));
        for exposed in ["Docker-Content-Digest", "WWW-Authenticate", "Link", "X-Ms-Correlation-Request-Id"] {
            headers.append("access-control-expose-headers", HeaderValue::from_static(exposed));
        }
        headers.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    }
    set(reply, "x-ms-correlation-request-id", correlation_id);
}
