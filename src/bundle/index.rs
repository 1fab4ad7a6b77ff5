//! The files that say what a bundle is: `index.json`, which every tool for image layouts reads, and `larder.json` and
//! `larder-volume.json`, which only larder does. The same types write them and read them, whoever wrote them.

use super::plan::{Plan, Root};
use crate::oci::{Algorithm, Digest, Hasher};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The content of `oci-layout`.
pub(super) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Most tools read this one.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// `ctr`, `docker load` and Hauler read this one.
pub const IMAGE_NAME: &str = "io.containerd.image.name";
/// On what is attached and has no tag: the repository that it belongs to.
pub const REPOSITORY: &str = "dev.larder.repository";
/// The version of `larder.json` that is written and read.
pub const FORMAT: u32 = 1;

/// A volume's own file. It is padded, so that a volume can be laid out before all that it says is known.
const VOLUME_NOTES: usize = 1024;

/// `index.json`.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    #[serde(default)]
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    /// What the layout names.
    #[serde(default)]
    pub manifests: Vec<Named>,
}

/// A descriptor of `index.json`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Named {
    /// Some tools leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifest.
    pub digest: String,
    #[serde(default)]
    size: u64,
    /// Its names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// `larder.json`: what a far larder wants to know beyond the layout.
#[derive(Debug, Deserialize, Serialize)]
pub struct Notes {
    /// The format's version.
    pub larder: u32,
    /// Platforms whose content is here; empty: all.
    #[serde(default)]
    pub platforms: Vec<String>,
    /// Blobs that are left out because the far side's inventory has them.
    #[serde(default)]
    assumed: u64,
    /// The SHA-256 of their sorted digests, a line each.
    #[serde(default)]
    assumed_sha256: String,
    /// Contents of wanted platforms that the near side did not have.
    #[serde(default)]
    pub absent: Vec<String>,
    /// When each tag last moved, in Unix seconds.
    #[serde(default)]
    pub tags: BTreeMap<String, u64>,
    /// Bytes of all contents that come with it.
    #[serde(default)]
    pub bytes: u64,
    /// The longest that a volume may be, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    volume_bytes: Option<u64>,
}

impl Default for Notes {
    /// What holds for a layout that larder has not written.
    fn default() -> Self {
        Self {
            larder: FORMAT,
            platforms: Vec::new(),
            assumed: 0,
            assumed_sha256: String::new(),
            absent: Vec::new(),
            tags: BTreeMap::new(),
            bytes: 0,
            volume_bytes: None,
        }
    }
}

/// `larder-volume.json`: which volume of which bundle this is.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct VolumeNotes {
    /// The format's version.
    pub larder: u32,
    /// Tells bundles apart: the SHA-256 of `index.json` and `larder.json`, one behind the other.
    pub bundle: String,
    /// The SHA-256 of `index.json`.
    pub index: String,
    /// Its number, from 1.
    pub volume: u32,
    /// How many there are.
    pub of: u32,
    /// The whole length of each blob of which it has a slice.
    #[serde(default)]
    pub slices: BTreeMap<String, u64>,
}

impl VolumeNotes {
    /// The file, always of the same length.
    pub(super) fn to_bytes(&self) -> Bytes {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.resize(VOLUME_NOTES.max(bytes.len()), b' ');
        bytes.into()
    }

    /// What stands in its place until it is known.
    pub(super) fn placeholder() -> Bytes {
        vec![b' '; VOLUME_NOTES].into()
    }
}

pub(super) fn index(plan: &Plan) -> Bytes {
    let named = plan.roots.iter().filter(|root| !root.is_attached);
    let attached = plan.roots.iter().filter(|root| root.is_attached);
    let manifests = named.chain(attached).map(|root| entry(root, plan.scope.bare_tags)).collect();
    let media_type = Some("application/vnd.oci.image.index.v1+json".to_owned());
    json(&Index { schema_version: 2, media_type, manifests })
}

pub(super) fn notes(plan: &Plan, volume_bytes: Option<u64>) -> Bytes {
    let tags = plan.roots.iter().filter(|root| root.tag.is_some()).map(|root| (full_name(root), root.moved));
    let mut assumed: Vec<String> = plan.assumed.iter().map(ToString::to_string).collect();
    assumed.sort_unstable();
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for digest in &assumed {
        hasher.update(digest.as_bytes());
        hasher.update(b"\n");
    }
    json(&Notes {
        larder: FORMAT,
        platforms: plan.scope.platforms.clone(),
        assumed: plan.assumed.len() as u64,
        assumed_sha256: hasher.finish().hex(),
        absent: plan.absent.iter().map(ToString::to_string).collect(),
        tags: tags.collect(),
        bytes: plan.manifests.iter().chain(&plan.blobs).map(|item| item.size).sum(),
        volume_bytes,
    })
}

/// What tells this bundle from others: see [`VolumeNotes::bundle`].
pub(super) fn fingerprint(index: &[u8], notes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(index);
    hasher.update(notes);
    hasher.finish()
}

fn entry(root: &Root, bare: bool) -> Named {
    let mut annotations = BTreeMap::new();
    match &root.tag {
        Some(tag) if bare => drop(annotations.insert(REF_NAME.to_owned(), tag.to_string())),
        Some(_) => {
            annotations.insert(REF_NAME.to_owned(), full_name(root));
            annotations.insert(IMAGE_NAME.to_owned(), full_name(root));
        }
        // A nameless entry in a layout of one repository needs no more words.
        None if bare => {}
        None if root.is_attached => drop(annotations.insert(REPOSITORY.to_owned(), root.repository.to_string())),
        None => drop(annotations.insert(REF_NAME.to_owned(), format!("{}@{}", root.repository, root.digest))),
    }
    Named {
        media_type: Some(root.media_type.to_string()),
        digest: root.digest.to_string(),
        size: root.size,
        annotations: (!annotations.is_empty()).then_some(annotations),
    }
}

pub(super) fn full_name(root: &Root) -> String {
    match &root.tag {
        Some(tag) => format!("{}:{tag}", root.repository),
        None => format!("{}@{}", root.repository, root.digest),
    }
}

fn json(value: &impl Serialize) -> Bytes {
    // Maps with text as keys and nothing that could fail: see the types above.
    serde_json::to_vec(value).unwrap_or_default().into()
}
