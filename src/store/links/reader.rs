//! Reading links. A link that is torn, empty, of another version or about something else is absent, never an error. So is a
//! manifest's link without the manifest's bytes.

use crate::oci::{Algorithm, Digest, Manifest, MediaType, Repository, Tag, vouched_blobs};
use crate::store::blobs::Documents;
use crate::store::disk::is_absent;
use crate::store::error::StoreError;
use crate::store::files::layout::{self, ALGORITHMS};
use crate::store::files::{Files, Record};
use bytes::Bytes;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

pub(super) const TAG: &str = "tag";
pub(super) const MANIFEST: &str = "manifest";
pub(super) const BLOB: &str = "blob";

/// The field of a blob's link that makes it a tombstone.
pub(super) const GONE: &str = "gone";

/// Where a tag pointed, and when upstream last said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagLink {
    pub digest: Digest,
    /// When upstream last confirmed it.
    pub seen: SystemTime,
}

/// What a blob's link says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlobLink {
    /// The repository has the blob.
    Has,
    /// Upstream has lost or removed it, although manifests name it.
    Tombstone,
}

pub(crate) struct LinkReader {
    pub(crate) files: Arc<Files>,
    pub(crate) documents: Arc<Documents>,
}

impl LinkReader {
    pub(crate) fn tag(&self, repository: &Repository, tag: &Tag) -> Result<Option<TagLink>, StoreError> {
        let Some(record) = self.tag_record(repository, tag)? else { return Ok(None) };
        let digest = record.get("digest").and_then(|digest| digest.parse().ok());
        Ok(digest.zip(record.time("seen")).map(|(digest, seen)| TagLink { digest, seen }))
    }

    /// When a tag last moved. A link of an older larder does not say.
    pub(crate) fn tag_moved(&self, repository: &Repository, tag: &Tag) -> Result<Option<SystemTime>, StoreError> {
        let record = self.tag_record(repository, tag)?;
        Ok(record.and_then(|record| record.time("moved").or_else(|| record.time("seen"))))
    }

    fn tag_record(&self, repository: &Repository, tag: &Tag) -> Result<Option<Record>, StoreError> {
        self.record(TAG, &layout::tag(repository, tag), repository, tag.as_str())
    }

    /// The type in a manifest's link, whether or not the manifest's bytes are here.
    pub(crate) fn linked_type(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<MediaType>, StoreError> {
        let path = layout::manifest(repository, digest);
        let record = self.record(MANIFEST, &path, repository, &digest.to_string())?;
        Ok(record.and_then(|record| record.get("type")?.parse().ok()))
    }

    pub(super) fn blob_link(&self, repository: &Repository, digest: &Digest) -> Result<Option<BlobLink>, StoreError> {
        let record = self.record(BLOB, &layout::blob_link(repository, digest), repository, &digest.to_string())?;
        Ok(record.map(|record| if record.get(GONE).is_some() { BlobLink::Tombstone } else { BlobLink::Has }))
    }

    /// Reads a link, if it is whole and speaks of just this.
    fn record(
        &self,
        kind: &str,
        path: &Path,
        repository: &Repository,
        name: &str,
    ) -> Result<Option<Record>, StoreError> {
        let record = self.files.read(path)?.and_then(|bytes| Record::parse(kind, &bytes));
        Ok(record.filter(|record| record.is_of(repository) && record.get("name") == Some(name)))
    }

    /// The manifests that have a link in the repository.
    pub(crate) fn manifests(&self, repository: &Repository) -> Result<Vec<Digest>, StoreError> {
        self.digests(|algorithm| layout::manifests(repository, algorithm))
    }

    /// The blobs that have a link in the repository, tombstones included.
    pub(crate) fn linked_blobs(&self, repository: &Repository) -> Result<Vec<Digest>, StoreError> {
        self.digests(|algorithm| layout::blob_links(repository, algorithm))
    }

    fn digests(&self, folder: impl Fn(Algorithm) -> std::path::PathBuf) -> Result<Vec<Digest>, StoreError> {
        let mut all = Vec::new();
        for algorithm in ALGORITHMS {
            let folder = folder(algorithm);
            match self.files.disk.list(&folder) {
                Err(error) if is_absent(&error) => {}
                other => {
                    let entries = other.map_err(StoreError::io("list", &folder))?;
                    all.extend(entries.iter().filter_map(|entry| layout::digest(algorithm, &entry.name)));
                }
            }
        }
        Ok(all)
    }

    pub(super) fn blob_links(&self, repository: &Repository) -> Result<Vec<(Digest, BlobLink)>, StoreError> {
        let mut links = Vec::new();
        for digest in self.linked_blobs(repository)? {
            links.extend(self.blob_link(repository, &digest)?.map(|link| (digest, link)));
        }
        Ok(links)
    }

    /// The manifests of a repository, and every blob that its links mention: more than it can be said to have.
    pub(crate) fn mentioned(&self, repository: &Repository) -> Result<Vec<Digest>, StoreError> {
        let links = self.blob_links(repository)?;
        let mut all: Vec<Digest> = links.iter().map(|(digest, _)| *digest).collect();
        let manifests = self.manifests(repository)?;
        for manifest in &manifests {
            all.extend(self.children(repository, manifest)?);
        }
        let gone = links.iter().filter(|(_, link)| *link == BlobLink::Tombstone).map(|(digest, _)| *digest);
        let gone: HashSet<Digest> = gone.collect();
        all.retain(|digest| !gone.contains(digest));
        all.extend(manifests);
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
        let Some(media_type) = self.linked_type(repository, manifest)? else { return Ok(None) };
        Ok(self.documents.peek(manifest)?.map(|content| (media_type, content)))
    }
}
