//! Blobs at the login server, and the bytes of a blob wherever they are served: ranges, damage, pace.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{HeaderMap, Method};

use super::body::{Body, End, Pace};
use super::effects::Pending;
use super::faults::{Damage, DamageKind};
use super::knobs::Redirect;
use super::reply::{self, NotFound, Reply};
use super::signature;
use super::{Region, State};

/// `GET` or `HEAD /v2/NAME/blobs/DIGEST`: a redirect for GET, the length for HEAD.
pub(super) fn answer(state: &Region<'_>, name: &str, digest: &str, method: &Method, headers: &HeaderMap) -> Reply {
    let Some(content) = state.content.blob(name, digest) else {
        return reply::not_found(&NotFound::Blob(digest));
    };
    let redirect = state.knobs.read(|k| k.redirect);
    let mut answer = if *method == Method::HEAD {
        let mut head = reply::bare(200);
        reply::set(&mut head, CONTENT_TYPE.as_str(), "application/octet-stream");
        reply::set(&mut head, CONTENT_LENGTH.as_str(), &content.len().to_string());
        head
    } else if redirect == Redirect::Direct {
        direct(state, digest, &content, headers)
    } else {
        let target = match redirect {
            Redirect::DataEndpoint => signature::data_endpoint(state, name, digest),
            _ => signature::sas(state, digest),
        };
        temporary_redirect(&format!("{}://{}{target}", state.scheme(), state.storage_host()))
    };
    reply::set(&mut answer, "docker-content-digest", digest);
    answer
}

/// 307 as Go's `http.Redirect` words it.
fn temporary_redirect(location: &str) -> Reply {
    let escaped = location.replace('&', "&amp;");
    let body = format!("<a href=\"{escaped}\">Temporary Redirect</a>.\n\n");
    let mut redirect = reply::text(307, "text/html; charset=utf-8", body);
    reply::set(&mut redirect, LOCATION.as_str(), location);
    redirect
}

/// The bytes from the login server itself.
fn direct(state: &State, digest: &str, content: &Bytes, headers: &HeaderMap) -> Reply {
    match wanted(state, headers, content.len() as u64, true) {
        Wanted::Unsatisfiable => {
            let mut refused = reply::text(416, "text/plain; charset=utf-8", "invalid range: failed to overlap\n");
            reply::set(&mut refused, CONTENT_RANGE.as_str(), &format!("bytes */{}", content.len()));
            refused
        }
        wanted => serve(state, digest, content, &wanted),
    }
}

/// The part of a blob that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Whole,
    Part(Range<u64>),
    Unsatisfiable,
}

/// Reads `Range`. What it cannot read, several ranges, and (at storage) a suffix mean the whole blob.
pub(super) fn wanted(state: &State, headers: &HeaderMap, length: u64, suffixes: bool) -> Wanted {
    if !state.knobs.read(|k| k.ranges) {
        if headers.contains_key(RANGE) {
            state.effects.count("range ignored");
        }
        return Wanted::Whole;
    }
    headers.get(RANGE).and_then(|v| v.to_str().ok()).and_then(|v| parse(v, length, suffixes)).unwrap_or(Wanted::Whole)
}

fn parse(range: &str, length: u64, suffixes: bool) -> Option<Wanted> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let suffix: u64 = last.parse().ok().filter(|_| suffixes)?;
        return Some(if suffix == 0 || length == 0 {
            Wanted::Unsatisfiable
        } else {
            Wanted::Part(length.saturating_sub(suffix)..length)
        });
    }
    let first: u64 = first.parse().ok()?;
    let end = if last.is_empty() { length } else { last.parse::<u64>().ok()?.saturating_add(1).min(length) };
    let backwards = !last.is_empty() && last.parse::<u64>().is_ok_and(|last| last < first);
    Some(if backwards || first >= length { Wanted::Unsatisfiable } else { Wanted::Part(first..end) })
}

/// 200 or 206 with the bytes, as the knobs have them.
pub(super) fn serve(state: &State, digest: &str, content: &Bytes, wanted: &Wanted) -> Reply {
    let total = content.len() as u64;
    let (status, range) = match wanted {
        Wanted::Part(range) => (206, range.clone()),
        _ => (200, 0..total),
    };
    let damage = state.knobs.take_damage(digest, |damage| applies(damage, &range));
    let (segments, length, end) =
        damaged(content.slice(index(range.start)..index(range.end)), range.start, damage.as_ref());
    let mut answer = reply::bare(status);
    reply::set(&mut answer, ACCEPT_RANGES.as_str(), "bytes");
    reply::set(&mut answer, CONTENT_TYPE.as_str(), "application/octet-stream");
    if status == 206 {
        let value = format!("bytes {}-{}/{total}", range.start, range.end - 1);
        reply::set(&mut answer, CONTENT_RANGE.as_str(), &value);
    }
    let known = (!state.knobs.read(|k| k.chunked)).then_some(length);
    if let Some(length) = known {
        reply::set(&mut answer, CONTENT_LENGTH.as_str(), &length.to_string());
    }
    let pace = Pace::new(Arc::clone(&state.knobs), Arc::clone(&state.total_pace));
    let pending = damage.map(|damage| pending(state, digest, &damage, &range));
    *answer.body_mut() = Body::stream(segments, end, known, Some(pace)).suffering(pending);
    answer
}

fn applies(damage: &Damage, range: &Range<u64>) -> bool {
    match damage.kind {
        DamageKind::Flip => range.contains(&damage.at),
        DamageKind::Long => true,
        _ => damage.at < range.end - range.start,
    }
}

/// When `damage` of an answer with this range will have taken effect.
fn pending(state: &State, digest: &str, damage: &Damage, range: &Range<u64>) -> Pending {
    let after = match damage.kind {
        DamageKind::Flip => damage.at - range.start + 1,
        DamageKind::Long => range.end - range.start + damage.at,
        _ => damage.at,
    };
    if matches!(damage.kind, DamageKind::Short | DamageKind::Long) {
        state.effects.spoil(digest);
    }
    let spoils = (damage.kind == DamageKind::Flip).then(|| digest.to_owned());
    Pending { effects: Arc::clone(&state.effects), name: damage.kind.name(), after, spoils }
}

/// The segments to send, the length to promise, and the end.
fn damaged(content: Bytes, offset: u64, damage: Option<&Damage>) -> (VecDeque<Bytes>, u64, End) {
    let full = content.len() as u64;
    let Some(damage) = damage else { return (VecDeque::from([content]), full, End::Clean) };
    let cut = |end| (VecDeque::from([content.slice(..index(damage.at))]), full, end);
    match damage.kind {
        DamageKind::Cut => cut(End::Cut),
        DamageKind::Reset => cut(End::Reset),
        DamageKind::Stall => cut(End::Stall),
        DamageKind::Short => (VecDeque::from([content.slice(..index(damage.at))]), damage.at, End::Clean),
        DamageKind::Long => {
            (VecDeque::from([content, Bytes::from(vec![0; index(damage.at)])]), full + damage.at, End::Clean)
        }
        DamageKind::Flip => {
            let at = index(damage.at - offset);
            let wrong = Bytes::from(vec![content[at] ^ 1]);
            (VecDeque::from([content.slice(..at), wrong, content.slice(at + 1..)]), full, End::Clean)
        }
    }
}

/// Positions in memory fit an index.
fn index(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}
