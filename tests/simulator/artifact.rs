//! Artifacts as ORAS pushes them: an image manifest with the empty config and one titled layer per file.

use bytes::Bytes;

use super::Simulator;
use super::manifest::OCI_MANIFEST;
use super::reply::quoted;

const EMPTY_CONFIG: &str = "{}";
const EMPTY_CONFIG_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// What was pushed.
#[derive(Clone, Debug)]
pub struct Artifact {
    pub digest: String,
    pub manifest: Bytes,
    /// The layers' digests, in order.
    pub layers: Vec<String>,
}

pub(super) fn push(simulator: &Simulator, repository: &str, tag: &str, files: &[(&str, &str, Bytes)]) -> Artifact {
    let config = simulator.push_blob(repository, EMPTY_CONFIG);
    let mut layers = Vec::new();
    let mut descriptors = Vec::new();
    for (title, media_type, content) in files {
        let digest = simulator.push_blob(repository, content.clone());
        descriptors.push(format!(
            "{{\"mediaType\":{},\"digest\":\"{digest}\",\"size\":{},\"annotations\":{{\"org.opencontainers.image.title\":{}}}}}",
            quoted(media_type),
            content.len(),
            quoted(title)
        ));
        layers.push(digest);
    }
    let manifest = Bytes::from(format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_MANIFEST}\",\"artifactType\":\"application/vnd.unknown.artifact.v1\",\
         \"config\":{{\"mediaType\":\"{EMPTY_CONFIG_TYPE}\",\"digest\":\"{config}\",\"size\":2,\"data\":\"e30=\"}},\
         \"layers\":[{}],\"annotations\":{{\"org.opencontainers.image.created\":\"2026-11-01T00:00:00Z\"}}}}",
        descriptors.join(",")
    ));
    let digest = simulator.push_manifest(repository, Some(tag), OCI_MANIFEST, manifest.clone());
    Artifact { digest, manifest, layers }
}
