//! What repositories have by their links: for a list, and for the commands that remove links.

use super::reader::{LinkReader, TAG};
use super::walk::{Folder, Visitor, repository_of, walk};
use crate::oci::{Digest, MAX_DEPTH, Manifest, Repository, Tag};
use crate::store::disk::is_absent;
use crate::store::error::StoreError;
use crate::store::files::{Record, layout};
use crate::store::jobs::Stop;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// The links of one repository.
#[derive(Clone, Debug, Default)]
pub struct RepositoryLinks {
    /// Tags and the manifests that they name.
    pub tags: Vec<(Tag, Digest)>,
    pub manifests: Vec<Digest>,
    /// Blobs that upstream said the repository has.
    pub blobs: Vec<Digest>,
}

pub(crate) struct Inventory {
    pub(crate) reader: Arc<LinkReader>,
    pub(crate) stop: Arc<Stop>,
}

/// A tag's link: repository, tag, manifest, and when upstream last said so.
pub(super) type FoundTag = (Repository, Tag, Digest, SystemTime);

impl Inventory {
    /// Every repository that has a link here.
    pub(crate) fn repositories(&self) -> Result<Vec<Repository>, StoreError> {
        let mut found = Vec::new();
        self.walk(|folder| {
            found.extend(folder.repository().cloned());
            Ok(())
        })?;
        Ok(found)
    }

    /// Every tag's link.
    pub(super) fn tags(&self) -> Result<Vec<FoundTag>, StoreError> {
        let mut found = Vec::new();
        self.walk(|folder| {
            if folder.links.iter().any(|name| name == "_tags") {
                found.extend(self.tags_in(&folder.path.join("_tags"))?);
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn walk(&self, visit: impl FnMut(&Folder<'_>) -> Result<(), StoreError>) -> Result<(), StoreError> {
        struct Each<V>(V);
        impl<V: FnMut(&Folder<'_>) -> Result<(), StoreError>> Visitor for Each<V> {
            fn visit(&mut self, folder: &Folder<'_>) -> Result<(), StoreError> {
                self.0(folder)
            }
        }
        walk(&self.reader.files, &self.stop, &mut [&mut Each(visit)])
    }

    fn tags_in(&self, folder: &Path) -> Result<Vec<FoundTag>, StoreError> {
        let entries = match self.reader.files.disk.list(folder) {
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            other => other.map_err(StoreError::io("list", folder))?,
        };
        let mut links = Vec::new();
        for entry in entries.iter().filter(|entry| !entry.is_dir) {
            let record =
                self.reader.files.read(&folder.join(&entry.name))?.and_then(|bytes| Record::parse(TAG, &bytes));
            links.extend(record.as_ref().and_then(tag_of));
        }
        Ok(links)
    }

    pub(crate) fn links_of(&self, repository: &Repository) -> Result<RepositoryLinks, StoreError> {
        let tags = self.tags_in(&layout::tags(repository))?.into_iter().filter(|found| found.0 == *repository);
        Ok(RepositoryLinks {
            tags: tags.map(|(_, tag, digest, _)| (tag, digest)).collect(),
            manifests: self.reader.manifests(repository)?,
            blobs: self.reader.linked_blobs(repository)?,
        })
    }

    /// Those of `digests` that no link of any repository speaks for.
    pub(crate) fn unlinked(&self, mut digests: HashSet<Digest>) -> Result<HashSet<Digest>, StoreError> {
        for repository in self.repositories()? {
            for digest in self.reader.mentioned(&repository)? {
                digests.remove(&digest);
            }
        }
        Ok(digests)
    }

    /// `digest` and every manifest of the repository that refers to it, as an index does or what is attached, or to one of these.
    pub(crate) fn referring(&self, repository: &Repository, digest: &Digest) -> Result<Vec<Digest>, StoreError> {
        let others = self.reader.manifests(repository)?;
        let (mut found, mut known) = (vec![*digest], HashSet::from([*digest]));
        // Read anew for each level: what all manifests of a repository refer to may be more than memory has.
        for _ in 0..MAX_DEPTH {
            let mut new = Vec::new();
            for manifest in &others {
                if !known.contains(manifest) && self.refers_to(manifest, &known)? {
                    new.push(*manifest);
                }
            }
            if new.is_empty() {
                break;
            }
            known.extend(new.iter().copied());
            found.extend(new);
        }
        Ok(found)
    }

    /// Whether a manifest refers, as an index does or what is attached, to one of `targets`.
    fn refers_to(&self, manifest: &Digest, targets: &HashSet<Digest>) -> Result<bool, StoreError> {
        let parsed =
            self.reader.documents.peek(manifest)?.and_then(|content| Manifest::parse(&content)).unwrap_or_default();
        let mut named = parsed.children().map(|child| &child.digest).chain(&parsed.subject);
        Ok(named.any(|digest| targets.contains(digest)))
    }
}

/// What a tag's link says, taken from inside it: file names are never decoded.
fn tag_of(record: &Record) -> Option<FoundTag> {
    let (name, digest) = (record.get("name")?.parse().ok()?, record.get("digest")?.parse().ok()?);
    Some((repository_of(record)?, name, digest, record.time("seen")?))
}
