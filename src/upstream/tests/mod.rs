//! Each behaviour that a user can meet, against a scripted registry.

mod again;
mod certificates;
mod credentials;
mod inside;
mod lists;
mod names;
mod network;
mod outage;
mod passers;
mod proxies;
mod redirects;
mod tokens;
mod uploads;
mod verdicts;
mod writes;

use super::testing::Server;
use super::*;
use crate::oci::{Accept, Algorithm, Digest, Name, Reference};
use bytes::Bytes;

pub(super) const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;
pub(super) const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn tag(text: &str) -> Reference {
    text.parse().unwrap()
}

pub(super) fn blob(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

pub(super) async fn manifest(upstream: &Upstream, repository: &str) -> Result<FetchedManifest, UpstreamError> {
    upstream.get_manifest(&name(repository), &tag("v1"), &Accept::default()).await
}

pub(super) async fn read(mut blob: FetchedBlob) -> Result<Bytes, UpstreamError> {
    let mut whole = Vec::new();
    while let Some(chunk) = blob.body.chunk().await? {
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.into())
}

/// The challenge of ACR for what was asked, with the realm at `server`.
pub(super) fn challenge(realm: &str, scope: Option<&str>) -> String {
    let scope = scope.map(|scope| format!(",scope=\"{scope}\"")).unwrap_or_default();
    format!("Bearer realm=\"{realm}\",service=\"test.registry\"{scope}")
}

/// Methods and paths without queries, in order.
pub(super) fn paths(server: &Server) -> Vec<String> {
    let asked = server.asked();
    asked.iter().map(|a| format!("{} {}", a.method, a.target.split('?').next().unwrap())).collect()
}
