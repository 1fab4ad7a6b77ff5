//! The two files that say what a bundle is: `index.json`, which every tool for image layouts reads, and `larder.json`, which only
//! larder does.

use super::plan::{Plan, Root};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The content of `oci-layout`.
pub(super) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Most tools read this one.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// `ctr`, `docker load` and Hauler read this one.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// On what is attached and has no tag: the repository that it belongs to.
pub(super) const REPOSITORY: &str = "dev.larder.repository";

/// `index.json`, as far as larder writes and reads it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    pub(super) manifests: Vec<Named>,
}

/// A descriptor of `index.json`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Named {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

/// `larder.json`: what a far larder wants to know beyond the layout.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Notes {
    /// The format's version.
    pub(super) larder: u32,
    /// Platforms whose content is here; empty: all.
    pub(super) platforms: Vec<String>,
    /// Blobs that are left out because the far side's inventory has them.
    pub(super) assumed: u64,
    /// Contents of wanted platforms that the near side did not have.
    pub(super) absent: Vec<String>,
    /// When each tag last moved, in Unix seconds.
    pub(super) tags: BTreeMap<String, u64>,
    /// Blobs longer than a volume, in slices of so many bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) slice_bytes: Option<u64>,
}

/// The version of `larder.json` that this larder writes.
pub(super) const VERSION: u32 = 1;

pub(super) fn index(plan: &Plan) -> Bytes {
    let named = plan.roots.iter().filter(|root| !root.is_attached);
    let attached = plan.roots.iter().filter(|root| root.is_attached);
    let manifests = named.chain(attached).map(|root| entry(root, plan.scope.bare_tags)).collect();
    let media_type = "application/vnd.oci.image.index.v1+json".to_owned();
    json(&Index { schema_version: 2, media_type, manifests })
}

pub(super) fn notes(plan: &Plan, slice_bytes: Option<u64>) -> Bytes {
    let tags = plan.roots.iter().filter(|root| root.tag.is_some()).map(|root| (full_name(root), root.moved));
    json(&Notes {
        larder: VERSION,
        platforms: plan.scope.platforms.clone(),
        assumed: plan.assumed.len() as u64,
        absent: plan.absent.iter().map(ToString::to_string).collect(),
        tags: tags.collect(),
        slice_bytes,
    })
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
    Named { media_type: root.media_type.to_string(), digest: root.digest.to_string(), size: root.size, annotations }
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
