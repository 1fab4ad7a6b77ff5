//! Blob uploads: sessions whose `Location` moves with every chunk, the upload in one request, and the mount.
//!
//! A session is its `Location`: the signed `_state` in it names repository, session and offset. A write at any other
//! offset than the session's is refused; its status may be asked with an old one. Sessions belong to the replica that
//! began them.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, Method};
use percent_encoding::utf8_percent_encode;
use sha2::{Digest as _, Sha256};

use super::content::{digest, hex};
use super::intake::Intake;
use super::knobs::Mount;
use super::login::Request;
use super::reply::{self, Reply, quoted};
use super::route::{is_digest, value};
use super::signature::{self, QUERY};
use super::{Region, clock};

type Query = [(String, String)];

#[derive(Default)]
pub(super) struct Uploads(Mutex<HashMap<String, Upload>>);

struct Upload {
    name: String,
    replica: usize,
    started: u64,
    content: BytesMut,
    hash: Sha256,
}

impl Uploads {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Upload>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sessions that have been begun and not ended.
    pub(super) fn open(&self) -> usize {
        self.lock().len()
    }

    fn begin(&self, region: &Region<'_>, name: &str) -> String {
        let id = region.guid();
        let upload = Upload {
            name: name.to_owned(),
            replica: region.content.replica,
            started: clock::now(),
            content: BytesMut::new(),
            hash: Sha256::new(),
        };
        self.lock().insert(id.clone(), upload);
        id
    }

    /// Appends at an offset that must be the end: of two writers that race, one is refused.
    fn append(&self, id: &str, at: u64, piece: &[u8]) -> bool {
        let mut all = self.lock();
        let Some(upload) = all.get_mut(id).filter(|upload| upload.content.len() as u64 == at) else { return false };
        upload.hash.update(piece);
        upload.content.extend_from_slice(piece);
        true
    }

    fn end(&self, id: &str) -> Option<Upload> {
        self.lock().remove(id)
    }
}

impl Upload {
    /// What was uploaded, if its digest is this one.
    fn verified(self, wanted: &str) -> Option<Bytes> {
        let content = self.content.freeze();
        let is = match wanted.split_once(':') {
            Some(("sha256", encoded)) => hex(&self.hash.finalize()) == encoded,
            Some((algorithm, _)) => digest(&content, algorithm) == wanted,
            None => false,
        };
        is.then_some(content)
    }
}

/// Everything under `/v2/NAME/blobs/uploads/`.
pub(super) async fn answer(
    region: &Region<'_>,
    (name, id): (&str, &str),
    query: &Query,
    request: &Request<'_>,
    body: &mut Intake,
) -> io::Result<Reply> {
    if id.is_empty() {
        return match *request.method {
            Method::POST => start(region, name, query, body).await,
            _ => Ok(reply::unsupported()),
        };
    }
    let offset = match offset(region, name, id, query) {
        Ok(offset) => offset,
        Err(refused) => return Ok(refused),
    };
    match *request.method {
        Method::GET => Ok(session(region, 204, name, id)),
        Method::DELETE => {
            region.uploads.end(id);
            Ok(reply::bare(204))
        }
        Method::PATCH | Method::PUT => {
            if let Err(refused) = in_sequence(region, id, offset, request.headers) {
                return Ok(refused);
            }
            if !append(region, id, offset, body).await? {
                return Ok(invalid());
            }
            Ok(match *request.method {
                Method::PATCH => session(region, 202, name, id),
                _ => finish(region, name, id, value(query, "digest")),
            })
        }
        _ => Ok(reply::unsupported()),
    }
}

/// `POST`: a mount, a whole blob, or a new session.
async fn start(region: &Region<'_>, name: &str, query: &Query, body: &mut Intake) -> io::Result<Reply> {
    if let Some(mounted) = value(query, "mount").and_then(|digest| mount(region, name, digest, value(query, "from"))) {
        return Ok(mounted);
    }
    let id = region.uploads.begin(region, name);
    let whole = value(query, "digest").filter(|_| region.knobs.read(|k| k.single_post));
    if whole.is_none() {
        return Ok(session(region, 202, name, &id));
    }
    if !append(region, &id, 0, body).await? {
        return Ok(invalid());
    }
    Ok(finish(region, name, &id, whole))
}

fn mount(region: &Region<'_>, name: &str, digest: &str, from: Option<&str>) -> Option<Reply> {
    let content = match (region.knobs.read(|k| k.mount), from) {
        (Mount::Never, _) | (Mount::From, None) => None,
        (_, Some(from)) => region.content.blob(from, digest),
        (Mount::Anywhere, None) => region.content.any_blob(digest),
    }?;
    region.content.keep_blob(name, digest, content);
    Some(created(name, digest))
}

