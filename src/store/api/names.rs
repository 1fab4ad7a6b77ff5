use super::Store;
use crate::oci::{Digest, Manifest, MediaType, Repository, Tag};
use crate::store::error::StoreError;
use crate::store::links::{ListKey, Member, RepositoryLinks, StoredList, TagLink};
use bytes::Bytes;
use std::time::SystemTime;

/// What repositories have.
impl Store {
    /// Where a tag pointed when it was last seen.
    pub async fn tag(&self, repository: &Repository, tag: &Tag) -> Result<Option<TagLink>, StoreError> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.read(move |parts| parts.reader.tag(&repository, &tag)).await
    }

    pub async fn set_tag(&self, repository: &Repository, tag: &Tag, link: TagLink) -> Result<(), StoreError> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.write(move |parts| parts.writer.put_tag(&repository, &tag, link, None)).await
    }

    /// When a tag last pointed elsewhere than now, as far as is known.
    pub async fn tag_moved(&self, repository: &Repository, tag: &Tag) -> Result<Option<SystemTime>, StoreError> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.read(move |parts| parts.reader.tag_moved(&repository, &tag)).await
    }

    /// Sets a tag that came in by disk, which moved at `moved`.
    pub async fn import_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        link: TagLink,
        moved: SystemTime,
    ) -> Result<(), StoreError> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.write(move |parts| parts.writer.put_tag(&repository, &tag, link, Some(moved))).await
    }

    pub async fn remove_tag(&self, repository: &Repository, tag: &Tag) -> Result<(), StoreError> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.write(move |parts| parts.writer.remove_tag(&repository, &tag)).await
    }

    /// The media type under which a manifest is served, if it is linked in the repository and its bytes are here.
    pub async fn manifest_type(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<MediaType>, StoreError> {
        let (repository, digest) = (repository.clone(), *digest);
        self.read(move |parts| {
            let media_type = parts.reader.linked_type(&repository, &digest)?;
            Ok(if media_type.is_some() { parts.blobs.open(&digest)?.and(media_type) } else { None })
        })
        .await
    }

    /// Says that the repository has a manifest, whose bytes have been put before.
    pub async fn link_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        media_type: &MediaType,
        manifest: &Manifest,
    ) -> Result<(), StoreError> {
        let (repository, digest, media_type, manifest) =
            (repository.clone(), *digest, media_type.clone(), manifest.clone());
        self.write(move |parts| parts.writer.link_manifest(&repository, &digest, &media_type, &manifest)).await
    }

    /// Says that the repository has a manifest no more.
    pub async fn unlink_manifest(&self, repository: &Repository, digest: &Digest) -> Result<(), StoreError> {
        let (repository, digest) = (repository.clone(), *digest);
        self.write(move |parts| parts.writer.unlink_manifest(&repository, &digest)).await
    }

    /// Whether the repository has a blob: a linked manifest vouches for it, or it has a link of its own. Says nothing about whether
    /// its bytes are here, nor whether they may answer for it. What is known already costs no change of thread.
    pub async fn membership(&self, repository: &Repository, digest: &Digest) -> Result<Option<Member>, StoreError> {
        if let Some(answer) = self.0.membership.known(repository, digest) {
            return Ok(answer);
        }
        let (theirs, digest) = (repository.clone(), *digest);
        if let Some(found) = self.read(move |parts| parts.membership.find(&theirs, &digest)).await? {
            return Ok(Some(found));
        }
        let theirs = repository.clone();
        let walk = self.walk(move |parts| parts.membership.read_all(&theirs, &digest));
        self.0.jobs.readers.within(walk).await
    }

    /// Says that the repository has a blob: upstream said so, or it was pushed there.
    pub async fn link_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), StoreError> {
        let (repository, digest) = (repository.clone(), *digest);
        self.write(move |parts| parts.writer.link_blob(&repository, &digest)).await
    }

    /// Says that the repository has a blob no more, unless a linked manifest names it.
    pub async fn unlink_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), StoreError> {
        let (repository, digest) = (repository.clone(), *digest);
        self.write(move |parts| parts.writer.unlink_blob(&repository, &digest)).await
    }

    /// Says that the repository has a blob no more, although linked manifests may name it; until it is linked again.
    pub async fn tombstone_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), StoreError> {
        let (repository, digest) = (repository.clone(), *digest);
        self.write(move |parts| parts.writer.tombstone_blob(&repository, &digest)).await
    }

    /// The links of one repository, by what they speak for.
    pub async fn links(&self, repository: &Repository) -> Result<RepositoryLinks, StoreError> {
        let repository = repository.clone();
        self.walk(move |parts| parts.inventory.links_of(&repository)).await
    }

    /// Every repository that has a link here. Walks over all of them.
    pub async fn repositories(&self) -> Result<Vec<Repository>, StoreError> {
        self.walk(|parts| parts.inventory.repositories()).await
    }

    /// `digest` and every manifest of the repository that refers to it, directly or not.
    pub async fn referring(&self, repository: &Repository, digest: &Digest) -> Result<Vec<Digest>, StoreError> {
        let (repository, digest) = (repository.clone(), *digest);
        self.walk(move |parts| parts.inventory.referring(&repository, &digest)).await
    }

    /// A linked manifest's digest and all that it refers to, as far as it is here.
    pub async fn refers_to(&self, repository: &Repository, digest: &Digest) -> Result<Vec<Digest>, StoreError> {
        let (repository, digest) = (repository.clone(), *digest);
        self.read(move |parts| Ok(parts.reader.children(&repository, &digest)?.into_iter().chain([digest]).collect()))
            .await
    }

    pub async fn list(&self, key: &ListKey) -> Result<Option<StoredList>, StoreError> {
        let key = key.clone();
        self.read(move |parts| parts.lists.get(&key)).await
    }

    pub async fn set_list(&self, key: &ListKey, list: &StoredList) -> Result<(), StoreError> {
        let (key, list) = (key.clone(), list.clone());
        self.write(move |parts| parts.lists.set(&key, &list)).await
    }

    pub async fn remove_list(&self, key: &ListKey) -> Result<(), StoreError> {
        let key = key.clone();
        self.write(move |parts| parts.lists.remove(&key)).await
    }

    /// What imports wait for, as it was kept.
    pub async fn pending_imports(&self) -> Result<Option<Bytes>, StoreError> {
        self.read(|parts| parts.lists.imports()).await
    }

    /// Keeps what imports wait for, over restarts too.
    pub async fn set_pending_imports(&self, content: Bytes) -> Result<(), StoreError> {
        self.write(move |parts| parts.lists.set_imports(&content)).await
    }

    /// What was asked for in vain, as it was kept.
    pub async fn missing(&self) -> Result<Option<Bytes>, StoreError> {
        self.read(|parts| parts.lists.missing()).await
    }

    /// Keeps what was asked for in vain, over restarts too.
    pub async fn set_missing(&self, content: Bytes) -> Result<(), StoreError> {
        self.write(move |parts| parts.lists.set_missing(&content)).await
    }
}
