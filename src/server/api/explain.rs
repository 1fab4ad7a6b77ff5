//! How an answer explains itself: `Cache-Status` (RFC 9211) and `Warning`, from the same word as the log line and the metric.

use crate::cache::Provenance;
use crate::telemetry::CacheStatus;
use http::HeaderValue;

/// Longest warning, in bytes: the specification's limit is 4096 for all of the header.
const WARNING: usize = 1024;

/// The value of `Cache-Status`. The word is `hit`, or the value of `fwd`, or `detail`.
pub(in crate::server) fn cache_status(provenance: &Provenance) -> HeaderValue {
    let fixed = match provenance.status {
        _ if provenance.behind.is_some() => None,
        CacheStatus::Hit if provenance.ttl.is_none() => Some("larder; hit"),
        CacheStatus::Miss if provenance.stored && provenance.ttl.is_none() && !provenance.unverified => {
            Some("larder; fwd=miss; stored")
        }
        CacheStatus::Negative => Some("larder; hit; detail=negative"),
        _ => None,
    };
    fixed.map_or_else(|| composed(provenance), HeaderValue::from_static)
}

fn composed(provenance: &Provenance) -> HeaderValue {
    let mut text = String::from(match provenance.status {
        CacheStatus::Hit | CacheStatus::Negative => "larder; hit",
        CacheStatus::Miss => "larder; fwd=miss",
        CacheStatus::Coalesced => "larder; fwd=miss; collapsed",
        CacheStatus::Stale | CacheStatus::Revalidated => "larder; fwd=stale",
        CacheStatus::Bypass => "larder; fwd=bypass",
    });
    if provenance.stored {
        text.push_str("; stored");
    }
    if let Some(ttl) = provenance.ttl.filter(|ttl| *ttl != i64::MIN) {
        text.push_str("; ttl=");
        text.push_str(&ttl.to_string());
    }
    let detail = match provenance.status {
        _ if provenance.unverified => Some("unverified"),
        CacheStatus::Coalesced => Some("coalesced"),
        CacheStatus::Stale => Some("stale"),
        CacheStatus::Revalidated => Some("revalidated"),
        _ => None,
    };
    if let Some(detail) = detail {
        text.push_str("; detail=");
        text.push_str(detail);
    }
    if let Some(behind) = &provenance.behind {
        // The cache that is nearest to the client comes last (RFC 9211, 2).
        text = format!("{behind}, {text}");
    }
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("larder"))
}

/// The value of `Warning`, which ORAS and regctl print: set where the stored answer stands in for an upstream that fails.
pub(in crate::server) fn warning(provenance: &Provenance) -> Option<HeaderValue> {
    let outage = provenance.outage.as_deref()?;
    warning_text(&format!("stored copy, not confirmed by upstream: {outage}"))
}

/// A value of `Warning` that says `text`.
pub(in crate::server) fn warning_text(text: &str) -> Option<HeaderValue> {
    let mut text: String = text
        .chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .map(|c| if c == '"' || c == '\\' { '\'' } else { c })
        .collect();
    text.truncate(WARNING);
    HeaderValue::try_from(format!("299 - \"{text}\"")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provenance(status: CacheStatus) -> Provenance {
        Provenance { status, stored: false, ttl: None, outage: None, behind: None, unverified: false }
    }

    #[test]
    fn each_word_can_be_read_from_the_header() {
        let text = |p: &Provenance| cache_status(p).to_str().unwrap().to_owned();
        assert_eq!(text(&provenance(CacheStatus::Hit)), "larder; hit");
        assert_eq!(text(&Provenance { ttl: Some(7), ..provenance(CacheStatus::Hit) }), "larder; hit; ttl=7");
        let stored = |status| Provenance { stored: true, ..provenance(status) };
        assert_eq!(text(&stored(CacheStatus::Miss)), "larder; fwd=miss; stored");
        assert_eq!(text(&stored(CacheStatus::Coalesced)), "larder; fwd=miss; collapsed; stored; detail=coalesced");
        let stale = Provenance { ttl: Some(-30), ..provenance(CacheStatus::Stale) };
        assert_eq!(text(&stale), "larder; fwd=stale; ttl=-30; detail=stale");
        let range = Provenance { unverified: true, ..provenance(CacheStatus::Bypass) };
        assert_eq!(text(&range), "larder; fwd=bypass; detail=unverified");
        let behind = Some("larder; hit; ttl=7".into());
        let through = Provenance { behind, ..stored(CacheStatus::Miss) };
        assert_eq!(text(&through), "larder; hit; ttl=7, larder; fwd=miss; stored");
        for status in CacheStatus::ALL {
            assert!(text(&stored(status)).contains(status.as_str()), "{status}");
        }
    }

    #[test]
    fn a_warning_is_one_quoted_string_whatever_upstream_said() {
        assert_eq!(warning(&provenance(CacheStatus::Hit)), None);
        let outage = Some("it said \"no\"\r\nX: y — \\".into());
        let value = warning(&Provenance { outage, ..provenance(CacheStatus::Stale) }).unwrap();
        assert_eq!(value, "299 - \"stored copy, not confirmed by upstream: it said 'no'X: y  '\"");
    }
}
