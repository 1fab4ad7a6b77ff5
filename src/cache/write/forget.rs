use crate::cache::documents::{ListTable, ManifestTable};
use crate::cache::epochs::{Applying, Epochs};
use crate::cache::freshness::Freshness;
use crate::cache::log::log_and_ignore;
use crate::cache::negative::{Negatives, Object};
use crate::oci::{Digest, Reference, Registry, Repository, Tag};
use crate::store::{ListKey, RepositoryLinks, Store, StoreError};
use std::sync::Arc;

/// Forgets what a write has removed, or may have.
#[derive(Debug)]
pub(in crate::cache) struct Forget {
    pub(in crate::cache) store: Store,
    pub(in crate::cache) manifests: Arc<ManifestTable>,
    pub(in crate::cache) lists: Arc<ListTable>,
    pub(in crate::cache) negatives: Arc<Negatives>,
    pub(in crate::cache) epochs: Arc<Epochs>,
}

impl Forget {
    pub(super) async fn tag(&self, applying: &Applying, repository: &Repository, tag: &Tag) -> Result<(), StoreError> {
        self.manifests.forget_tag(&applying.store_permit(), repository, tag).await
    }

    /// Forgets tags, and that upstream did not have them.
    pub(super) async fn tags(&self, applying: &Applying, repository: &Repository, tags: &[Tag]) {
        for tag in tags {
            self.negatives.forget(repository, Object::Manifest(Reference::Tag(tag.clone())));
            log_and_ignore("forget the tag", tag, self.tag(applying, repository, tag).await);
        }
    }

    /// What is known of `tags` may be out of date.
    pub(super) async fn doubt_tags(
        &self,
        applying: &Applying,
        repository: &Repository,
        freshness: &Freshness,
        tags: &[Tag],
    ) {
        for tag in tags {
            self.negatives.forget(repository, Object::Manifest(Reference::Tag(tag.clone())));
            // A tag that never moves is never asked for again: it cannot be doubted, only forgotten.
            let doubted = !freshness.is_immutable(tag) && self.manifests.doubt_tag(applying, repository, tag).await;
            if !doubted {
                log_and_ignore("forget the tag", tag, self.tag(applying, repository, tag).await);
            }
        }
    }

    /// Forgets a manifest and those of `tags` that name it, which are the result.
    pub(super) async fn manifest(
        &self,
        applying: &Applying,
        repository: &Repository,
        digest: &Digest,
        tags: &[(Tag, Digest)],
    ) -> Result<Vec<Tag>, StoreError> {
        let mut gone = Vec::new();
        for (tag, _) in tags.iter().filter(|(_, named)| named == digest) {
            self.tag(applying, repository, tag).await?;
            gone.push(tag.clone());
        }
        self.manifests.forget_manifest(applying, repository, digest).await?;
        self.list(applying, &ListKey::Referrers(repository.clone(), *digest)).await?;
        Ok(gone)
    }

    /// Forgets all that is linked in a repository, which is the result.
    pub(super) async fn repository(
        &self,
        applying: &Applying,
        repository: &Repository,
    ) -> Result<RepositoryLinks, StoreError> {
        let links = self.store.links(repository).await?;
        for (tag, _) in &links.tags {
            self.tag(applying, repository, tag).await?;
        }
        for digest in &links.manifests {
            self.manifest(applying, repository, digest, &[]).await?;
        }
        for digest in &links.blobs {
            self.store.unlink_blob(repository, digest).await?;
        }
        self.list(applying, &ListKey::Tags(repository.clone())).await?;
        Ok(links)
    }

    /// Forgets a list of the repository.
    pub(super) async fn list(&self, applying: &Applying, key: &ListKey) -> Result<(), StoreError> {
        self.lists.forget(&applying.store_permit(), key).await
    }

    /// The lists in which a manifest stands, or does no more, beside its subject.
    pub(super) async fn referrers(
        &self,
        applying: &Applying,
        repository: &Repository,
        subjects: impl IntoIterator<Item = Digest>,
    ) {
        for subject in subjects {
            let list = ListKey::Referrers(repository.clone(), subject);
            log_and_ignore("forget the referrers of", subject, self.list(applying, &list).await);
        }
    }

    pub(super) async fn catalogue(&self, registry: &Registry) -> Result<(), StoreError> {
        let change = self.epochs.change_catalogue(registry).await;
        self.lists.forget(&change.store_permit(), &ListKey::Catalogue(registry.clone())).await
    }
}
