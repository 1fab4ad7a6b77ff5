//! What the registry holds: repositories with blobs, manifests and tags, all in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest as _, Sha256, Sha512};

use super::clock;

#[derive(Default)]
pub(super) struct Content(Mutex<BTreeMap<String, Repository>>);

#[derive(Clone, Default)]
pub(super) struct Repository {
    pub(super) created: u64,
    pub(super) updated: u64,
    pub(super) blobs: BTreeMap<String, Bytes>,
    pub(super) manifests: BTreeMap<String, Manifest>,
    pub(super) tags: BTreeMap<String, Tag>,
}

#[derive(Clone)]
pub(super) struct Manifest {
    pub(super) media_type: String,
    pub(super) content: Bytes,
    pub(super) created: u64,
    /// Kept parsed: lists ask for it, pulls never do.
    pub(super) json: Value,
}

#[derive(Clone)]
pub(super) struct Tag {
    pub(super) digest: String,
    pub(super) created: u64,
    pub(super) updated: u64,
}

/// `algorithm:hex` of some content; any algorithm but sha512 counts as sha256.
pub(super) fn digest(content: &[u8], algorithm: &str) -> String {
    match algorithm {
        "sha512" => format!("sha512:{}", hex(&Sha512::digest(content))),
        _ => format!("sha256:{}", hex(&Sha256::digest(content))),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|n| char::from(DIGITS[usize::from(n)])).collect()
}

impl Content {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Repository>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, repository: &str, change: impl FnOnce(&mut Repository) -> T) -> T {
        let now = clock::now();
        let mut all = self.lock();
        let entry =
            all.entry(repository.to_owned()).or_insert_with(|| Repository { created: now, ..Repository::default() });
        entry.updated = now;
        change(entry)
    }

    pub(super) fn push_blob(&self, repository: &str, content: Bytes, algorithm: &str) -> String {
        let digest = digest(&content, algorithm);
        self.change(repository, |r| r.blobs.insert(digest.clone(), content));
        digest
    }

    pub(super) fn push_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        content: Bytes,
        algorithm: &str,
    ) -> String {
        let digest = digest(&content, algorithm);
        let now = clock::now();
        let json = serde_json::from_slice(&content).unwrap_or(Value::Null);
        self.change(repository, |r| {
            r.manifests
                .insert(digest.clone(), Manifest { media_type: media_type.to_owned(), content, created: now, json });
            if let Some(tag) = tag {
                let created = r.tags.get(tag).map_or(now, |t| t.created);
                r.tags.insert(tag.to_owned(), Tag { digest: digest.clone(), created, updated: now });
            }
        });
        digest
    }

    pub(super) fn delete_tag(&self, repository: &str, tag: &str) {
        self.change(repository, |r| r.tags.remove(tag));
    }

    /// The manifest and every tag on it, as ACR does.
    pub(super) fn delete_manifest(&self, repository: &str, digest: &str) {
        self.change(repository, |r| {
            r.manifests.remove(digest);
            r.tags.retain(|_, tag| tag.digest != digest);
        });
    }

    pub(super) fn delete_blob(&self, repository: &str, digest: &str) {
        self.change(repository, |r| r.blobs.remove(digest));
    }

    /// Asks one repository something; `None` if there is no such repository.
    pub(super) fn with<T>(&self, repository: &str, ask: impl FnOnce(&Repository) -> T) -> Option<T> {
        self.lock().get(repository).map(ask)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    pub(super) fn blob(&self, repository: &str, digest: &str) -> Option<Bytes> {
        self.with(repository, |r| r.blobs.get(digest).cloned())?
    }

    /// A blob whatever repository it is in: storage knows no repositories.
    pub(super) fn stored_blob(&self, digest: &str) -> Option<Bytes> {
        self.lock().values().find_map(|r| r.blobs.get(digest).cloned())
    }

    /// A manifest by tag or digest.
    pub(super) fn manifest(&self, repository: &str, reference: &str) -> Option<(String, Manifest)> {
        self.with(repository, |r| {
            let digest = if reference.contains(':') { reference } else { &r.tags.get(reference)?.digest };
            Some((digest.to_owned(), r.manifests.get(digest)?.clone()))
        })?
    }
}

impl Repository {
    /// The descriptors of all manifests whose subject this is, in the specification's form.
    pub(super) fn referrers(&self, subject: &str) -> Vec<(String, Value)> {
        let refers = |m: &Manifest| m.json["subject"]["digest"].as_str() == Some(subject);
        self.manifests.iter().filter(|(_, m)| refers(m)).map(|(d, m)| (d.clone(), m.descriptor(d))).collect()
    }
}

impl Manifest {
    fn descriptor(&self, digest: &str) -> Value {
        let mut descriptor = serde_json::json!({
            "mediaType": self.media_type, "digest": digest, "size": self.content.len(),
        });
        let own = &self.json["artifactType"];
        let artifact_type = if own.is_string() { own } else { &self.json["config"]["mediaType"] };
        for (name, value) in [("artifactType", artifact_type), ("annotations", &self.json["annotations"])] {
            if !value.is_null() {
                descriptor[name] = value.clone();
            }
        }
        descriptor
    }

    /// What `/acr/v1` calls the image's size: everything the manifest names.
    pub(super) fn image_size(&self) -> u64 {
        let layers = self.json["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
        layers.iter().chain([&self.json["config"]]).filter_map(|d| d["size"].as_u64()).sum()
    }
}
