//! Manifests by tag or digest: byte for byte, in their own type, and only to a client that lists this type.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};

use super::Region;
use super::body::Body;
use super::reply::{self, NotFound, Reply};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";

pub(super) fn answer(state: &Region<'_>, name: &str, reference: &str, headers: &HeaderMap) -> Reply {
    let Some((digest, manifest)) = state.content.manifest(name, reference) else {
        return reply::not_found(&if reference.contains(':') {
            NotFound::Manifest { name, digest: reference }
        } else {
            NotFound::Tag(reference)
        });
    };
    if state.content.with(name, |r| r.attributes_of(reference).read) == Some(false) {
        return reply::disallowed();
    }
    if let Some(refusal) = unaccepted(&manifest.media_type, headers) {
        state.log.violation(format!(
            "{name}:{reference} is {}, which the request's Accept does not list",
            manifest.media_type
        ));
        return reply::not_found(&NotFound::AcceptLacks(refusal));
    }
    let knobs = state.knobs.get();
    let unchanged = knobs.not_modified && if_none_match(headers, &digest);
    let mut answer = reply::bare(if unchanged { 304 } else { 200 });
    if knobs.manifest_digest {
        reply::set(&mut answer, "docker-content-digest", &digest);
    }
    if knobs.manifest_etag {
        reply::set(&mut answer, ETAG.as_str(), &format!("\"{digest}\""));
    }
    if !unchanged {
        let parameter = if knobs.manifest_charset { "; charset=utf-8" } else { "" };
        reply::set(&mut answer, CONTENT_TYPE.as_str(), &format!("{}{parameter}", manifest.media_type));
        reply::set(&mut answer, CONTENT_LENGTH.as_str(), &manifest.content.len().to_string());
        *answer.body_mut() = Body::of(manifest.content);
    }
    answer
}

/// The sentence that refuses, if the type is one that must be listed literally (`*/*` does not help, `q` is not read).
fn unaccepted(media_type: &str, headers: &HeaderMap) -> Option<&'static str> {
    let refusal = match media_type {
        OCI_MANIFEST => "OCI manifest found, but accept header does not support OCI manifests",
        OCI_INDEX => "OCI index found, but accept header does not support OCI indexes",
        OCI_ARTIFACT => "OCI artifact found, but accept header does not support OCI artifacts",
        _ => return None,
    };
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let mut listed = lines.flat_map(|line| line.split(',')).filter_map(|entry| entry.split(';').next());
    (!listed.any(|entry| entry.trim() == media_type)).then_some(refusal)
}

fn if_none_match(headers: &HeaderMap, digest: &str) -> bool {
    let lines = headers.get_all(IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|tag| tag.trim().trim_matches('"') == digest)
}
