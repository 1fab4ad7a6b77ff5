use super::answer::StoredManifest;
use super::memory::ManifestMemory;
use crate::cache::epochs::{Applying, Epochs, StorePermit};
use crate::cache::error::CacheError;
use crate::cache::freshness::{Age, TagState};
use crate::cache::log::log_and_ignore;
use crate::config::Limits;
use crate::oci::{Digest, MAX_MANIFEST, MediaType, Repository, Tag};
use crate::store::{Store, StoreError, TagLink};
use crate::upstream::{Documents, Room, parse};
use quick_cache::sync;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;

/// The manifests and tags that are stored, with those lately used in memory.
///
/// Where something is removed the file goes first: what memory lacks is looked up there.
#[derive(Debug)]
pub(in crate::cache) struct ManifestTable {
    store: Store,
    epochs: Arc<Epochs>,
    memory: ManifestMemory,
    tags: sync::Cache<(Repository, Tag), TagState>,
    documents: Documents,
}

impl ManifestTable {
    /// Keeps manifests and tags in memory within `limits`; a large manifest that is being read has its room among the `documents`.
    pub(in crate::cache) fn new(store: Store, epochs: Arc<Epochs>, limits: &Limits, documents: Documents) -> Self {
        let memory = ManifestMemory::new(limits.manifest_memory);
        Self { store, epochs, memory, tags: sync::Cache::new(limits.tag_entries), documents }
    }

    /// The manifest, if it may answer for `repository`: memory first, then a link and the blob behind it.
    ///
    /// # Errors
    /// If it is large and there is no room for it.
    pub(in crate::cache) async fn manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Arc<StoredManifest>>, CacheError> {
        if let Some(manifest) = self.memory.get(repository, digest) {
            self.store.used(digest);
            return Ok(Some(manifest));
        }
        let length = self.store.length(digest).and_then(|length| usize::try_from(length).ok());
        // What is longer is no manifest, and is not read.
        let room = self.documents.room(length.unwrap_or_default().min(MAX_MANIFEST)).await?;
        let _permit = self.epochs.read_permit(repository).await;
        let Some(media_type) = self.media_type(repository, digest).await else { return Ok(None) };
        let content = log_and_ignore("read", digest, self.store.read_small(digest).await).flatten();
        let Some(content) = content.map(|content| Room::around(room, content)) else { return Ok(None) };
        let manifest = Arc::new(StoredManifest { content, digest: *digest, media_type });
        self.memory.insert(repository, Arc::clone(&manifest));
        Ok(Some(manifest))
    }

    async fn media_type(&self, repository: &Repository, digest: &Digest) -> Option<MediaType> {
        log_and_ignore("read the link of", digest, self.store.manifest_type(repository, digest).await).flatten()
    }

    /// Whether the repository has the manifest linked here.
    pub(in crate::cache) async fn is_linked(&self, repository: &Repository, digest: &Digest) -> bool {
        self.memory.get(repository, digest).is_some() || self.media_type(repository, digest).await.is_some()
    }

    pub(in crate::cache) async fn tag(&self, repository: &Repository, tag: &Tag) -> Option<TagState> {
        let key = (repository.clone(), tag.clone());
        if let Some(state) = self.tags.get(&key) {
            return Some(state);
        }
        let _permit = self.epochs.read_permit(repository).await;
        let link = log_and_ignore("read the tag", tag, self.store.tag(repository, tag).await)??;
        // Upstream may have said more while the disk was read: what is in memory is never older than the link.
        let Ok(state) = self.tags.get_or_insert_with(&key, || Ok::<_, Infallible>(TagState::from(link)));
        Some(state)
    }

    pub(in crate::cache) async fn tags_of(&self, repository: &Repository) -> Vec<(Tag, Digest)> {
        log_and_ignore("read the links of", repository, self.store.links(repository).await).unwrap_or_default().tags
    }

    /// Stores a manifest: bytes first, then the link that vouches for them. Whether that succeeded.
    pub(in crate::cache) async fn keep_manifest(
        &self,
        _permit: &StorePermit<'_>,
        repository: &Repository,
        manifest: &Arc<StoredManifest>,
    ) -> bool {
        let StoredManifest { content, digest, media_type } = &**manifest;
        let children = parse(content).await.unwrap_or_default();
        let kept = match self.store.put_small(digest, content.clone()).await {
            Ok(()) => self.store.link_manifest(repository, digest, media_type, &children).await,
            Err(error) => Err(error),
        };
        let kept = log_and_ignore("keep the manifest", digest, kept).is_some();
        if kept {
            self.memory.insert(repository, Arc::clone(manifest));
        }
        kept
    }

    /// Stores what `tag` named when it was seen.
    pub(in crate::cache) async fn keep_tag(
        &self,
        _permit: &StorePermit<'_>,
        repository: &Repository,
        tag: &Tag,
        digest: Digest,
        seen: SystemTime,
    ) {
        let link = TagLink { digest, seen };
        log_and_ignore("keep the tag", tag, self.store.set_tag(repository, tag, link).await);
        self.tags.insert((repository.clone(), tag.clone()), TagState { digest, age: Age::since(seen) });
    }

    /// Upstream has just failed to say more of `tag`.
    pub(in crate::cache) fn postpone_tag(
        &self,
        _permit: &StorePermit<'_>,
        repository: &Repository,
        tag: &Tag,
        state: TagState,
    ) {
        self.tags.insert((repository.clone(), tag.clone()), TagState { age: state.age.postponed(), ..state });
    }

    /// What is known of `tag` may be out of date: it stands in for upstream in an outage, and is confirmed before any other
    /// use. The result: whether there is such a tag.
    pub(in crate::cache) async fn doubt_tag(&self, _applying: &Applying, repository: &Repository, tag: &Tag) -> bool {
        let link = log_and_ignore("read the tag", tag, self.store.tag(repository, tag).await).flatten();
        let Some(TagLink { digest, .. }) = link else { return false };
        let link = TagLink { digest, seen: SystemTime::UNIX_EPOCH };
        log_and_ignore("doubt the tag", tag, self.store.set_tag(repository, tag, link).await);
        self.tags.insert((repository.clone(), tag.clone()), TagState { digest, age: Age::unknown() });
        true
    }

    pub(in crate::cache) async fn forget_tag(
        &self,
        _permit: &StorePermit<'_>,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<(), StoreError> {
        self.store.remove_tag(repository, tag).await?;
        self.tags.remove(&(repository.clone(), tag.clone()));
        Ok(())
    }

    pub(in crate::cache) async fn forget_manifest(
        &self,
        _applying: &Applying,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        self.store.unlink_manifest(repository, digest).await?;
        self.memory.remove(repository, digest);
        Ok(())
    }

    /// A manifest's link was written by other means: it is read anew.
    pub(in crate::cache) fn reread_manifest(&self, _applying: &Applying, repository: &Repository, digest: &Digest) {
        self.memory.remove(repository, digest);
    }

    /// A tag's link was written by other means: it is read anew.
    pub(in crate::cache) fn reread_tag(&self, _applying: &Applying, repository: &Repository, tag: &Tag) {
        self.tags.remove(&(repository.clone(), tag.clone()));
    }
}
