//! What a request says outside its path: query, `Host`, `Range`.

use crate::oci::{Ranges, TooManyRanges};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// The value of a query parameter, decoded. `+` stays: no value of this API has a space.
#[must_use]
pub(in crate::server) fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let raw = query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode_str(key).decode_utf8().ok()? == name).then_some(value)
    })?;
    percent_decode_str(raw).decode_utf8().ok()
}

/// The `Host` value without its port; an IPv6 address keeps its brackets.
#[must_use]
pub(in crate::server) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((bare, port))
            if !bare.ends_with(':') && port.bytes().all(|b| b.is_ascii_digit()) && !unbracketed(bare) =>
        {
            bare
        }
        _ => host,
    }
}

fn unbracketed(host: &str) -> bool {
    host.contains(':') && !host.starts_with('[')
}

/// The parts of a blob that the lines of `Range` ask for; `None`: all of it.
///
/// # Errors
/// [`TooManyRanges`].
pub(in crate::server) fn ranges(headers: &http::HeaderMap) -> Result<Option<Ranges>, TooManyRanges> {
    // No validator is ever sent, so one that a client names cannot match, and the whole content is due.
    if headers.contains_key(http::header::IF_RANGE) {
        return Ok(None);
    }
    let lines = headers.get_all(http::header::RANGE).iter().map(|line| line.to_str().ok());
    Ranges::parse(lines.collect::<Option<Vec<_>>>().unwrap_or_default())
}
