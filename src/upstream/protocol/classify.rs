//! What an answer that is no success means.
//!
//! The question that matters is who speaks: a registry's 404 is a fact about content, a portal's is an outage. A speaker of
//! the protocol is known by `Docker-Distribution-Api-Version` or by the protocol's JSON.

use super::answer::Answer;
use super::error_body::ErrorBody;
use crate::upstream::error::{ErrorKind, Failure};
use crate::upstream::limits::op::{ConnectionClass, Op};
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use std::time::{Duration, SystemTime};

/// More than any registry says in an error.
pub(in crate::upstream) const MAX_ERROR: usize = 64 << 10;
const API_VERSION: &str = "docker-distribution-api-version";

/// Whether the head alone shows that a registry speaks.
pub(in crate::upstream) fn is_speaker(headers: &HeaderMap) -> bool {
    headers.contains_key(API_VERSION)
}

/// Whether the answer is a page for people.
pub(in crate::upstream) fn is_page(headers: &HeaderMap) -> bool {
    is_of_type(headers, "text/html")
}

/// Whether the answer says that it is JSON.
pub(in crate::upstream) fn is_json(headers: &HeaderMap) -> bool {
    is_of_type(headers, "application/json")
}

fn is_of_type(headers: &HeaderMap, media_type: &str) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with(media_type)
}

/// Turns an answer without success into a failure. `identity` is who asked, `None` for a request without credential.
pub(in crate::upstream) async fn failure(op: Op, answer: Answer, identity: Option<&str>) -> Failure {
    let (status, origin) = (answer.status, answer.origin.to_string());
    let retry_after = answer.retry_after;
    let api = is_speaker(&answer.headers);
    let page = is_page(&answer.headers);
    let correlation = correlation(&answer.headers);
    if !status.is_client_error() && !status.is_server_error() {
        let to = answer.header(LOCATION).and_then(|to| to.parse::<http::Uri>().ok());
        let to = to.and_then(|to| to.host().map(|host| format!(" leading to {host}"))).unwrap_or_default();
        return Failure::foreign(format!("{origin} answered {status}{to}, which no registry does here; {LOOK}"));
    }
    let said = ErrorBody::read(&answer.collect(MAX_ERROR).await.unwrap_or_default());
    let words = said.as_ref().map(|said| format!(" ({}: {})", said.code, said.message)).unwrap_or_default();
    let words = format!("{words}{correlation}");
    if status == StatusCode::TOO_MANY_REQUESTS {
        let later = retry_after.map(|after| format!(", wants to be left alone for {} s", after.as_secs()));
        let reason = format!("{origin} throttles{}{words}", later.unwrap_or_default());
        return Failure::new(ErrorKind::Throttled { retry_after }, reason);
    }
    if status.is_server_error() {
        return Failure::new(ErrorKind::ServerError(status.as_u16()), format!("{origin} answered {status}{words}"));
    }
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        let reason = format!("the proxy before {origin} wants a login; write it into HTTPS_PROXY or HTTP_PROXY");
        return Failure::new(ErrorKind::Unreachable, reason);
    }
    // Storage answers in words of its own; only who holds the content knows that a range lies outside it.
    let outside = status == StatusCode::RANGE_NOT_SATISFIABLE && matches!(op, Op::BlobGet | Op::BlobStorage);
    // A proxy before the registry may set the limit: it holds as well.
    let too_large = status == StatusCode::PAYLOAD_TOO_LARGE && op.connection_class() == ConnectionClass::Upload;
    if (page || !api && said.is_none()) && !outside && !too_large {
        return Failure::foreign(format!(
            "{origin} answered {status}, but not as a registry does{correlation}; {LOOK}"
        ));
    }
    let said = said.unwrap_or_else(|| ErrorBody::nothing_but(default_code(op, status)));
    spoken(op, status, &origin, said, &words, identity)
}

