//! What identity services answer: a token with its life, or an error in Entra's form.

use super::Minted;
use super::door::Reply;
use crate::upstream::auth::jwt;
use crate::upstream::auth::secret::Secret;
use crate::upstream::error::{ErrorKind, Failure};
use crate::upstream::protocol::classify;
use http::StatusCode;
use http::header::DATE;
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// A token that does not say how long it lives, or seems dead on arrival since one of the clocks is wrong, is used for this long.
const UNSAID: Duration = Duration::from_secs(60);
/// No token lives longer; beyond it a number is a mistake.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(serde::Deserialize)]
struct Answered {
    #[serde(rename = "access_token")]
    token: String,
    expires_in: Option<Value>,
    expires_on: Option<Value>,
}

/// An error in the form that Entra and IMDS share.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct IdentityAnswer {
    pub(super) error: String,
    error_description: String,
    error_codes: Vec<u64>,
    /// App Service's word for it.
    message: String,
    correlation_id: String,
}

impl IdentityAnswer {
    pub(super) fn of(reply: &Reply) -> Option<Self> {
        let said: Self = serde_json::from_slice(&reply.body).ok()?;
        (![&said.error, &said.error_description, &said.message].iter().all(|text| text.is_empty())).then_some(said)
    }

    /// Entra's number of the error: `AADSTS700016` is 700016.
    pub(super) fn code(&self) -> u64 {
        let written = self.error_description.strip_prefix("AADSTS").map(|rest| {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..digits].parse().unwrap_or_default()
        });
        self.error_codes.first().copied().or(written).unwrap_or_default()
    }

    /// The first line, short; what follows are ids and times.
    pub(super) fn words(&self) -> String {
        let texts = [&self.error_description, &self.message, &self.error];
        let line = texts.into_iter().find_map(|text| text.lines().next()).unwrap_or_default();
        let line: String = line.chars().filter(|c| !c.is_control()).take(300).collect();
        let plain = self.correlation_id.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        match self.correlation_id.as_str() {
            "" => line,
            id if plain && id.len() <= 64 => format!("{line} [correlation id {id}]"),
            _ => line,
        }
    }
}

/// The token of a 200.
pub(super) fn minted(reply: &Reply) -> Result<Minted, Failure> {
    let none = || Failure::foreign(format!("{} answered 200, but without a token; {}", reply.host, classify::LOOK));
    let token: Answered = serde_json::from_slice(&reply.body).map_err(|_| none())?;
    if token.token.is_empty() {
        return Err(none());
    }
    let life = life(&token, reply);
    Ok(Minted { secret: Secret::new(token.token), life, asked: reply.asked })
}

/// From the moment it was given. The service's own clock, where it tells it, is what its absolute times are compared with.
fn life(token: &Answered, reply: &Reply) -> Duration {
    let number = |value: &Option<Value>| match value {
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(value) => value.as_u64(),
        None => None,
    };
    let now = reply.header(DATE).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or_else(SystemTime::now);
    let from_end = || {
        let end = number(&token.expires_on).and_then(|at| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at)));
        end.or_else(|| jwt::expires(&token.token))?.duration_since(now).ok()
    };
    let said = number(&token.expires_in).filter(|seconds| *seconds > 0).map(Duration::from_secs);
    said.or_else(from_end).filter(|life| !life.is_zero()).unwrap_or(UNSAID).min(LONGEST)
}

/// An answer that is neither a token nor a refusal that names its reason: the service is not well, or it is not the service.
pub(super) fn trouble(reply: &Reply, what: &str) -> Failure {
    let (status, host) = (reply.status, &reply.host);
    let retry_after = classify::retry_after(&reply.headers);
    let words = IdentityAnswer::of(reply).map(|said| format!(" ({})", said.words())).unwrap_or_default();
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Failure::new(ErrorKind::Throttled { retry_after }, format!("{what}: {host} throttles{words}"));
    }
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        let reason = format!("{what}: the proxy before {host} wants a login; write it into HTTPS_PROXY");
        return Failure::new(ErrorKind::Unreachable, reason);
    }
    if status.is_server_error() || matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
        let code = if status.is_server_error() { status.as_u16() } else { 503 };
        return Failure::new(ErrorKind::ServerError(code), format!("{what}: {host} answered {status}{words}"));
    }
    let reason = format!("{what}: {host} answered {status}, but not as an identity service does; {}", classify::LOOK);
    Failure::foreign(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use tokio::time::Instant;

    fn reply(status: u16, date: Option<&str>, body: &str) -> Reply {
        let mut headers = HeaderMap::new();
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        let (status, body) = (StatusCode::from_u16(status).unwrap(), body.to_owned().into());
        Reply { status, headers, body, host: "login".to_owned(), asked: Instant::now() }
    }

    #[test]
    fn lives_in_every_form() {
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        let life = |date, rest: &str| {
            minted(&reply(200, date, &format!(r#"{{"access_token":"t"{rest}}}"#))).unwrap().life.as_secs()
        };
        assert_eq!(life(None, r#","expires_in":3599"#), 3599);
        assert_eq!(life(None, r#","expires_in":"5""#), 5);
        assert_eq!(life(date, r#","expires_on":"784111787""#), 10, "by the service's clock, not by ours");
        assert_eq!(life(date, r#","expires_on":784111787"#), 10);
        assert_eq!(life(None, r#","expires_on":"1""#), 60, "one of the clocks is wrong");
        assert_eq!(life(None, ""), 60);
        assert_eq!(life(None, r#","expires_in":18446744073709551615"#), LONGEST.as_secs());
        let soon = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 100;
        assert!((97..=100).contains(&life(None, &format!(r#","expires_on":"{soon}""#))));
        for body in ["", "{}", "<html>", r#"{"access_token":""}"#] {
            assert_eq!(minted(&reply(200, None, body)).err().unwrap().kind, ErrorKind::Foreign, "{body}");
        }
    }

    #[test]
    fn errors_are_told_from_portals() {
        let said = IdentityAnswer::of(&reply(
            401,
            None,
            r#"{"error":"x","error_description":"AADSTS7000215: No.\r\nTrace ID: 1"}"#,
        ));
        let said = said.unwrap();
        assert_eq!((said.code(), said.words().as_str()), (7_000_215, "AADSTS7000215: No."));
        assert!(IdentityAnswer::of(&reply(401, None, "<html>")).is_none());
        assert_eq!(trouble(&reply(403, None, "<html>"), "step").kind, ErrorKind::Foreign);
        assert_eq!(trouble(&reply(302, None, ""), "step").kind, ErrorKind::Foreign);
        assert_eq!(trouble(&reply(410, None, ""), "step").kind, ErrorKind::ServerError(503));
        assert!(matches!(trouble(&reply(429, None, ""), "step").kind, ErrorKind::Throttled { .. }));
    }
}
