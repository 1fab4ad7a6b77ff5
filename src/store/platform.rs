//! For what platform an image is: its configuration says so, or the index that lists it.

use super::inner::Inner;
use super::layout;
use crate::oci::Digest;
use serde::Deserialize;
use std::fmt;

/// More than any image's configuration has.
const MAX_CONFIG: u64 = 1 << 20;
/// What tools write for content that is for no machine, such as attestations.
const UNKNOWN: &str = "unknown";

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_deref().filter(|variant| !variant.is_empty()).map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// What of a manifest or an index names a platform.
#[derive(Deserialize)]
struct Document {
    config: Option<serde_json::Value>,
    #[serde(default)]
    manifests: Vec<serde_json::Value>,
}

/// The digest that a descriptor names.
fn digest_of(descriptor: &serde_json::Value) -> Option<Digest> {
    descriptor.get("digest")?.as_str()?.parse().ok()
}

fn text(platform: &Platform) -> Option<String> {
    let is_known = platform.os != UNKNOWN && !platform.os.is_empty() && !platform.architecture.is_empty();
    is_known.then(|| platform.to_string())
}

impl Inner {
    /// The platforms that a manifest's bytes name: an image's own, or those of an index whose manifests are here.
    pub(super) fn platforms(&self, content: &[u8]) -> Vec<String> {
        let Ok(document) = serde_json::from_slice::<Document>(content) else { return Vec::new() };
        let listed = document.manifests.iter().filter_map(|descriptor| {
            self.catalogue.get(&digest_of(descriptor)?)?;
            text(&Platform::deserialize(descriptor.get("platform")?).ok()?)
        });
        listed.chain(document.config.as_ref().and_then(|config| self.platform_of(config))).collect()
    }

    fn platform_of(&self, config: &serde_json::Value) -> Option<String> {
        let kind = config.get("mediaType")?.as_str()?;
        let is_image = kind.contains(".image.config.") || kind.contains(".container.image.");
        let digest = digest_of(config).filter(|_| is_image)?;
        let entry = self.catalogue.get(&digest).filter(|entry| entry.len <= MAX_CONFIG)?;
        let content = self.files.read(&layout::blob(&digest)).ok().flatten()?;
        drop(entry);
        text(&serde_json::from_slice(&content).ok()?)
    }
}
