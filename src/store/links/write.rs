//! Writing links: which tags and manifests a repository has here, and which blobs upstream said it has.

use super::members::{Member, Members};
use super::pinning::Pinning;
use super::reader::{BLOB, BlobLink, GONE, LinkReader, MANIFEST, TAG, TagLink};
use crate::oci::{Digest, Manifest, MediaType, Repository, Tag, vouched_blobs};
use crate::store::error::StoreError;
use crate::store::evict::{Evictor, Origins, Pins};
use crate::store::files::{Record, Replaced, layout};
use crate::store::index::Index;
use prometheus::IntGauge;
use std::sync::Arc;
use std::time::SystemTime;

pub(crate) struct LinkWriter {
    pub(crate) evictor: Arc<Evictor>,
    pub(crate) reader: Arc<LinkReader>,
    pub(crate) members: Arc<Members>,
    pub(crate) pins: Arc<Pins>,
    pub(crate) pinning: Arc<Pinning>,
    pub(crate) origins: Arc<Origins>,
    pub(crate) index: Arc<Index>,
    pub(crate) tags: IntGauge,
    pub(crate) manifests: IntGauge,
}

impl LinkWriter {
    /// Sets a tag that moved at `moved`; left out: now, unless it points where it did.
    pub(crate) fn put_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        link: TagLink,
        moved: Option<SystemTime>,
    ) -> Result<(), StoreError> {
        let before = self.reader.tag(repository, tag)?;
        let stays = before.is_some_and(|before| before.digest == link.digest);
        let moved = match moved {
            None if stays => self.reader.tag_moved(repository, tag)?,
            moved => moved,
        };
        let record = Record::new().with_repository(repository).with("name", tag);
        let record = record.with("digest", &link.digest).with_time("seen", link.seen);
        let record = record.with_time("moved", moved.unwrap_or(link.seen));
        let is_pinned = self.pins.has_tag(repository, tag);
        if self.evictor.replace(&layout::tag(repository, tag), &record.to_bytes(TAG))? == Replaced::Nothing {
            self.tags.inc();
        }
        // Most tags that are set have only been confirmed.
        if is_pinned && !stays {
            self.pinning.pin_manifest(repository, link.digest);
            self.pins.outdate();
        }
        Ok(())
    }

    pub(crate) fn remove_tag(&self, repository: &Repository, tag: &Tag) -> Result<(), StoreError> {
        if self.reader.files.remove(&layout::tag(repository, tag))? {
            self.tags.dec();
            self.pins.outdate();
        }
        Ok(())
    }

    pub(crate) fn link_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        media_type: &MediaType,
        manifest: &Manifest,
    ) -> Result<(), StoreError> {
        let children: Vec<Digest> = manifest.children().map(|child| child.digest).collect();
        // First: what is linked must not be removed before it is pinned.
        self.pins.linked_manifest(repository, digest, children.iter().copied());
        let path = layout::manifest(repository, digest);
        if self.reader.linked_type(repository, digest)?.as_ref() == Some(media_type) {
            self.reader.files.keep(&path)?;
        } else {
            let record = Record::new().with_repository(repository).with("name", digest).with("type", media_type);
            if self.evictor.replace(&path, &record.to_bytes(MANIFEST))? == Replaced::Nothing {
                self.manifests.inc();
            }
        }
        self.origins.note(&repository.registry, &children);
        self.origins.note(&repository.registry, &[*digest]);
        self.learn_members(repository, digest, media_type)
    }

    /// What a manifest names is the repository's, unless a tombstone says otherwise.
    fn learn_members(
        &self,
        repository: &Repository,
        digest: &Digest,
        media_type: &MediaType,
    ) -> Result<(), StoreError> {
        let content = self.reader.documents.peek(digest)?;
        let (mut members, mut named) = (Vec::new(), Vec::new());
        for blob in content.map(|content| vouched_blobs(media_type, &content)).unwrap_or_default() {
            match self.reader.blob_link(repository, &blob)? {
                Some(BlobLink::Tombstone) => continue,
                Some(BlobLink::Has) => members.push((blob, Member::Own)),
                None => members.push((blob, Member::Named)),
            }
            named.push(blob);
        }
        self.members.add(repository, &members);
        self.index.put(repository, &named, digest);
        Ok(())
    }

    pub(crate) fn unlink_manifest(&self, repository: &Repository, digest: &Digest) -> Result<(), StoreError> {
        let removed = self
            .members
            .while_forgotten(repository, || self.reader.files.remove(&layout::manifest(repository, digest)));
        self.pins.outdate();
        if removed? {
            self.manifests.dec();
        }
        Ok(())
    }

    pub(crate) fn link_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), StoreError> {
        self.pins.linked_blob(repository, digest);
        self.origins.note(&repository.registry, &[*digest]);
        let path = layout::blob_link(repository, digest);
        if self.reader.blob_link(repository, digest)? == Some(BlobLink::Has) {
            self.reader.files.keep(&path)?;
        } else {
            let record = Record::new().with_repository(repository).with("name", digest);
            self.evictor.replace(&path, &record.to_bytes(BLOB))?;
        }
        self.members.add(repository, &[(*digest, Member::Own)]);
        Ok(())
    }

    pub(crate) fn unlink_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), StoreError> {
        let path = layout::blob_link(repository, digest);
        self.members.while_forgotten(repository, || self.reader.files.remove(&path)).map(drop)
    }

    /// Writes that the repository does not have a blob, although manifests name it, until it is linked again.
    pub(crate) fn tombstone_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), StoreError> {
        let record = Record::new().with_repository(repository).with("name", digest).with(GONE, &true);
        let path = layout::blob_link(repository, digest);
        self.members.while_forgotten(repository, || self.evictor.replace(&path, &record.to_bytes(BLOB))).map(drop)
    }
}