/// The offset that the request's `_state` speaks of, if it is this session's and the session is here.
fn offset(region: &Region<'_>, name: &str, id: &str, query: &Query) -> Result<u64, Reply> {
    let state = value(query, "_state").and_then(|sealed| signature::open(region, sealed)).ok_or_else(invalid)?;
    if state["Name"] != name || state["UUID"] != id {
        return Err(invalid());
    }
    let here = |upload: &Upload| upload.name == name && upload.replica == region.content.replica;
    if !region.uploads.lock().get(id).is_some_and(here) {
        return Err(reply::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry", None));
    }
    state["Offset"].as_u64().ok_or_else(invalid)
}

/// Whether a chunk continues the session: by its state first, by `Content-Range` if there is one.
fn in_sequence(region: &Region<'_>, id: &str, offset: u64, headers: &HeaderMap) -> Result<(), Reply> {
    if region.uploads.lock().get(id).is_none_or(|upload| upload.content.len() as u64 != offset) {
        return Err(invalid());
    }
    let Some(range) = headers.get(CONTENT_RANGE) else { return Ok(()) };
    let (first, last) = range
        .to_str()
        .ok()
        .and_then(parse_range)
        .ok_or_else(|| out_of_range("-1--1", "the Content-Range header format is invalid"))?;
    if first != offset || last < first {
        return Err(out_of_range(&format!("{first}-{last}"), "the Content-Range header does not continue the upload"));
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length != last - first + 1) {
        return Err(reply::error(400, "SIZE_INVALID", "provided length did not match content length", None));
    }
    Ok(())
}

/// `0-99`: no unit, both ends, digits only.
fn parse_range(range: &str) -> Option<(u64, u64)> {
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
    let (first, last) = range.split_once('-')?;
    Some((number(first)?, number(last)?))
}

async fn append(region: &Region<'_>, id: &str, mut at: u64, body: &mut Intake) -> io::Result<bool> {
    while let Some(piece) = body.next().await? {
        if !region.uploads.append(id, at, &piece) {
            return Ok(false);
        }
        at += piece.len() as u64;
    }
    Ok(true)
}

/// The session is over, whether or not the digest holds.
fn finish(region: &Region<'_>, name: &str, id: &str, digest: Option<&str>) -> Reply {
    let Some(upload) = region.uploads.end(id) else { return invalid() };
    let verified = digest.filter(|d| is_digest(d)).and_then(|d| Some((d, upload.verified(d)?)));
    let Some((digest, content)) = verified else { return reply::wrong_digest() };
    region.content.keep_blob(name, digest, content);
    created(name, digest)
}

fn created(name: &str, digest: &str) -> Reply {
    let mut created = reply::empty(201);
    reply::set(&mut created, "location", &format!("/v2/{name}/blobs/{digest}"));
    reply::set(&mut created, "docker-content-digest", digest);
    created
}

/// Where the session goes on from here.
fn session(region: &Region<'_>, status: u16, name: &str, id: &str) -> Reply {
    let found = region.uploads.lock().get(id).map(|upload| (upload.content.len() as u64, upload.started));
    let Some((offset, started)) = found else { return invalid() };
    let state = format!(
        "{{\"Name\":{},\"UUID\":\"{id}\",\"Offset\":{offset},\"StartedAt\":\"{}\"}}",
        quoted(name),
        clock::rfc3339(started)
    );
    let sealed = signature::seal(region, &state);
    let state = utf8_percent_encode(&sealed, QUERY);
    let mut answer = if status == 204 { reply::bare(204) } else { reply::empty(status) };
    let location = format!("/v2/{name}/blobs/uploads/{id}?_nouploadcache=false&_state={state}");
    reply::set(&mut answer, "location", &location);
    reply::set(&mut answer, "docker-upload-uuid", id);
    reply::set(&mut answer, "range", &format!("0-{}", offset.saturating_sub(1)));
    if let Some(least) = region.knobs.read(|k| k.chunk_min_length) {
        reply::set(&mut answer, "oci-chunk-min-length", &least.to_string());
    }
    answer
}

fn invalid() -> Reply {
    reply::error(404, "BLOB_UPLOAD_INVALID", "blob upload invalid", None)
}

fn out_of_range(range: &str, reason: &str) -> Reply {
    let detail = format!("{{\"Range\":\"{range}\",\"Reason\":\"{reason}\"}}");
    reply::error(416, "BLOB_UPLOAD_RANGE_INVALID", "blob upload range invalid", Some(&detail))
}
