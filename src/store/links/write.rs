//! Links: which tags and manifests a repository has here, and which blobs upstream said it has.
//!
//! A link that is torn, empty, of another version or about something else is absent, never an error. So is a manifest's link
//! without the manifest's bytes.

use crate::oci::{Digest, Manifest, MediaType, Repository, Tag, vouched_blobs};
use crate::store::error::StoreError;
use crate::store::files::layout;
use crate::store::files::record::Record;
use crate::store::files::small::Replaced;
use crate::store::links::membership::Member;
use crate::store::parts::Inner;
use std::path::Path;
use std::time::SystemTime;

pub(crate) const TAG: &str = "tag";
pub(crate) const MANIFEST: &str = "manifest";
pub(crate) const BLOB: &str = "blob";

/// In a blob's link: upstream has it no more, although manifests name it.
const GONE: &str = "gone";

/// What a blob's link says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlobLink {
    Has,
    Gone,
}

/// Where a tag pointed, and when upstream last said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagLink {
    /// The manifest.
    pub digest: Digest,
    /// When upstream last confirmed it.
    pub seen: SystemTime,
}

impl Inner {
    pub(crate) fn tag(&self, repository: &Repository, tag: &Tag) -> Result<Option<TagLink>, StoreError> {
        let Some(record) = self.link(TAG, &layout::tag(repository, tag), repository, tag.as_str())? else {
            return Ok(None);
        };
        let digest = record.get("digest").and_then(|digest| digest.parse().ok());
        Ok(digest.zip(record.time("seen")).map(|(digest, seen)| TagLink { digest, seen }))
    }

    pub(crate) fn tag_moved(&self, repository: &Repository, tag: &Tag) -> Result<Option<SystemTime>, StoreError> {
        let record = self.link(TAG, &layout::tag(repository, tag), repository, tag.as_str())?;
        // A link of an older larder does not say.
        Ok(record.and_then(|record| record.time("moved").or_else(|| record.time("seen"))))
    }

    pub(crate) fn set_tag(&self, repository: &Repository, tag: &Tag, link: TagLink) -> Result<(), StoreError> {
        self.put_tag(repository, tag, link, None)
    }

    /// Sets a tag that moved at `moved`; left out: now, unless it points where it did.
    pub(crate) fn put_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        link: TagLink,
        moved: Option<SystemTime>,
    ) -> Result<(), StoreError> {
        let before = self.tag(repository, tag)?;
        let stays = before.is_some_and(|before| before.digest == link.digest);
        let moved = match moved {
            None if stays => self.tag_moved(repository, tag)?,
            moved => moved,
        };
        let record = Record::new().with_repository(repository).with("name", tag);
        let record = record.with("digest", &link.digest).with_time("seen", link.seen);
        let record = record.with_time("moved", moved.unwrap_or(link.seen));
        let pinned = self.pins.has_tag(repository, tag);
        if self.replace(&layout::tag(repository, tag), &record.to_bytes(TAG))? == Replaced::Nothing {
            self.tags.inc();
        }
        // Most tags that are set have only been confirmed.
        if pinned && before.is_none_or(|before| before.digest != link.digest) {
            self.pin_manifest(repository, link.digest);
            self.pins.outdate();
        }
        Ok(())
    }

    pub(crate) fn remove_tag(&self, repository: &Repository, tag: &Tag) -> Result<(), StoreError> {
        if self.files.remove(&layout::tag(repository, tag))? {
            self.tags.dec();
            self.pins.outdate();
        }
        Ok(())
    }

    pub(crate) fn manifest_type(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<MediaType>, StoreError> {
        let path = layout::manifest(repository, digest);
        let Some(record) = self.link(MANIFEST, &path, repository, &digest.to_string())? else { return Ok(None) };
        if self.open_blob(digest)?.is_none() {
            return Ok(None);
        }
        Ok(record.get("type").and_then(|media_type| media_type.parse().ok()))
    }

    pub(crate) fn link_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        media_type: &MediaType,
        manifest: &Manifest,
    ) -> Result<(), StoreError> {
        // First: what is linked must not be removed before it is pinned.
        self.pins.linked_manifest(repository, digest, manifest.children().map(|child| child.digest));
        let path = layout::manifest(repository, digest);
        let old = self.link(MANIFEST, &path, repository, &digest.to_string())?;
        let record = Record::new().with_repository(repository).with("name", digest).with("type", media_type);
        if old.is_some_and(|old| old.get("type") == Some(media_type.as_str())) {
            self.files.keep(&path)?;
        } else if self.replace(&path, &record.to_bytes(MANIFEST))? == Replaced::Nothing {
            self.manifests.inc();
        }
        let children: Vec<Digest> = manifest.children().map(|child| child.digest).collect();
        self.note_origin(&repository.registry, &children);
        self.note_origin(&repository.registry, &[*digest]);
        let (mut members, mut named) = (Vec::new(), Vec::new());
        for blob in self.peek_small(digest)?.map(|content| vouched_blobs(media_type, &content)).unwrap_or_default() {
            match self.blob_link(repository, &blob)? {
                Some(BlobLink::Gone) => continue,
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
        // Forgotten before and after: nothing learned in between from the link that goes may stay.
        self.members.forget(repository);
        let removed = self.files.remove(&layout::manifest(repository, digest));
        self.members.forget(repository);
        self.pins.outdate();
        if removed? {
            self.manifests.dec();
        }
        Ok(())
    }

    pub(crate) fn link_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), StoreError> {
        self.pins.linked_blob(repository, digest);
        self.note_origin(&repository.registry, &[*digest]);
        let path = layout::blob_link(repository, digest);
        if self.blob_link(repository, digest)? == Some(BlobLink::Has) {
            self.files.keep(&path)?;
        } else {
            let record = Record::new().with_repository(repository).with("name", digest);
            self.replace(&path, &record.to_bytes(BLOB))?;
        }
        self.members.add(repository, &[(*digest, Member::Own)]);
        Ok(())
    }

    pub(crate) fn unlink_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), StoreError> {
        self.members.forget(repository);
        let removed = self.files.remove(&layout::blob_link(repository, digest));
        self.members.forget(repository);
        removed.map(|_| ())
    }

    /// Says that the repository has a blob no more, whatever its manifests say, until it is linked again.
    pub(crate) fn disown_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), StoreError> {
        self.members.forget(repository);
        let record = Record::new().with_repository(repository).with("name", digest).with(GONE, &true);
        let written = self.replace(&layout::blob_link(repository, digest), &record.to_bytes(BLOB));
        self.members.forget(repository);
        written.map(|_| ())
    }

    /// What the repository's own link says of a blob.
    pub(crate) fn blob_link(&self, repository: &Repository, digest: &Digest) -> Result<Option<BlobLink>, StoreError> {
        let link = self.link(BLOB, &layout::blob_link(repository, digest), repository, &digest.to_string())?;
        Ok(link.map(|link| if link.get(GONE).is_some() { BlobLink::Gone } else { BlobLink::Has }))
    }

    /// Reads a link, if it is whole and speaks of just this.
    pub(crate) fn link(
        &self,
        kind: &str,
        path: &Path,
        repository: &Repository,
        name: &str,
    ) -> Result<Option<Record>, StoreError> {
        let record = self.files.read(path)?.and_then(|bytes| Record::parse(kind, &bytes));
        Ok(record.filter(|record| record.is_of(repository) && record.get("name") == Some(name)))
    }
}
