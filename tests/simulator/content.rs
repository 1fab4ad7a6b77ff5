//! What the registry holds: repositories with blobs, manifests and tags, all in memory.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest as _, Sha256, Sha512};

use super::clock;
use super::replicas::{Content, Replicas};

#[derive(Clone, Default)]
pub(super) struct Repository {
    pub(super) created: u64,
    pub(super) updated: u64,
    pub(super) blobs: BTreeMap<String, Bytes>,
    pub(super) manifests: BTreeMap<String, Manifest>,
    pub(super) tags: BTreeMap<String, Tag>,
    pub(super) attributes: Attributes,
}

/// What may be done with a repository, a tag or a manifest (`changeableAttributes`).
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "the service has these four switches")]
pub(super) struct Attributes {
    pub(super) delete: bool,
    pub(super) write: bool,
    pub(super) read: bool,
    pub(super) list: bool,
}

impl Default for Attributes {
    fn default() -> Self {
        Self { delete: true, write: true, read: true, list: true }
    }
}

impl Attributes {
    /// A lock on writing locks deletion as well.
    pub(super) fn may_delete(self) -> bool {
        self.delete && self.write
    }
}

#[derive(Clone)]
pub(super) struct Manifest {
    pub(super) media_type: String,
    pub(super) content: Bytes,
    pub(super) created: u64,
    /// Kept parsed: lists ask for it, pulls never do.
    pub(super) json: Value,
    pub(super) attributes: Attributes,
}

#[derive(Clone)]
pub(super) struct Tag {
    pub(super) digest: String,
    pub(super) created: u64,
    pub(super) updated: u64,
    pub(super) attributes: Attributes,
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

impl Content<'_> {
    /// Changes a repository, which comes into being if need be.
    pub(super) fn change<T>(&self, repository: &str, change: impl Fn(&mut Repository, u64) -> T + Send + 'static) -> T {
        let now = clock::now();
        let name = repository.to_owned();
        self.write(move |all| {
            let new = || Repository { created: now, ..Repository::default() };
            let entry = all.entry(name.clone()).or_insert_with(new);
            entry.updated = now;
            change(entry, now)
        })
    }

    pub(super) fn push_blob(&self, repository: &str, content: Bytes, algorithm: &str) -> String {
        let digest = digest(&content, algorithm);
        self.keep_blob(repository, &digest, content);
        digest
    }

    /// Puts a blob in under a digest that is known to be its own.
    pub(super) fn keep_blob(&self, repository: &str, digest: &str, content: Bytes) {
        let digest = digest.to_owned();
        self.change(repository, move |r, _| r.blobs.insert(digest.clone(), content.clone()));
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
        let json = serde_json::from_slice(&content).unwrap_or(Value::Null);
        let attributes = Attributes::default();
        let manifest = Manifest { media_type: media_type.to_owned(), content, created: 0, json, attributes };
        let (key, tag) = (digest.clone(), tag.map(str::to_owned));
        self.change(repository, move |r, now| {
            let entry = r.manifests.entry(key.clone()).or_insert_with(|| Manifest { created: now, ..manifest.clone() });
            entry.media_type.clone_from(&manifest.media_type);
            if let Some(tag) = &tag {
                let new = || Tag { digest: String::new(), created: now, updated: now, attributes };
                let tag = r.tags.entry(tag.clone()).or_insert_with(new);
                tag.digest.clone_from(&key);
                tag.updated = now;
            }
        });
        digest
    }

    pub(super) fn delete_tag(&self, repository: &str, tag: &str) {
        let tag = tag.to_owned();
        self.change(repository, move |r, _| r.tags.remove(&tag));
    }

    /// The manifest and every tag on it, as ACR does.
    pub(super) fn delete_manifest(&self, repository: &str, digest: &str) {
        let digest = digest.to_owned();
        self.change(repository, move |r, _| {
            r.manifests.remove(&digest);
            r.tags.retain(|_, tag| tag.digest != digest);
        });
    }

    pub(super) fn delete_blob(&self, repository: &str, digest: &str) {
        let digest = digest.to_owned();
        self.change(repository, move |r, _| r.blobs.remove(&digest));
    }

    pub(super) fn delete_repository(&self, repository: &str) {
        let name = repository.to_owned();
        self.write(move |all| all.remove(&name));
    }

    /// Asks one repository something; `None` if there is no such repository.
    pub(super) fn with<T>(&self, repository: &str, ask: impl FnOnce(&Repository) -> T) -> Option<T> {
        self.read(|all| all.get(repository).map(ask))
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.read(|all| all.iter().filter(|(_, r)| r.attributes.list).map(|(name, _)| name.clone()).collect())
    }

    pub(super) fn blob(&self, repository: &str, digest: &str) -> Option<Bytes> {
        self.with(repository, |r| r.blobs.get(digest).cloned())?
    }

    /// A blob whatever repository it is in.
    pub(super) fn any_blob(&self, digest: &str) -> Option<Bytes> {
        self.read(|all| all.values().find_map(|r| r.blobs.get(digest).cloned()))
    }

    /// A manifest by tag or digest.
    pub(super) fn manifest(&self, repository: &str, reference: &str) -> Option<(String, Manifest)> {
        self.with(repository, |r| {
            let digest = r.digest_of(reference)?;
            Some((digest.to_owned(), r.manifests.get(digest)?.clone()))
        })?
    }
}

impl Replicas {
    /// What storage serves: it knows neither repositories nor replicas.
    pub(super) fn stored_blob(&self, digest: &str) -> Option<Bytes> {
        self.each().into_iter().find_map(|content| content.any_blob(digest))
    }
}

impl Repository {
    pub(super) fn listed_tags(&self) -> impl Iterator<Item = (&String, &Tag)> {
        self.tags.iter().filter(|(_, tag)| tag.attributes.list)
    }

    /// A digest stands for itself, a tag for what it is on.
    pub(super) fn digest_of<'a>(&'a self, reference: &'a str) -> Option<&'a str> {
        if reference.contains(':') { Some(reference) } else { self.tags.get(reference).map(|tag| tag.digest.as_str()) }
    }

    /// What holds for a manifest named in this way: its own attributes, the repository's, and the tag's or (by digest)
    /// those of all its tags.
    pub(super) fn attributes_of(&self, reference: &str) -> Attributes {
        let digest = self.digest_of(reference).unwrap_or_default();
        let named =
            |(name, tag): &(&String, &Tag)| name.as_str() == reference || (digest == reference && tag.digest == digest);
        let tags = self.tags.iter().filter(named).map(|(_, tag)| tag.attributes);
        let own = self.manifests.get(digest).map(|m| m.attributes);
        tags.chain(own).fold(self.attributes, |all, one| Attributes {
            delete: all.delete && one.delete,
            write: all.write && one.write,
            read: all.read && one.read,
            list: all.list && one.list,
        })
    }

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
