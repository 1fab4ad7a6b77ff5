use super::Store;
use crate::oci::{Digest, Registry};
use crate::store::blobs::{Blob, Giver, Givers};
use crate::store::error::{IngestError, StoreError};
use crate::store::evict::{AwayRegistries, Hold};
use crate::store::files::partials::Part;
use crate::store::files::upload_key;
use crate::store::receive::{Ingest, Upload};
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::Arc;

/// Blobs and manifests' bytes, coming in, being read, and being kept.
impl Store {
    /// The complete, verified blob, open. One that was opened a while ago costs no system call and no change of thread.
    pub async fn blob(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        if let Some(blob) = self.0.blobs.table.hit(digest) {
            return Ok(Some(blob));
        }
        let digest = *digest;
        self.read(move |parts| parts.blobs.open(&digest)).await
    }

    /// The length of a blob that the store knows of, without a system call.
    #[must_use]
    pub fn length(&self, digest: &Digest) -> Option<u64> {
        self.0.blobs.table.get(digest).map(|entry| entry.len)
    }

    #[must_use]
    pub fn digests(&self) -> HashSet<Digest> {
        self.0.blobs.table.all().into_iter().map(|(digest, _)| digest).collect()
    }

    /// A manifest's bytes, checked against the digest. Damaged ones are set aside and `None`, as is what is longer than
    /// [`MAX_MANIFEST`](crate::oci::MAX_MANIFEST).
    pub async fn read_small(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        let digest = *digest;
        self.read(move |parts| {
            let content = parts.intake.documents.read(&digest)?;
            parts.blobs.table.touch_with_children(&digest);
            Ok(content)
        })
        .await
    }

    /// The same without counting as a use of it.
    pub async fn peek_small(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        let digest = *digest;
        self.read(move |parts| parts.intake.documents.peek(&digest)).await
    }

    /// Notes that a manifest was given out, without a read: it and all that it refers to is in use.
    pub fn used(&self, digest: &Digest) {
        self.0.blobs.table.touch_with_children(digest);
    }

    /// Stores a manifest's bytes, checked against the digest.
    pub async fn put_small(&self, digest: &Digest, content: Bytes) -> Result<(), StoreError> {
        let digest = *digest;
        self.write(move |parts| parts.intake.put_small(&digest, &content)).await
    }

    /// Begins to receive a blob of `length` bytes, where that is known, or continues what is kept of it.
    pub async fn ingest(&self, digest: &Digest, length: Option<u64>) -> Result<Ingest, IngestError> {
        Ingest::begin(&self.0.intake, Part::new(*digest, None), length).await
    }

    /// The same, for bytes that come from this registry: it does not continue what another one has given.
    pub async fn ingest_from(&self, registry: &Registry, digest: &Digest) -> Result<Ingest, IngestError> {
        Ingest::begin(&self.0.intake, Part::new(*digest, Some(registry)), None).await
    }

    /// Begins to receive a blob whose digest comes at its end.
    pub async fn upload(&self) -> Result<Upload, StoreError> {
        Upload::begin(&self.0.intake).await
    }

    /// The key that seals upload sessions, made at the first call. Larders that share a copy of its file have the same key.
    pub async fn upload_key(&self) -> Result<[u8; 32], StoreError> {
        match self.read(|parts| upload_key::read(&parts.blobs.files)).await? {
            Some(key) => Ok(key),
            None => self.write(|parts| upload_key::make(&parts.blobs.files)).await,
        }
    }

    /// Who gave a blob. What is known already costs no change of thread.
    pub async fn givers(&self, digest: &Digest) -> Result<Arc<Givers>, StoreError> {
        if let Some(givers) = self.0.givers.known(digest) {
            return Ok(givers);
        }
        let digest = *digest;
        self.read(move |parts| parts.givers.read(&digest)).await
    }

    /// Adds a giver to a blob that is stored already.
    pub async fn given_by(&self, digest: &Digest, giver: Giver) -> Result<(), StoreError> {
        let digest = *digest;
        self.write(move |parts| parts.intake.add_givers(&digest, &[giver])).await
    }

    /// Notes that a registry has given a blob, whatever its repositories' links say.
    pub fn came_from(&self, digest: &Digest, registry: &Registry) {
        self.0.origins.note(registry, &[*digest]);
    }

    /// Says once who knows which registries can give content again. What only registries have that are away is not evicted.
    pub fn set_away_registries(&self, registries: Arc<dyn AwayRegistries>) {
        self.0.origins.set_away_registries(registries);
    }

    /// Whether room could be made for so many bytes; nothing is removed for the question.
    pub async fn could_hold(&self, bytes: u64) -> Result<(), StoreError> {
        self.read(move |parts| parts.evictor.reserve_announced(bytes).map(drop)).await
    }

    /// Whether there is room for `bytes` more, without anything being evicted.
    pub async fn fits(&self, bytes: u64) -> bool {
        self.read(move |parts| Ok(parts.evictor.fits(bytes))).await.unwrap_or(true)
    }

    /// Whether an eviction is due as soon as something may go.
    #[must_use]
    pub fn wants_eviction(&self) -> bool {
        self.0.blobs.files.space.over_high().is_some()
    }

    /// Keeps these contents from being evicted as long as the guard lives.
    #[must_use]
    pub fn hold(&self, digests: impl IntoIterator<Item = Digest>) -> Hold {
        self.0.holds.add(digests.into_iter().collect())
    }
}
