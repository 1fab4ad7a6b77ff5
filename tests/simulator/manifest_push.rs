//! `PUT` of a manifest: kept byte for byte, whatever its type, once everything that it needs is there.
//!
//! Config, layers and children must be in the repository, unless the knob allows sparse manifests; a subject need not.

use std::io;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use super::Region;
use super::content::{Repository, digest};
use super::intake::Intake;
use super::reply::{self, Reply, quoted};

/// The largest manifest that the service takes.
pub const MAX_MANIFEST: usize = 4 * 1024 * 1024;

pub(super) async fn answer(
    region: &Region<'_>,
    name: &str,
    reference: &str,
    headers: &HeaderMap,
    body: &mut Intake,
) -> io::Result<Reply> {
    let Some(content) = body.collect(MAX_MANIFEST).await? else {
        let message = format!("manifest exceeds the maximum size of {MAX_MANIFEST} bytes");
        return Ok(reply::error(413, "SIZE_INVALID", &message, None));
    };
    let (algorithm, tag) = match reference.split_once(':') {
        Some((algorithm, _)) => (algorithm, None),
        None => ("sha256", Some(reference)),
    };
    let (media_type, json) = match read(&content, headers) {
        Ok(read) => read,
        Err(why) => return Ok(reply::error(400, "MANIFEST_INVALID", "manifest invalid", Some(&quoted(&why)))),
    };
    if tag.is_none() && digest(&content, algorithm) != reference {
        return Ok(reply::wrong_digest());
    }
    let judge = |r: &Repository| (r.attributes_of(reference).write, missing(r, &json));
    let (writable, missing) = region.content.with(name, judge).unwrap_or_else(|| judge(&Repository::default()));
    if !writable {
        return Ok(reply::disallowed());
    }
    if let Some(missing) = missing.filter(|_| !region.knobs.read(|k| k.sparse)) {
        let detail = quoted(&missing);
        return Ok(reply::error(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry", Some(&detail)));
    }
    let digest = region.content.push_manifest(name, tag, &media_type, content, algorithm);
    let mut created = reply::empty(201);
    reply::set(&mut created, "location", &format!("/v2/{name}/manifests/{digest}"));
    reply::set(&mut created, "docker-content-digest", &digest);
    let subject = json["subject"]["digest"].as_str();
    if let Some(subject) = subject.filter(|_| region.knobs.read(|k| k.oci_subject && k.referrers)) {
        reply::set(&mut created, "oci-subject", subject);
    }
    Ok(created)
}

/// The manifest and its type: the header's, which its own `mediaType` must not contradict.
fn read(content: &[u8], headers: &HeaderMap) -> Result<(String, Value), String> {
    let json: Value = serde_json::from_slice(content).map_err(|e| e.to_string())?;
    if !json.is_object() {
        return Err("a manifest is a JSON object".to_owned());
    }
    let header = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let header = header.map(|v| v.split(';').next().unwrap_or_default().trim());
    match (header.filter(|v| !v.is_empty()), json["mediaType"].as_str()) {
        (Some(header), Some(own)) if header != own => {
            Err(format!("mediaType in manifest should be '{header}' not '{own}'"))
        }
        (Some(media_type), _) | (None, Some(media_type)) => Ok((media_type.to_owned(), json)),
        (None, None) => Err("neither Content-Type nor mediaType says what it is".to_owned()),
    }
}

/// The digest of the first thing that the manifest needs and the repository lacks.
fn missing(repository: &Repository, json: &Value) -> Option<String> {
    let list = |name: &str| json[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let blobs = list("layers").iter().chain(list("blobs")).filter(|d| !is_foreign(d)).chain([&json["config"]]);
    let lacking_blob = blobs.filter_map(|d| d["digest"].as_str()).find(|d| !repository.blobs.contains_key(*d));
    let mut children = list("manifests").iter().filter_map(|d| d["digest"].as_str());
    let lacking = lacking_blob.or_else(|| children.find(|d| !repository.manifests.contains_key(*d)));
    lacking.map(str::to_owned)
}

/// Layers that registries may not hold.
fn is_foreign(descriptor: &Value) -> bool {
    let media_type = descriptor["mediaType"].as_str().unwrap_or_default();
    media_type.contains(".nondistributable.") || media_type.contains(".foreign.") || descriptor["urls"].is_array()
}
