//! The one place where errors become status codes, OCI error codes and texts.

use super::request::RequestError;
use crate::access::Refusal;
use crate::cache::{BodyLost, CacheError};
use crate::oci::{Code, InvalidDigest, RegistryError, TooManyRanges};
use crate::telemetry::CacheStatus;
use crate::upstream::{ErrorKind, UpstreamError};
use http::{Method, StatusCode};
use std::time::Duration;

/// What a client is told when there is no answer.
#[derive(Debug)]
pub(in crate::server) struct Problem {
    pub(in crate::server) status: StatusCode,
    pub(in crate::server) code: String,
    pub(in crate::server) message: String,
    /// Upstream's own errors, if it has refused.
    pub(in crate::server) said: Vec<RegistryError>,
    /// When to try again, for 429.
    pub(in crate::server) retry_after: Option<Duration>,
    /// Length of the content, for 416.
    pub(in crate::server) length: Option<u64>,
    /// How far an upload has come, where upstream said so.
    pub(in crate::server) range: Option<String>,
    pub(in crate::server) allow: &'static [Method],
    /// How to log in, for 401: `WWW-Authenticate`.
    pub(in crate::server) challenge: Option<String>,
    /// Where the answer came from, if the cache was asked for it.
    pub(in crate::server) origin: Option<CacheStatus>,
}

/// How long a client is asked to wait when upstream throttles and does not say for how long.
const RETRY_AFTER: Duration = Duration::from_secs(10);

impl Problem {
    pub(in crate::server) fn new(status: StatusCode, code: Code, message: &(impl ToString + ?Sized)) -> Self {
        let (code, message) = (code.as_str().to_owned(), message.to_string());
        Self {
            status,
            code,
            message,
            said: Vec::new(),
            retry_after: None,
            length: None,
            range: None,
            allow: &[],
            challenge: None,
            origin: None,
        }
    }

    fn after(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }

    /// For a method that the target does not know.
    pub(in crate::server) fn method(method: &Method, allow: &'static [Method]) -> Self {
        let known = allow.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let message = format!("{method} is no method of this path; it knows {known}");
        Self { allow, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, &message) }
    }

    /// For a write: the answer was upstream's, and nothing was sought here.
    pub(in crate::server) fn of_write(self) -> Self {
        Self { origin: self.origin.map(|_| CacheStatus::Bypass), ..self }
    }

    /// Whether larder itself is at fault: the client then gets the request's number instead of inner details.
    pub(in crate::server) fn is_ours(&self) -> bool {
        self.status == StatusCode::INTERNAL_SERVER_ERROR
    }

    /// For referrers. oras-go takes `NAME_UNKNOWN` there for an error, and any other 404 for "fall back to the tag schema".
    pub(in crate::server) fn of_referrers(self) -> Self {
        if self.code == Code::NameUnknown.as_str() {
            return Self { code: Code::ManifestUnknown.as_str().to_owned(), ..self };
        }
        self
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        let (status, code) = match &error {
            RequestError::NoRoute => (StatusCode::NOT_FOUND, Code::Unsupported),
            RequestError::Name(_) => (StatusCode::BAD_REQUEST, Code::NameInvalid),
            RequestError::Digest(InvalidDigest::Malformed(_)) => (StatusCode::BAD_REQUEST, Code::DigestInvalid),
            RequestError::Digest(InvalidDigest::Unsupported(_)) => (StatusCode::BAD_REQUEST, Code::Unsupported),
            RequestError::Tag(_) => (StatusCode::NOT_FOUND, Code::ManifestUnknown),
            RequestError::UnknownUpstream { .. }
            | RequestError::TwoUpstreams { .. }
            | RequestError::NoDefault { .. } => (StatusCode::NOT_FOUND, Code::NameUnknown),
        };
        Self::new(status, code, &error)
    }
}

impl From<TooManyRanges> for Problem {
    fn from(error: TooManyRanges) -> Self {
        // Not 416, after which clients of zstd:chunked images give up; after 400 they ask for fewer.
        Self::new(StatusCode::BAD_REQUEST, Code::Unsupported, &error)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match &refusal {
            Refusal::Host(_) => Self::new(StatusCode::MISDIRECTED_REQUEST, Code::Denied, &refusal),
            Refusal::Network(_) | Refusal::Right { .. } | Refusal::Upstream { .. } => {
                Self::new(StatusCode::FORBIDDEN, Code::Denied, &refusal)
            }
            Refusal::Absent { .. } => Self::new(StatusCode::NOT_FOUND, Code::NameUnknown, &refusal),
            // Not 401, after which clients would throw their login away.
            Refusal::Away { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unknown, &refusal).after(RETRY_AFTER)
            }
            Refusal::Login { challenge, .. } => Self {
                challenge: Some(challenge.to_line()),
                ..Self::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, &refusal)
            },
            Refusal::Busy { retry } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, &refusal).after(*retry)
            }
        }
    }
}

