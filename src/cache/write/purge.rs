//! Forgetting at an operator's word. What is forgotten is asked for upstream the next time. Bytes that have no link
//! left are removed. Those that are being read go when their room is needed.

use super::forget::Forget;
use crate::cache::epochs::{Applying, Epochs, WriteScope};
use crate::cache::error::CacheError;
use crate::oci::{Digest, Registry, Repository, Tag};
use crate::store::{ListKey, RepositoryLinks};
use std::collections::HashSet;
use std::sync::Arc;

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

/// Purges.
#[derive(Debug)]
pub(in crate::cache) struct Purges {
    pub(in crate::cache) forget: Arc<Forget>,
    pub(in crate::cache) epochs: Arc<Epochs>,
}

impl Purges {
    /// Forgets. Downloads that run go on, and link nothing there; answers that are under way are not kept.
    pub(in crate::cache) async fn purge(&self, what: &Purge) -> Result<Purged, CacheError> {
        let mut going = Going::default();
        match what {
            Purge::Tag(repository, tag) => {
                let applying = self.apply(repository).await;
                going.purged.tags = usize::from(self.forget.store.tag(repository, tag).await?.is_some());
                self.forget.tag(&applying, repository, tag).await?;
            }
            Purge::Manifest(repository, digest) => self.purge_manifest(repository, digest, &mut going).await?,
            Purge::Repository(repository) => self.purge_repository(repository, |_| true, &mut going).await?,
            Purge::Upstream(registry) => {
                for repository in self.forget.store.repositories().await?.iter().filter(|it| it.registry == *registry) {
                    self.purge_repository(repository, |_| true, &mut going).await?;
                }
                self.forget.catalogue(registry).await?;
            }
            Purge::Unpinned => {
                for repository in self.forget.store.repositories().await? {
                    let unpinned = |digest: &Digest| !self.forget.store.is_pinned(digest);
                    self.purge_repository(&repository, unpinned, &mut going).await?;
                }
                going.digests = self.forget.store.digests();
                going.digests.retain(|digest| !self.forget.store.is_pinned(digest));
            }
        }
        let Going { purged, digests } = going;
        let bytes = if digests.is_empty() { 0 } else { self.forget.store.remove_unlinked(digests).await? };
        tracing::info!(?what, tags = purged.tags, manifests = purged.manifests, size_bytes = bytes, "purged");
        Ok(Purged { bytes, ..purged })
    }

    async fn purge_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        going: &mut Going,
    ) -> Result<(), CacheError> {
        let applying = self.apply(repository).await;
        let RepositoryLinks { tags, manifests, .. } = self.forget.store.links(repository).await?;
        for digest in self.forget.store.referring(repository, digest).await? {
            going.purged.manifests += usize::from(manifests.contains(&digest));
            going.digests.extend(self.forget.store.refers_to(repository, &digest).await?);
            going.purged.tags += self.forget.manifest(&applying, repository, &digest, &tags).await?.len();
        }
        Ok(())
    }

    async fn purge_repository(
        &self,
        repository: &Repository,
        goes: impl Fn(&Digest) -> bool,
        going: &mut Going,
    ) -> Result<(), CacheError> {
        let applying = self.apply(repository).await;
        let RepositoryLinks { tags, manifests, blobs } = self.forget.store.links(repository).await?;
        for (tag, _) in tags.iter().filter(|(_, digest)| goes(digest)) {
            self.forget.tag(&applying, repository, tag).await?;
            going.purged.tags += 1;
        }
        for digest in manifests.iter().filter(|digest| goes(digest)) {
            going.digests.extend(self.forget.store.refers_to(repository, digest).await?);
            self.forget.manifest(&applying, repository, digest, &[]).await?;
            going.purged.manifests += 1;
        }
        for digest in blobs.iter().filter(|digest| goes(digest)) {
            self.forget.store.unlink_blob(repository, digest).await?;
            going.digests.insert(*digest);
        }
        Ok(self.forget.list(&applying, &ListKey::Tags(repository.clone())).await?)
    }

    /// From here on, nothing is stored that was asked before.
    async fn apply(&self, repository: &Repository) -> Applying {
        self.epochs.begin(repository, WriteScope::Everything).apply().await
    }
}
