//! What is pulled: incompressible blobs, and a manifest of the usual size that names them.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};

pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

#[derive(Clone)]
pub(super) struct Blob {
    pub(super) digest: String,
    pub(super) bytes: Bytes,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: format!("sha256:{}", hex(&Sha256::digest(&bytes))), bytes: bytes.into() }
    }

    /// Bytes that nobody has seen before in this run.
    pub(super) fn fresh(length: usize) -> Self {
        static SEED: AtomicU64 = AtomicU64::new(1);
        let mut state = SEED.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.truncate(length);
        Self::new(bytes)
    }
}

/// One repository with one tag, both of which nobody has seen before: a cache may keep a tag that it has seen.
#[derive(Clone)]
pub(super) struct Artifact {
    pub(super) repository: String,
    pub(super) manifest: Blob,
    /// The configuration, then the layers.
    pub(super) blobs: Vec<Blob>,
}

pub(super) const TAG: &str = "v1";

impl Artifact {
    pub(super) fn fresh(repository: &str, layers: &[usize]) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let repository = format!("{repository}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let config = Blob::fresh(512);
        let layers: Vec<Blob> = layers.iter().map(|&length| Blob::fresh(length)).collect();
        let descriptor = |blob: &Blob, media_type: &str| json!({"mediaType": media_type, "digest": blob.digest, "size": blob.bytes.len()});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(&config, "application/vnd.oci.image.config.v1+json"),
            "layers": layers.iter().map(|l| descriptor(l, "application/vnd.oci.image.layer.v1.tar")).collect::<Vec<_>>(),
            // Up to the kilobyte that an ordinary image's manifest has.
            "annotations": {"org.opencontainers.image.description": "-".repeat(400)},
        });
        let manifest = Blob::new(manifest.to_string().into_bytes());
        let blobs = std::iter::once(config).chain(layers).collect();
        Self { repository, manifest, blobs }
    }

    pub(super) fn manifest_path(&self) -> String {
        format!("/v2/{}/manifests/{TAG}", self.repository)
    }

    pub(super) fn blob_path(&self, blob: &Blob) -> String {
        format!("/v2/{}/blobs/{}", self.repository, blob.digest)
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
