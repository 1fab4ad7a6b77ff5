//! Whether a repository has a blob: upstream said so there (a blob link), or a linked manifest names the blob in a place that the
//! registry makes sure of. A blob link can also say that it has the blob no more, against all manifests.
//!
//! The files decide. The index points to the manifest to look at and is never believed alone; what the files said is kept in
//! memory, within a bound, so that neither a yes nor a no is looked for twice.

use crate::oci::{Digest, Manifest, MediaType, Repository, vouched_blobs};
use crate::store::error::StoreError;
use crate::store::files::layout::{self, ALGORITHMS};
use crate::store::links::write::{BlobLink, MANIFEST};
use crate::store::parts::Inner;
use bytes::Bytes;
use parking_lot::RwLock;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

/// Digests and repositories remembered, one whose links speak for nothing included: some 20 MiB.
const REMEMBERED: usize = 200_000;

/// Why a repository has a blob, as far as links tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// A manifest of it names the blob: whoever may push there wrote that, and the registry has let it pass.
    Named,
    /// Upstream has said so, there.
    Own,
}

/// What is known in memory.
#[derive(Default)]
pub(crate) struct Members {
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
    digests: HashMap<Digest, Member>,
    /// Whether `digests` is all that the repository has.
    complete: bool,
}

impl Members {
    /// `Some` if it is known whether the repository has the blob, and why.
    #[expect(clippy::option_option, reason = "not known, and known to have none")]
    pub(crate) fn get(&self, repository: &Repository, digest: &Digest) -> Option<Option<Member>> {
        let known = self.known.read();
        let blobs = known.repositories.get(repository)?;
        let member = blobs.digests.get(digest).copied();
        (member.is_some() || blobs.complete).then_some(member)
    }

    /// Something that was just written to the files, whatever else is known.
    pub(crate) fn add(&self, repository: &Repository, members: &[(Digest, Member)]) {
        self.known.write().add(repository, members.iter().copied());
    }

    pub(crate) fn forget(&self, repository: &Repository) {
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
    fn learn(
        &self,
        repository: &Repository,
        members: impl IntoIterator<Item = (Digest, Member), IntoIter: ExactSizeIterator>,
        generation: u64,
        complete: bool,
    ) {
        let mut known = self.known.write();
        if known.generation == generation && known.add(repository, members.into_iter()) && complete {
            known.repositories.entry(repository.clone()).or_default().complete = true;
        }
    }
}

impl Known {
    /// Whether there was room.
    fn add(&mut self, repository: &Repository, members: impl ExactSizeIterator<Item = (Digest, Member)>) -> bool {
        let count = members.len();
        if self.remembered + count >= REMEMBERED {
            self.repositories.clear();
            self.remembered = 0;
            self.generation += 1;
            if count >= REMEMBERED {
                return false;
            }
        }
        self.remembered += usize::from(!self.repositories.contains_key(repository));
        let blobs = self.repositories.entry(repository.clone()).or_default();
        for (digest, why) in members {
            match blobs.digests.entry(digest) {
                // A link that was written meanwhile is not forgotten for what was read before it.
                Entry::Occupied(mut known) => *known.get_mut() = why.max(*known.get()),
                Entry::Vacant(place) => {
                    place.insert(why);
                    self.remembered += 1;
                }
            }
        }
        true
    }
}

impl Inner {
    /// Whether a short look finds that the repository has the blob, and why. `None` says nothing.
    pub(crate) fn finds_blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<Member>, StoreError> {
        let generation = self.members.generation();
        let found = self.is_linked_here(repository, digest)?;
        if let Some(why) = found {
            self.members.learn(repository, [(*digest, why)], generation, false);
        }
        Ok(found)
    }

    /// Whether the repository has the blob, by all of its links. Only the walker calls it: the second of two who ask at the
    /// same time finds the first one's result.
    pub(crate) fn membership(&self, repository: &Repository, digest: &Digest) -> Result<Option<Member>, StoreError> {
        if let Some(answer) = self.members.get(repository, digest) {
            return Ok(answer);
        }
        let generation = self.members.generation();
        let all = self.members_on_disk(repository)?;
        let why = all.get(digest).copied();
        // There is no end to the names of repositories that have no links at all, and to look for theirs again costs little.
        if self.files.disk.metadata(&layout::folder(repository)).is_ok() {
            self.members.learn(repository, all, generation, true);
        }
        Ok(why)
    }

    /// The two short ways: the blob's own link, or the manifest that the index points to.
    fn is_linked_here(&self, repository: &Repository, digest: &Digest) -> Result<Option<Member>, StoreError> {
        if let Some(link) = self.blob_link(repository, digest)? {
            return Ok((link == BlobLink::Has).then_some(Member::Own));
        }
        let Some(manifest) = self.index.get(repository, digest) else { return Ok(None) };
        Ok(self.named(repository, &manifest)?.contains(digest).then_some(Member::Named))
    }

