//! What the store holds, told by its links: for a person who wants a list, and for whoever removes links. Looking is no use:
//! it keeps nothing from being removed when room is needed.

use crate::oci::{Digest, MAX_DEPTH, Manifest, MediaType, Registry, Repository, Tag};
use crate::store::error::StoreError;
use crate::store::files::layout::{self, ALGORITHMS};
use crate::store::files::record::Record;
use crate::store::files::small::is_absent;
use crate::store::lifecycle::upkeep::repository_at;
use crate::store::links::write::{MANIFEST, TAG};
use crate::store::parts::Inner;
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Contents of one tag that are added up: an index of a hundred images has some thousands.
const MOST_CONTENTS: usize = 100_000;

/// A tag, and what is here of what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReference {
    /// The repository.
    pub repository: Repository,
    /// The tag.
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
    /// Whether it is pinned.
    pub pinned: bool,
    /// For what platforms it is here, as `os/architecture` with the variant if there is one; none where nothing says so.
    pub platforms: Vec<String>,
    /// Contents that it refers to and are not here: platforms and layers that nobody has asked for, or that were removed.
    pub missing: u64,
}

/// The links of one repository.
#[derive(Clone, Debug, Default)]
pub struct RepositoryLinks {
    /// Tags and the manifests that they name.
    pub tags: Vec<(Tag, Digest)>,
    /// Manifests.
    pub manifests: Vec<Digest>,
    /// Blobs that upstream said the repository has.
    pub blobs: Vec<Digest>,
}

impl Inner {
    pub(crate) fn references(&self) -> Result<Vec<StoredReference>, StoreError> {
        let mut references = Vec::new();
        let mut folders = vec![PathBuf::from(layout::REPOSITORIES)];
        while let Some(folder) = folders.pop() {
            for name in self.folders_in(&folder)? {
                match name.as_str() {
                    "_tags" => references.extend(self.tags_in(&folder.join(name))?),
                    // No component of a repository's name begins so.
                    name if name.starts_with('_') => {}
                    name => folders.push(folder.join(name)),
                }
            }
        }
        let named = |reference: &StoredReference| (reference.repository.clone(), reference.tag.clone());
        references.sort_by_key(named);
        Ok(references)
    }

    /// Every repository that has a link here.
    pub(crate) fn repositories(&self) -> Result<Vec<Repository>, StoreError> {
        let mut repositories = Vec::new();
        let mut folders = vec![PathBuf::from(layout::REPOSITORIES)];
        while let Some(folder) = folders.pop() {
            repositories.extend(repository_at(self, &folder));
            let below = self.folders_in(&folder)?.into_iter().filter(|name| !name.starts_with('_'));
            folders.extend(below.map(|name| folder.join(name)));
        }
        Ok(repositories)
    }

    /// `digest` and every manifest of the repository that refers to it, as an index does or what is attached, or to one of these.
    pub(crate) fn referring(&self, repository: &Repository, digest: &Digest) -> Result<Vec<Digest>, StoreError> {
        let mut others = Vec::new();
        for algorithm in ALGORITHMS {
            others.extend(self.linked(&layout::manifests(repository, algorithm), algorithm)?);
        }
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
        let parsed = self.peek_small(manifest)?.and_then(|content| Manifest::parse(&content)).unwrap_or_default();
        let mut named = parsed.children().map(|child| &child.digest).chain(&parsed.subject);
        Ok(named.any(|digest| targets.contains(digest)))
    }

    pub(crate) fn links_of(&self, repository: &Repository) -> Result<RepositoryLinks, StoreError> {
        let mut links = RepositoryLinks::default();
        for reference in self.tag_links(&layout::tags(repository))? {
            if reference.0 == *repository {
                links.tags.push((reference.1, reference.2));
            }
        }
        for algorithm in ALGORITHMS {
            links.manifests.extend(self.linked(&layout::manifests(repository, algorithm), algorithm)?);
            links.blobs.extend(self.linked(&layout::blob_links(repository, algorithm), algorithm)?);
        }
        Ok(links)
    }

    fn tags_in(&self, folder: &Path) -> Result<Vec<StoredReference>, StoreError> {
        let mut references = Vec::new();
        for (repository, tag, digest, seen) in self.tag_links(folder)? {
            let path = layout::manifest(&repository, &digest);
            let link = self.link(MANIFEST, &path, &repository, &digest.to_string())?;
            let media_type = link.and_then(|link| link.get("type")?.parse().ok());
            let mut sum = Sum::default();
            self.add_up(&digest, &mut sum)?;
            let Sum { bytes, missing, last_use, platforms, .. } = sum;
            let platforms = platforms.into_iter().map(String::from).collect();
            let pinned = self.pins.has(&digest);
            let last_use = UNIX_EPOCH + Duration::from_millis(last_use);
            references.push(StoredReference {
                repository,
                tag,
                digest,
                seen,
                media_type,
                bytes,
                last_use,
                pinned,
                platforms,
                missing,
            });
        }
        Ok(references)
    }

    fn tag_links(&self, folder: &Path) -> Result<Vec<(Repository, Tag, Digest, SystemTime)>, StoreError> {
        let entries = match self.files.disk.list(folder) {
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            other => other.map_err(StoreError::io("list", folder))?,
        };
        let mut links = Vec::new();
        for entry in entries.iter().filter(|entry| !entry.is_dir) {
            let record = self.files.read(&folder.join(&entry.name))?.and_then(|bytes| Record::parse(TAG, &bytes));
            links.extend(record.as_ref().and_then(tag_of));
        }
        Ok(links)
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
                        sum.add(self.length(&child.digest));
                    }
                }
                below.extend(manifest.manifests.iter().map(|child| child.digest).filter(|child| sum.sees(child)));
            }
            level = below;
        }
        Ok(())
    }

    fn add_manifest(&self, digest: &Digest, sum: &mut Sum) -> Result<Option<Manifest>, StoreError> {
        let length = self.length(digest);
        sum.add(length);
        if length.is_none() {
            return Ok(None);
        }
        sum.last_use = sum.last_use.max(self.catalogue.get(digest).map_or(0, |entry| entry.last_use()));
        let manifest = self.peek_small(digest)?.and_then(|content| Manifest::parse(&content));
        if let Some(manifest) = &manifest {
            sum.platforms.extend(self.platforms(manifest));
        }
        Ok(manifest)
    }

    fn folders_in(&self, folder: &Path) -> Result<Vec<String>, StoreError> {
        let entries = self.files.disk.list(folder).map_err(StoreError::io("list", folder))?;
        Ok(entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name).collect())
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

/// What a tag's link says, taken from inside it: file names are never decoded.
fn tag_of(record: &Record) -> Option<(Repository, Tag, Digest, SystemTime)> {
    let registry = Registry::new(record.get("registry")?);
    let repository = Repository { registry, name: record.get("repository")?.parse().ok()? };
    Some((repository, record.get("name")?.parse().ok()?, record.get("digest")?.parse().ok()?, record.time("seen")?))
}
