//! Forgetting at an operator's word. What is forgotten is asked for upstream the next time. The bytes that nothing speaks for any
//! more are removed, unless somebody reads them: those go when their room is needed.

use crate::cache::epochs::{Applying, WriteScope};
use crate::cache::{Cache, CacheError, Inner};
use crate::oci::{Digest, Registry, Repository, Tag};
use crate::store::{ListKey, RepositoryLinks, StoreError};
use std::collections::HashSet;

/// What is to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purge {
    /// A tag; the manifest that it names stays.
    Tag(Repository, Tag),
    /// A manifest of a repository, every manifest there that refers to it (an index, what is attached to it), and the tags of all.
    Manifest(Repository, Digest),
    /// Everything of a repository.
    Repository(Repository),
    /// Everything of an upstream.
    Upstream(Registry),
    /// Everything that is not pinned.
    Unpinned,
}

/// What has been forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Tags.
    pub tags: usize,
    /// Manifests.
    pub manifests: usize,
    /// Bytes that were removed from the disk.
    pub bytes: u64,
}

/// What goes while links are removed.
#[derive(Default)]
struct Going {
    purged: Purged,
    /// What the links spoke for.
    digests: HashSet<Digest>,
}

impl Cache {
    /// Forgets. Downloads that run go on, and link nothing there; answers that are under way are not kept.
    pub async fn purge(&self, what: &Purge) -> Result<Purged, CacheError> {
        let mut going = Going::default();
        match what {
            Purge::Tag(repository, tag) => {
                let _settling = self.settle(repository).await;
                going.purged.tags = usize::from(self.0.store.tag(repository, tag).await?.is_some());
                self.0.forget_tag(repository, tag).await?;
            }
            Purge::Manifest(repository, digest) => self.purge_manifest(repository, digest, &mut going).await?,
            Purge::Repository(repository) => self.purge_repository(repository, |_| true, &mut going).await?,
            Purge::Upstream(registry) => {
                for repository in self.0.store.repositories().await?.iter().filter(|it| it.registry == *registry) {
                    self.purge_repository(repository, |_| true, &mut going).await?;
                }
                self.0.forget_list(&ListKey::Catalogue(registry.clone())).await?;
            }
            Purge::Unpinned => {
                for repository in self.0.store.repositories().await? {
                    let unpinned = |digest: &Digest| !self.0.store.is_pinned(digest);
                    self.purge_repository(&repository, unpinned, &mut going).await?;
                }
                going.digests = self.0.store.digests();
                going.digests.retain(|digest| !self.0.store.is_pinned(digest));
            }
        }
        let Going { purged, digests } = going;
        let bytes = if digests.is_empty() { 0 } else { self.0.store.remove_unlinked(digests).await? };
        tracing::info!(?what, tags = purged.tags, manifests = purged.manifests, size_bytes = bytes, "purged");
        Ok(Purged { bytes, ..purged })
    }

    async fn purge_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        going: &mut Going,
    ) -> Result<(), CacheError> {
        let _settling = self.settle(repository).await;
        let RepositoryLinks { tags, manifests, .. } = self.0.store.links(repository).await?;
        for digest in self.0.store.referring(repository, digest).await? {
            going.purged.manifests += usize::from(manifests.contains(&digest));
            going.digests.extend(self.0.store.refers_to(repository, &digest).await?);
            going.purged.tags += self.0.forget_manifest(repository, &digest, &tags).await?.len();
        }
        Ok(())
    }

    async fn purge_repository(
        &self,
        repository: &Repository,
        goes: impl Fn(&Digest) -> bool,
        going: &mut Going,
    ) -> Result<(), CacheError> {
        let _settling = self.settle(repository).await;
        let RepositoryLinks { tags, manifests, blobs } = self.0.store.links(repository).await?;
        for (tag, _) in tags.iter().filter(|(_, digest)| goes(digest)) {
            self.0.forget_tag(repository, tag).await?;
            going.purged.tags += 1;
        }
        for digest in manifests.iter().filter(|digest| goes(digest)) {
            going.digests.extend(self.0.store.refers_to(repository, digest).await?);
            self.0.forget_manifest(repository, digest, &[]).await?;
            going.purged.manifests += 1;
        }
        for digest in blobs.iter().filter(|digest| goes(digest)) {
            self.0.store.unlink_blob(repository, digest).await?;
            going.digests.insert(*digest);
        }
        Ok(self.0.forget_list(&ListKey::Tags(repository.clone())).await?)
    }

    /// From here on, nobody keeps what was being asked before.
    async fn settle(&self, repository: &Repository) -> Applying {
        self.0.epochs.begin(repository, WriteScope::Everything).apply().await
    }
}

/// Each only while a write is being applied. The file goes first: what memory lacks is looked up there.
impl Inner {
    pub(in crate::cache) async fn forget_tag(&self, repository: &Repository, tag: &Tag) -> Result<(), StoreError> {
        self.store.remove_tag(repository, tag).await?;
        self.tags.remove(&(repository.clone(), tag.clone()));
        Ok(())
    }

    /// Forgets a manifest and those of `tags` that name it, which are the result.
    pub(in crate::cache) async fn forget_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        tags: &[(Tag, Digest)],
    ) -> Result<Vec<Tag>, StoreError> {
        let mut gone = Vec::new();
        for (tag, _) in tags.iter().filter(|(_, named)| named == digest) {
            self.forget_tag(repository, tag).await?;
            gone.push(tag.clone());
        }
        self.store.unlink_manifest(repository, digest).await?;
        self.memory.remove(repository, digest);
        self.forget_list(&ListKey::Referrers(repository.clone(), *digest)).await?;
        Ok(gone)
    }

    /// Forgets all that is linked in a repository, which is the result.
    pub(in crate::cache) async fn forget_repository(
        &self,
        repository: &Repository,
    ) -> Result<RepositoryLinks, StoreError> {
        let links = self.store.links(repository).await?;
        for (tag, _) in &links.tags {
            self.forget_tag(repository, tag).await?;
        }
        for digest in &links.manifests {
            self.forget_manifest(repository, digest, &[]).await?;
        }
        for digest in &links.blobs {
            self.store.unlink_blob(repository, digest).await?;
        }
        self.forget_list(&ListKey::Tags(repository.clone())).await?;
        Ok(links)
    }

    pub(in crate::cache) async fn forget_list(&self, key: &ListKey) -> Result<(), StoreError> {
        self.store.remove_list(key).await?;
        self.lists.remove(key);
        Ok(())
    }
}
