//! What can be asked for by tag, and how much of it is here. Looking is no use: it keeps nothing from being evicted.

use super::inventory::{FoundTag, Inventory};
use super::reader::LinkReader;
use crate::oci::{self, Descriptor, Digest, MAX_DEPTH, Manifest, MediaType, Repository, Role, Tag};
use crate::store::blobs::Blobs;
use crate::store::error::StoreError;
use crate::store::evict::Pins;
use crate::store::files::layout;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Contents of one tag that are added up: an index of a hundred images has some thousands.
const MOST_CONTENTS: usize = 100_000;
/// More than any image's configuration has.
const MAX_CONFIG: u64 = 1 << 20;

/// A tag, and what is here of what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReference {
    pub repository: Repository,
    pub tag: Tag,
    /// The manifest that it names.
    pub digest: Digest,
    /// When upstream last said so.
    pub seen: SystemTime,
    /// The manifest's type, if the manifest is here.
    pub media_type: Option<MediaType>,
    /// Bytes of everything that the manifest refers to and is here, itself included, each content once.
    pub bytes: u64,
    /// When it, or what it names, was last used.
    pub last_use: SystemTime,
    pub pinned: bool,
    /// For what platforms it is here, as `os/architecture` with the variant if there is one; none where nothing says so.
    pub platforms: Vec<String>,
    /// Contents that it refers to and are not here: platforms and layers that no client has asked for, or that were removed.
    pub missing: u64,
}

pub(crate) struct References {
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) reader: Arc<LinkReader>,
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) pins: Arc<Pins>,
}

impl References {
    pub(crate) fn all(&self) -> Result<Vec<StoredReference>, StoreError> {
        let tags = self.inventory.tags()?.into_iter();
        let mut references = tags.map(|found| self.reference(found)).collect::<Result<Vec<_>, _>>()?;
        references.sort_by_key(|reference| (reference.repository.clone(), reference.tag.clone()));
        Ok(references)
    }

    fn reference(&self, (repository, tag, digest, seen): FoundTag) -> Result<StoredReference, StoreError> {
        let media_type = self.reader.linked_type(&repository, &digest)?;
        let mut sum = Sum::default();
        self.add_up(&digest, &mut sum)?;
        let Sum { bytes, missing, last_use, platforms, .. } = sum;
        let platforms = platforms.into_iter().map(String::from).collect();
        let pinned = self.pins.has(&digest);
        let last_use = UNIX_EPOCH + Duration::from_millis(last_use);
        Ok(StoredReference { repository, tag, digest, seen, media_type, bytes, last_use, pinned, platforms, missing })
    }

    /// Adds `digest` and what it refers to: manifests level by level, so that no chain of them is too long for a stack, and no deeper
    /// than [`MAX_DEPTH`].
    fn add_up(&self, digest: &Digest, sum: &mut Sum) -> Result<(), StoreError> {
        let mut level = vec![*digest];
        sum.seen.insert(*digest);
        for _ in 0..=MAX_DEPTH {
            let mut below = Vec::new();
            for digest in level {
                let Some(manifest) = self.add_manifest(&digest, sum)? else { continue };
                for child in &manifest.blobs {
                    if sum.sees(&child.digest) {
                        sum.add(self.blobs.length(&child.digest));
                    }
                }
                below.extend(manifest.manifests.iter().map(|child| child.digest).filter(|child| sum.sees(child)));
            }
            level = below;
        }
        Ok(())
    }

    fn add_manifest(&self, digest: &Digest, sum: &mut Sum) -> Result<Option<Manifest>, StoreError> {
        let length = self.blobs.length(digest);
        sum.add(length);
        if length.is_none() {
            return Ok(None);
        }
        sum.last_use = sum.last_use.max(self.blobs.table.get(digest).map_or(0, |entry| entry.last_use()));
        let manifest = self.reader.documents.peek(digest)?.and_then(|content| Manifest::parse(&content));
        if let Some(manifest) = &manifest {
            sum.platforms.extend(self.platforms(manifest));
        }
        Ok(manifest)
    }

    /// The platforms that a manifest names: an image's own, or those of an index whose manifests are here.
    fn platforms(&self, manifest: &Manifest) -> Vec<Box<str>> {
        let listed = manifest.manifests.iter().filter_map(|child| {
            let platform = child.platform.as_ref()?;
            self.blobs.table.get(&child.digest).map(|_| platform.clone())
        });
        let config = manifest.blobs.iter().find(|child| child.role == Role::Config);
        listed.chain(config.and_then(|config| self.platform_of(config))).collect()
    }

    fn platform_of(&self, config: &Descriptor) -> Option<Box<str>> {
        let kind = config.media_type.as_ref()?.as_str();
        let is_image = kind.contains(".image.config.") || kind.contains(".container.image.");
        let entry = self.blobs.table.get(&config.digest).filter(|entry| is_image && entry.len <= MAX_CONFIG)?;
        let content = self.blobs.files.read(&layout::blob(&config.digest)).ok().flatten()?;
        drop(entry);
        oci::platform(&content)
    }
}

#[derive(Default)]
struct Sum {
    seen: HashSet<Digest>,
    bytes: u64,
    /// Milliseconds since 1970.
    last_use: u64,
    platforms: BTreeSet<Box<str>>,
    missing: u64,
}

impl Sum {
    /// Whether this content counts: it is the first time that it is met, and there have not been too many.
    fn sees(&mut self, digest: &Digest) -> bool {
        self.seen.len() < MOST_CONTENTS && self.seen.insert(*digest)
    }

    fn add(&mut self, length: Option<u64>) {
        match length {
            Some(length) => self.bytes = self.bytes.saturating_add(length),
            None => self.missing += 1,
        }
    }
}
