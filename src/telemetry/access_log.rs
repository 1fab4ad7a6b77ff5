//! The line per request: a typed record and a formatter that allocates nothing.

use super::CacheStatus;
use super::line::{Format, LogFormat};
use std::net::IpAddr;
use std::time::Duration;
use tracing::Level;

/// What the log says about a request that has been answered. Fields that do not apply are left out of the line.
#[derive(Clone, Copy, Debug)]
pub struct AccessRecord<'a> {
    /// The request's method.
    pub method: &'a str,
    /// The kind of request, as in the metrics' `route` label.
    pub route: &'a str,
    /// The repository's name within its upstream.
    pub repository: Option<&'a str>,
    /// The upstream's canonical name.
    pub upstream: Option<&'a str>,
    /// The tag that was asked for.
    pub reference: Option<&'a str>,
    /// The digest that was asked for.
    pub digest: Option<&'a str>,
    /// The status code.
    pub status: u16,
    /// Where the answer came from.
    pub cache_status: Option<CacheStatus>,
    /// Body bytes sent.
    pub bytes: u64,
    /// From the request's head to the last byte of the answer.
    pub duration: Duration,
    /// From the request's head to the first byte of the answer.
    pub ttfb: Option<Duration>,
    /// The client's address; none on a Unix socket.
    pub client: Option<IpAddr>,
    /// What the client calls itself.
    pub user_agent: Option<&'a str>,
    /// The identifier that the client was told.
    pub request_id: Option<&'a str>,
    /// Why, where the status alone does not say.
    pub detail: Option<&'a str>,
}

pub(super) fn write(line: &mut Vec<u8>, format: LogFormat, record: &AccessRecord<'_>) {
    let out = Format::new(format);
    out.head(line, Level::INFO, if format == LogFormat::Json { "larder::access" } else { "" }, "request");
    out.str(line, "method", record.method);
    out.str(line, "route", record.route);
    let texts = [
        ("repo.name", record.repository),
        ("upstream", record.upstream),
        ("reference", record.reference),
        ("digest", record.digest),
    ];
    for (key, value) in texts {
        if let Some(value) = value {
            out.str(line, key, value);
        }
    }
    out.number(line, "status", record.status.into());
    if let Some(status) = record.cache_status {
        out.str(line, "cache_status", status.as_str());
    }
    out.number(line, "bytes", record.bytes);
    out.millis(line, "duration_ms", record.duration);
    if let Some(ttfb) = record.ttfb {
        out.millis(line, "ttfb_ms", ttfb);
    }
    if let Some(client) = record.client {
        out.address(line, "client", client);
    }
    for (key, value) in
        [("user_agent", record.user_agent), ("request_id", record.request_id), ("detail", record.detail)]
    {
        if let Some(value) = value {
            out.str(line, key, value);
        }
    }
    out.end(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> AccessRecord<'static> {
        AccessRecord {
            method: "GET",
            route: "blob",
            repository: Some("samples/config"),
            upstream: Some("myacr.azurecr.io"),
            reference: None,
            digest: Some("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            status: 200,
            cache_status: Some(CacheStatus::Hit),
            bytes: 1_048_576,
            duration: Duration::from_micros(1234),
            ttfb: Some(Duration::from_micros(99)),
            client: Some(IpAddr::from([127, 0, 0, 1])),
            user_agent: Some("oras/1.3.3 \"x\""),
            request_id: Some("0192f0c1"),
            detail: None,
        }
    }

    #[test]
    fn json_holds_every_field_under_its_name() {
        let mut line = Vec::new();
        write(&mut line, LogFormat::Json, &record());
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        for (key, expected) in [
            ("level", serde_json::json!("info")),
            ("message", "request".into()),
            ("method", "GET".into()),
            ("route", "blob".into()),
            ("repo.name", "samples/config".into()),
            ("upstream", "myacr.azurecr.io".into()),
            ("status", 200.into()),
            ("cache_status", "hit".into()),
            ("bytes", 1_048_576.into()),
            ("duration_ms", 1.234.into()),
            ("ttfb_ms", 0.099.into()),
            ("client", "127.0.0.1".into()),
            ("user_agent", "oras/1.3.3 \"x\"".into()),
            ("request_id", "0192f0c1".into()),
        ] {
            assert_eq!(value[key], expected, "{key}");
        }
        assert!(value.get("reference").is_none() && value.get("detail").is_none());
        assert!(value["ts"].as_str().is_some_and(|ts| humantime::parse_rfc3339(ts).is_ok()));
    }

    #[test]
    fn text_is_one_readable_line() {
        let mut line = Vec::new();
        write(&mut line, LogFormat::Text, &record());
        let text = String::from_utf8(line).unwrap();
        assert!(text.contains(" info request method=GET route=blob repo.name=samples/config "), "{text}");
        assert!(text.contains(r#"user_agent="oras/1.3.3 \"x\"""#) && text.ends_with("request_id=0192f0c1\n"), "{text}");
    }

    #[test]
    fn a_line_needs_no_allocation() {
        let mut line = Vec::with_capacity(1024);
        let before = line.as_ptr();
        write(&mut line, LogFormat::Json, &record());
        assert!(line.as_ptr() == before && line.len() < 600, "{} bytes", line.len());
    }
}