impl From<CacheError> for Problem {
    fn from(error: CacheError) -> Self {
        let origin = match error {
            CacheError::Absent { .. } => Some(CacheStatus::Negative),
            // That is about the request: what it asked for may well be stored. And a write is no question to the cache.
            CacheError::Unsatisfiable { .. }
            | CacheError::Upload { .. }
            | CacheError::NoSession
            | CacheError::Circle { .. }
            | CacheError::BodyLost(_) => None,
            _ => Some(CacheStatus::Miss),
        };
        Self { origin, ..Self::of_cache(error) }
    }
}

impl Problem {
    fn of_cache(error: CacheError) -> Self {
        match error {
            CacheError::Upstream(error) => Self::of_upstream(&error).in_words_of(&error),
            CacheError::Upload { error, range } => Self { range, ..Self::of_upstream(&error).in_words_of(&error) },
            CacheError::NoSession => Self::new(StatusCode::NOT_FOUND, Code::BlobUploadUnknown, &error),
            CacheError::BodyLost(BodyLost::Broken(_)) => {
                Self::new(StatusCode::BAD_REQUEST, Code::BlobUploadInvalid, &error)
            }
            CacheError::BodyLost(BodyLost::Stalled(_)) => {
                Self::new(StatusCode::REQUEST_TIMEOUT, Code::BlobUploadInvalid, &error)
            }
            CacheError::Absent { code, message } => {
                Self { code, ..Self::new(StatusCode::NOT_FOUND, Code::Unknown, &message) }
            }
            CacheError::Sealed { code, .. } => Self::new(StatusCode::NOT_FOUND, code, &error),
            CacheError::ReadOnly { .. } => Self::new(StatusCode::FORBIDDEN, Code::Denied, &error),
            CacheError::Circle { .. } => Self::new(StatusCode::LOOP_DETECTED, Code::Denied, &error),
            CacheError::TooOld { .. } | CacheError::Slow { .. } => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, Code::Unknown, &error)
            }
            CacheError::Unsatisfiable { length } => {
                Self { length: Some(length), ..Self::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::Unknown, &error) }
            }
            CacheError::Busy { retry, .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, &error).after(retry)
            }
            CacheError::BodyLost(BodyLost::Copy(_))
            | CacheError::TooMany { .. }
            | CacheError::Mismatch { .. }
            | CacheError::Unreadable { .. }
            | CacheError::UnknownUpstream { .. }
            | CacheError::OthersFailed { .. }
            | CacheError::NoRandomness
            | CacheError::Aborted => Self::new(StatusCode::BAD_GATEWAY, Code::Unknown, &error),
            CacheError::Store(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, &error),
        }
    }

    /// The same, with all that upstream said.
    fn in_words_of(self, error: &UpstreamError) -> Self {
        Self { said: error.said().to_vec(), ..self }
    }

    /// Connection trouble is 502 or 504, never 404 (containerd tries its next host, oras and regctl try again) and never 401
    /// (which would send clients looking for a login that is larder's to have).
    fn of_upstream(error: &UpstreamError) -> Self {
        let as_is = |status, code| Self::new(status, code, error);
        match error.kind() {
            // An answer to HEAD has no words of its own.
            ErrorKind::NotFound { code, message } if message.is_empty() => {
                Self { code: code.clone(), ..as_is(StatusCode::NOT_FOUND, Code::Unknown) }
            }
            ErrorKind::NotFound { code, message } => {
                Self { code: code.clone(), ..Self::new(StatusCode::NOT_FOUND, Code::Unknown, message) }
            }
            ErrorKind::Unreachable | ErrorKind::Timeout => as_is(StatusCode::GATEWAY_TIMEOUT, Code::Unknown),
            ErrorKind::Tls
            | ErrorKind::ServerError(_)
            | ErrorKind::Foreign
            | ErrorKind::TooLarge
            | ErrorKind::Interrupted => as_is(StatusCode::BAD_GATEWAY, Code::Unknown),
            ErrorKind::Throttled { retry_after } => {
                as_is(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests).after(retry_after.unwrap_or(RETRY_AFTER))
            }
            ErrorKind::RepositoryRefused { code, .. } if !code.is_empty() && code != Code::Unauthorized.as_str() => {
                Self { code: code.clone(), ..as_is(StatusCode::FORBIDDEN, Code::Denied) }
            }
            ErrorKind::Firewall { .. } | ErrorKind::CredentialRefused { .. } | ErrorKind::RepositoryRefused { .. } => {
                as_is(StatusCode::FORBIDDEN, Code::Denied)
            }
            ErrorKind::Rejected { status, code, .. } => {
                let status = StatusCode::from_u16(*status).ok().filter(StatusCode::is_client_error);
                let status = status.filter(|status| *status != StatusCode::UNAUTHORIZED);
                let problem = as_is(status.unwrap_or(StatusCode::FORBIDDEN), Code::Unknown);
                if code.is_empty() { problem } else { Self { code: code.clone(), ..problem } }
            }
        }
    }
}
