//! Whether a repository has a blob: a linked manifest of it names the blob, or upstream said so there (a blob link). A blob link can
//! also say that it has the blob no more, against all manifests.
//!
//! The files decide. The index points to the manifest to look at and is never believed alone; what the files said is kept in
//! memory, within a bound, so that neither a yes nor a no is looked for twice.

use super::error::StoreError;
use super::inner::Inner;
use super::layout::{self, ALGORITHMS};
use super::links::{BlobLink, MANIFEST};
use crate::oci::{Digest, Manifest, Repository};
use parking_lot::RwLock;
use std::collections::{HashMap, HashSet};

/// Digests and repositories remembered, one whose links speak for nothing included: some 20 MiB.
const REMEMBERED: usize = 200_000;

/// What is known in memory.
#[derive(Default)]
pub(super) struct Members {
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    repositories: HashMap<Repository, Blobs>,
    remembered: usize,
    /// Raised whenever something is forgotten.
    generation: u64,
}

#[derive(Default)]
struct Blobs {
    digests: HashSet<Digest>,
    /// Whether `digests` is all that the repository has.
    complete: bool,
}

impl Members {
    /// `Some` if it is known whether the repository has the blob.
    pub(super) fn get(&self, repository: &Repository, digest: &Digest) -> Option<bool> {
        let known = self.known.read();
        let blobs = known.repositories.get(repository)?;
        if blobs.digests.contains(digest) { Some(true) } else { blobs.complete.then_some(false) }
    }

    /// Something that was just written to the files, whatever else is known.
    pub(super) fn add(&self, repository: &Repository, digests: &[Digest]) {
        self.known.write().add(repository, digests);
    }

    pub(super) fn forget(&self, repository: &Repository) {
        let mut known = self.known.write();
        known.generation += 1;
        if let Some(blobs) = known.repositories.remove(repository) {
            known.remembered -= blobs.digests.len() + 1;
        }
    }

    fn generation(&self) -> u64 {
        self.known.read().generation
    }

    /// Something that was read from the files when `generation` was the current one.
    fn learn(&self, repository: &Repository, digests: &[Digest], generation: u64, complete: bool) {
        let mut known = self.known.write();
        if known.generation == generation && known.add(repository, digests) && complete {
            known.repositories.entry(repository.clone()).or_default().complete = true;
        }
    }
}

impl Known {
    /// Whether there was room.
    fn add(&mut self, repository: &Repository, digests: &[Digest]) -> bool {
        if self.remembered + digests.len() >= REMEMBERED {
            self.repositories.clear();
            self.remembered = 0;
            self.generation += 1;
            if digests.len() >= REMEMBERED {
                return false;
            }
        }
        self.remembered += usize::from(!self.repositories.contains_key(repository));
        let blobs = self.repositories.entry(repository.clone()).or_default();
        for digest in digests {
            self.remembered += usize::from(blobs.digests.insert(*digest));
        }
        true
    }
}

impl Inner {
    /// Whether a short look finds that the repository has the blob. `false` says nothing.
    pub(super) fn finds_blob(&self, repository: &Repository, digest: &Digest) -> Result<bool, StoreError> {
        let generation = self.members.generation();
        let found = self.is_linked_here(repository, digest)?;
        if found {
            self.members.learn(repository, &[*digest], generation, false);
        }
        Ok(found)
    }

    /// Whether the repository has the blob, by all of its links. Only the walker calls it: the second of two who ask at the
    /// same time finds the first one's result.
    pub(super) fn holds_blob(&self, repository: &Repository, digest: &Digest) -> Result<bool, StoreError> {
        if let Some(answer) = self.members.get(repository, digest) {
            return Ok(answer);
        }
        let generation = self.members.generation();
        let all = self.members_on_disk(repository)?;
        // There is no end to the names of repositories that have no links at all, and to look for theirs again costs little.
        if self.files.disk.metadata(&layout::folder(repository)).is_ok() {
            self.members.learn(repository, &all, generation, true);
        }
        Ok(all.contains(digest))
    }