    /// Every blob that the repository has by its links.
    fn members_on_disk(&self, repository: &Repository) -> Result<HashMap<Digest, Member>, StoreError> {
        let (mut all, mut gone) = (HashMap::new(), Vec::new());
        for algorithm in ALGORITHMS {
            for manifest in self.linked(&layout::manifests(repository, algorithm), algorithm)? {
                all.extend(self.named(repository, &manifest)?.into_iter().map(|digest| (digest, Member::Named)));
            }
        }
        for (digest, link) in self.blob_links(repository)? {
            match link {
                BlobLink::Has => {
                    all.insert(digest, Member::Own);
                }
                BlobLink::Gone => gone.push(digest),
            }
        }
        for digest in gone {
            all.remove(&digest);
        }
        Ok(all)
    }

    fn blob_links(&self, repository: &Repository) -> Result<Vec<(Digest, BlobLink)>, StoreError> {
        let mut links = Vec::new();
        for algorithm in ALGORITHMS {
            for digest in self.linked(&layout::blob_links(repository, algorithm), algorithm)? {
                links.extend(self.blob_link(repository, &digest)?.map(|link| (digest, link)));
            }
        }
        Ok(links)
    }

    /// Every digest that the repository's links mention: more than it can be said to have.
    pub(crate) fn mentioned(&self, repository: &Repository) -> Result<Vec<Digest>, StoreError> {
        let links = self.blob_links(repository)?;
        let mut all: Vec<Digest> = links.iter().map(|(digest, _)| *digest).collect();
        for algorithm in ALGORITHMS {
            for manifest in self.linked(&layout::manifests(repository, algorithm), algorithm)? {
                all.extend(self.children(repository, &manifest)?);
            }
        }
        let gone = links.iter().filter(|(_, link)| *link == BlobLink::Gone).map(|(digest, _)| *digest);
        let gone: HashSet<Digest> = gone.collect();
        all.retain(|digest| !gone.contains(digest));
        Ok(all)
    }

    /// What a manifest of this repository refers to; nothing if it is not linked, or its bytes are not here.
    pub(crate) fn children(&self, repository: &Repository, manifest: &Digest) -> Result<Vec<Digest>, StoreError> {
        let Some((_, content)) = self.linked_document(repository, manifest)? else { return Ok(Vec::new()) };
        let parsed = Manifest::parse(&content).unwrap_or_default();
        Ok(parsed.children().map(|child| child.digest).collect())
    }

    /// The blobs that a manifest of this repository vouches for.
    pub(crate) fn named(&self, repository: &Repository, manifest: &Digest) -> Result<Vec<Digest>, StoreError> {
        let document = self.linked_document(repository, manifest)?;
        Ok(document.map(|(media_type, content)| vouched_blobs(&media_type, &content)).unwrap_or_default())
    }

    fn linked_document(
        &self,
        repository: &Repository,
        manifest: &Digest,
    ) -> Result<Option<(MediaType, Bytes)>, StoreError> {
        let path = layout::manifest(repository, manifest);
        let link = self.link(MANIFEST, &path, repository, &manifest.to_string())?;
        let Some(media_type) = link.and_then(|link| link.get("type")?.parse().ok()) else { return Ok(None) };
        Ok(self.peek_small(manifest)?.map(|content| (media_type, content)))
    }

    pub(crate) fn linked(
        &self,
        folder: &std::path::Path,
        algorithm: crate::oci::Algorithm,
    ) -> Result<Vec<Digest>, StoreError> {
        match self.files.disk.list(folder) {
            Err(error) if crate::store::files::small::is_absent(&error) => Ok(Vec::new()),
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

    fn named(from: usize, count: usize) -> Vec<(Digest, Member)> {
        let digests = (from..from + count).map(|n| Digest::of(Algorithm::Sha256, &n.to_le_bytes()));
        digests.map(|digest| (digest, Member::Named)).collect()
    }

    #[test]
    fn what_was_read_before_something_was_forgotten_is_not_kept() {
        let (members, a) = (Members::default(), repository("a"));
        let all = named(0, 2);
        let generation = members.generation();
        members.forget(&a);
        members.learn(&a, all[..1].to_vec(), generation, true);
        assert_eq!(members.get(&a, &all[0].0), None);
        members.learn(&a, all[..1].to_vec(), members.generation(), true);
        assert_eq!((members.get(&a, &all[0].0), members.get(&a, &all[1].0)), (Some(Some(Member::Named)), Some(None)));
        members.add(&a, &[(all[0].0, Member::Own), all[1]]);
        members.add(&a, &all);
        assert_eq!(members.get(&a, &all[0].0), Some(Some(Member::Own)), "a link stays a link");
        assert_eq!(members.get(&a, &all[1].0), Some(Some(Member::Named)));
    }

    #[test]
    fn memory_is_bounded() {
        let (members, a, b) = (Members::default(), repository("a"), repository("b"));
        members.learn(&a, named(0, REMEMBERED - 2), members.generation(), true);
        members.add(&b, &named(0, 2));
        let known = members.known.read();
        assert_eq!((known.remembered, known.repositories.len()), (3, 1));
        drop(known);
        members.forget(&b);
        assert_eq!(members.known.read().remembered, 0);
        // Repositories whose links speak for nothing any more.
        for number in 0..REMEMBERED + 5 {
            members.learn(&repository(&format!("empty/{number}")), [], members.generation(), true);
        }
        assert!(members.known.read().repositories.len() < REMEMBERED);
    }
}
