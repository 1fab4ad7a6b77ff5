//! Whether a repository has a blob: upstream said so there (a blob link), or a linked manifest names the blob in a place that the
//! registry makes sure of. A tombstone says that it does not, against all manifests.
//!
//! The files decide. The index points to the manifest to look at and is never believed alone.

use super::members::{Member, Members};
use super::reader::{BlobLink, LinkReader};
use crate::oci::{Digest, Repository};
use crate::store::error::StoreError;
use crate::store::files::layout;
use crate::store::index::Index;
use std::collections::HashMap;
use std::sync::Arc;

pub(crate) struct Membership {
    pub(crate) reader: Arc<LinkReader>,
    pub(crate) members: Arc<Members>,
    pub(crate) index: Arc<Index>,
}

impl Membership {
    /// What memory says, without a system call.
    #[expect(clippy::option_option, reason = "not known, and known to have none")]
    pub(crate) fn known(&self, repository: &Repository, digest: &Digest) -> Option<Option<Member>> {
        self.members.get(repository, digest)
    }

    /// Whether a short look finds that the repository has the blob: its own link, or the manifest that the index points to. `None`
    /// says nothing.
    pub(crate) fn find(&self, repository: &Repository, digest: &Digest) -> Result<Option<Member>, StoreError> {
        let generation = self.members.generation();
        let found = match self.reader.blob_link(repository, digest)? {
            Some(link) => (link == BlobLink::Has).then_some(Member::Own),
            None => match self.index.get(repository, digest) {
                Some(manifest) => self.reader.named(repository, &manifest)?.contains(digest).then_some(Member::Named),
                None => None,
            },
        };
        if let Some(why) = found {
            self.members.learn(repository, [(*digest, why)], generation, false);
        }
        Ok(found)
    }

    /// Whether the repository has the blob, by all of its links. One thread calls it: the second of two callers that ask at the same
    /// time finds the first one's result in memory.
    pub(crate) fn read_all(&self, repository: &Repository, digest: &Digest) -> Result<Option<Member>, StoreError> {
        if let Some(answer) = self.members.get(repository, digest) {
            return Ok(answer);
        }
        let generation = self.members.generation();
        let all = self.on_disk(repository)?;
        let why = all.get(digest).copied();
        // The names of repositories without links have no end, and to look for their links again costs little.
        if self.reader.files.disk.metadata(&layout::folder(repository)).is_ok() {
            self.members.learn(repository, all, generation, true);
        }
        Ok(why)
    }

    fn on_disk(&self, repository: &Repository) -> Result<HashMap<Digest, Member>, StoreError> {
        let mut all = HashMap::new();
        for manifest in self.reader.manifests(repository)? {
            all.extend(self.reader.named(repository, &manifest)?.into_iter().map(|digest| (digest, Member::Named)));
        }
        for (digest, link) in self.reader.blob_links(repository)? {
            match link {
                BlobLink::Has => all.insert(digest, Member::Own),
                BlobLink::Tombstone => all.remove(&digest),
            };
        }
        Ok(all)
    }
}
