//! Forgetting at an operator's word. What is forgotten is asked for upstream the next time; its bytes stay on disk until their
//! room is needed, and answer for nobody who has no link to them.

use super::{Cache, CacheError};
use crate::oci::{Digest, Repository, Tag};
use crate::store::{ListKey, RepositoryLinks};

/// What is to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purge {
    /// A tag; the manifest that it names stays.
    Tag(Repository, Tag),
    /// A manifest of a repository, and every tag there that names it.
    Manifest(Repository, Digest),
    /// Everything of a repository.
    Repository(Repository),
}

/// What has been forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Tags.
    pub tags: usize,
    /// Manifests.
    pub manifests: usize,
}

impl Cache {
    /// Forgets. Downloads that run go on, and link what they bring anew.
    pub async fn purge(&self, what: &Purge) -> Result<Purged, CacheError> {
        match what {
            Purge::Tag(repository, tag) => {
                let known = self.0.store.tag(repository, tag).await?.is_some();
                self.forget_tag(repository, tag).await?;
                Ok(Purged { tags: usize::from(known), manifests: 0 })
            }
            Purge::Manifest(repository, digest) => {
                let RepositoryLinks { tags, manifests, .. } = self.0.store.links(repository).await?;
                let mut purged = Purged { tags: 0, manifests: usize::from(manifests.contains(digest)) };
                for (tag, _) in tags.iter().filter(|(_, named)| named == digest) {
                    self.forget_tag(repository, tag).await?;
                    purged.tags += 1;
                }
                self.forget_manifest(repository, digest).await?;
                Ok(purged)
            }
            Purge::Repository(repository) => {
                let RepositoryLinks { tags, manifests, blobs } = self.0.store.links(repository).await?;
                for (tag, _) in &tags {
                    self.forget_tag(repository, tag).await?;
                }
                for digest in &manifests {
                    self.forget_manifest(repository, digest).await?;
                }
                for digest in &blobs {
                    self.0.store.unlink_blob(repository, digest).await?;
                }
                self.forget_list(&ListKey::Tags(repository.clone())).await?;
                Ok(Purged { tags: tags.len(), manifests: manifests.len() })
            }
        }
    }

    async fn forget_tag(&self, repository: &Repository, tag: &Tag) -> Result<(), CacheError> {
        // The file first: what memory lacks is looked up there.
        self.0.store.remove_tag(repository, tag).await?;
        self.0.tags.remove(&(repository.clone(), tag.clone()));
        Ok(())
    }

    async fn forget_manifest(&self, repository: &Repository, digest: &Digest) -> Result<(), CacheError> {
        self.0.store.unlink_manifest(repository, digest).await?;
        self.0.memory.remove(repository, digest);
        self.forget_list(&ListKey::Referrers(repository.clone(), *digest)).await
    }

    async fn forget_list(&self, key: &ListKey) -> Result<(), CacheError> {
        self.0.store.remove_list(key).await?;
        self.0.lists.remove(key);
        Ok(())
    }
}