pub(in crate::upstream) const LOOK: &str = "look for a portal, a filter or a wrong address in between";

/// A refusal by a speaker of the protocol.
fn spoken(op: Op, status: StatusCode, origin: &str, said: ErrorBody, words: &str, identity: Option<&str>) -> Failure {
    let who = identity.unwrap_or("anonymous");
    let is_firewall = said.is_firewall();
    let ErrorBody { code, message, about, errors } = said;
    let (kind, reason) = match status {
        StatusCode::NOT_FOUND => (ErrorKind::NotFound { code, message }, format!("{origin} does not have it{words}")),
        StatusCode::FORBIDDEN if is_firewall => {
            let reason = format!("the firewall of {origin} does not let this address in{words}");
            (ErrorKind::Firewall { message }, reason)
        }
        // Not for want of a right, but of room, say: no right would help.
        StatusCode::FORBIDDEN if !is_about_rights(&code) => {
            (ErrorKind::RepositoryRefused { code, message }, format!("{origin} refuses it to {who}{words}"))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            (ErrorKind::RepositoryRefused { code, message }, refusal(op, origin, who, words))
        }
        _ => {
            let kind = ErrorKind::Rejected { status: status.as_u16(), code, message, about };
            (kind, format!("{origin} answered {status}{words}"))
        }
    };
    Failure::new(kind, reason).saying(errors)
}

fn is_about_rights(code: &str) -> bool {
    matches!(code, "DENIED" | "UNAUTHORIZED" | "UNKNOWN")
}

/// The sentence for a login without the right to a repository; `words` are the registry's own.
pub(in crate::upstream) fn refusal(op: Op, origin: &str, who: &str, words: &str) -> String {
    let deed = op.deed();
    let remedy = match who {
        "anonymous" => format!("configure a login that may {deed} ([upstream.credential], or --login)"),
        _ => format!("grant that login the right to {deed}"),
    };
    format!("{origin} refuses it to {who}{words}; {remedy}")
}

/// The code that the specification has for such an answer, where the registry gave none.
fn default_code(op: Op, status: StatusCode) -> &'static str {
    match (status, op) {
        (StatusCode::NOT_FOUND, Op::ManifestHead | Op::ManifestGet | Op::ManifestDelete) => "MANIFEST_UNKNOWN",
        (StatusCode::NOT_FOUND, Op::BlobHead | Op::BlobGet | Op::BlobStorage | Op::BlobDelete) => "BLOB_UNKNOWN",
        (StatusCode::NOT_FOUND, Op::Tags | Op::ManifestPut | Op::UploadStart) => "NAME_UNKNOWN",
        (StatusCode::NOT_FOUND, Op::UploadChunk | Op::UploadEnd | Op::UploadStatus | Op::UploadCancel) => {
            "BLOB_UPLOAD_UNKNOWN"
        }
        (StatusCode::PAYLOAD_TOO_LARGE, _) => "SIZE_INVALID",
        (StatusCode::UNAUTHORIZED, _) => "UNAUTHORIZED",
        (StatusCode::FORBIDDEN, _) => "DENIED",
        _ => "UNKNOWN",
    }
}

/// The number that Microsoft's support asks for.
pub(in crate::upstream) fn correlation(headers: &HeaderMap) -> String {
    let number = headers.get("x-ms-correlation-request-id").and_then(|value| value.to_str().ok());
    number.map(|number| format!(" [x-ms-correlation-request-id {number}]")).unwrap_or_default()
}

/// Seconds or a date (RFC 9110, section 10.2.3), at most an hour.
pub(in crate::upstream) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO),
    };
    Some(wait.min(Duration::from_secs(3600)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_in_both_forms() {
        let after = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(after("50"), Some(Duration::from_secs(50)));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(30));
        assert!((25..=30).contains(&after(&date).unwrap().as_secs()));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(after("soon"), None);
        assert_eq!(after("99999999"), Some(Duration::from_secs(3600)));
    }
}