    /// The two short ways: the blob's own link, or the manifest that the index points to.
    fn is_linked_here(&self, repository: &Repository, digest: &Digest) -> Result<bool, StoreError> {
        if let Some(link) = self.blob_link(repository, digest)? {
            return Ok(link == BlobLink::Has);
        }
        let Some(manifest) = self.index.get(repository, digest) else { return Ok(false) };
        Ok(self.children(repository, &manifest)?.contains(digest))
    }

    /// Every digest that the repository's links speak for.
    pub(super) fn members_on_disk(&self, repository: &Repository) -> Result<Vec<Digest>, StoreError> {
        let (mut all, mut gone) = (Vec::new(), HashSet::new());
        for algorithm in ALGORITHMS {
            for digest in self.linked(&layout::blob_links(repository, algorithm), algorithm)? {
                match self.blob_link(repository, &digest)? {
                    Some(BlobLink::Has) => all.push(digest),
                    Some(BlobLink::Gone) => drop(gone.insert(digest)),
                    None => {}
                }
            }
            for manifest in self.linked(&layout::manifests(repository, algorithm), algorithm)? {
                all.extend(self.children(repository, &manifest)?);
            }
        }
        all.retain(|digest| !gone.contains(digest));
        Ok(all)
    }

    /// What a manifest of this repository refers to; nothing if it is not linked, or its bytes are not here.
    pub(super) fn children(&self, repository: &Repository, manifest: &Digest) -> Result<Vec<Digest>, StoreError> {
        let path = layout::manifest(repository, manifest);
        if self.link(MANIFEST, &path, repository, &manifest.to_string())?.is_none() {
            return Ok(Vec::new());
        }
        let parsed = self.peek_small(manifest)?.and_then(|content| Manifest::parse(&content));
        Ok(parsed.map(|parsed| parsed.children().map(|child| child.digest).collect()).unwrap_or_default())
    }

    pub(super) fn linked(
        &self,
        folder: &std::path::Path,
        algorithm: crate::oci::Algorithm,
    ) -> Result<Vec<Digest>, StoreError> {
        match self.files.disk.list(folder) {
            Err(error) if super::files::is_absent(&error) => Ok(Vec::new()),
            other => {
                let entries = other.map_err(StoreError::io("list", folder))?;
                Ok(entries.iter().filter_map(|entry| layout::digest(algorithm, &entry.name)).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Algorithm, Registry};

    fn repository(name: &str) -> Repository {
        Repository { registry: Registry::new("r.example"), name: name.parse().unwrap() }
    }

    fn digests(from: usize, count: usize) -> Vec<Digest> {
        (from..from + count).map(|n| Digest::of(Algorithm::Sha256, &n.to_le_bytes())).collect()
    }

    #[test]
    fn what_was_read_before_something_was_forgotten_is_not_kept() {
        let (members, a) = (Members::default(), repository("a"));
        let all = digests(0, 2);
        let generation = members.generation();
        members.forget(&a);
        members.learn(&a, &all[..1], generation, true);
        assert_eq!(members.get(&a, &all[0]), None);
        members.learn(&a, &all[..1], members.generation(), true);
        assert_eq!((members.get(&a, &all[0]), members.get(&a, &all[1])), (Some(true), Some(false)));
        members.add(&a, &all[1..]);
        assert_eq!(members.get(&a, &all[1]), Some(true));
    }

    #[test]
    fn memory_is_bounded() {
        let (members, a, b) = (Members::default(), repository("a"), repository("b"));
        members.learn(&a, &digests(0, REMEMBERED - 2), members.generation(), true);
        members.add(&b, &digests(0, 2));
        let known = members.known.read();
        assert_eq!((known.remembered, known.repositories.len()), (3, 1));
        drop(known);
        members.forget(&b);
        assert_eq!(members.known.read().remembered, 0);
        // Repositories whose links speak for nothing any more.
        for number in 0..REMEMBERED + 5 {
            members.learn(&repository(&format!("empty/{number}")), &[], members.generation(), true);
        }
        assert!(members.known.read().repositories.len() < REMEMBERED);
    }
}
