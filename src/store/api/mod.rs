use crate::config::StoreSettings;
use crate::oci::{Digest, Manifest, MediaType, Registry, Repository, Tag};
use crate::store::blobs::blob::Blob;
use crate::store::blobs::givers::{Giver, Givers};
use crate::store::disk::Disk;
use crate::store::error::{IngestError, OpenError, StoreError};
use crate::store::evict::pins::Pin;
use crate::store::files::layout::Part;
use crate::store::integrity::inspect::Inspection;
use crate::store::jobs::health::Trouble;
use crate::store::links::inventory::{RepositoryLinks, StoredReference};
use crate::store::links::lists::{ListKey, StoredList};
use crate::store::links::membership::Member;
use crate::store::links::write::TagLink;
use crate::store::parts::Inner;
use crate::store::receive::ingest::Ingest;
use crate::store::receive::upload::Upload;
use crate::telemetry::Metrics;
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

/// An open store; a cheap clone. The folder belongs to this process until [`close`](Self::close).
///
/// Every method that is `async` does its file work on the store's own threads. One that has begun to write goes on if its
/// caller goes away.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

/// How full a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes that are not removed to make room, since no upstream can give them again now.
    pub held: u64,
    /// Bytes that may be on disk.
    pub limit: u64,
    /// Complete blobs.
    pub blobs: u64,
    /// Partial downloads, running or left for later.
    pub ingests: u64,
    /// Whether everything that was there at the start has been counted.
    pub exact: bool,
}

impl Store {
    /// Opens the store's folder, or makes it. Serves at once; what it holds is counted in the background.
    pub async fn open(settings: &StoreSettings, disk: Arc<dyn Disk>, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let (sender, opened) = tokio::sync::oneshot::channel();
        let (theirs, path) = (settings.clone(), settings.path.clone());
        let failed = move |source| OpenError::Io { action: "open", path, source };
        let spawned = std::thread::Builder::new().name("larder-open".into()).spawn(move || {
            let _ = sender.send(crate::store::lifecycle::open::open(&theirs, &disk, &metrics));
        });
        match spawned {
            Ok(_) => opened
                .await
                .unwrap_or_else(|_| Err(failed(std::io::Error::other("the opening thread failed"))))
                .map(Self),
            Err(error) => Err(failed(error)),
        }
    }

    /// Finishes what has begun, writes last use and index, ends the threads and gives the folder free. Whatever is asked
    /// afterwards is answered with [`StoreError::Closed`]. A disk that does not answer is not waited for.
    pub async fn close(&self) {
        self.0.closing.store(true, Ordering::Release);
        if self.0.health.is_hung() {
            tracing::warn!("the disk does not answer: the store is left as it is, without the last use of its blobs");
            return;
        }
        let threads = std::mem::take(&mut *self.0.background.lock());
        for thread in threads {
            thread.stop().await;
        }
        self.0.writers.stop().await;
        self.0.small.stop().await;
        self.0.prober.stop().await;
        self.0.walker.stop().await;
        let _ = self
            .run(|inner| {
                inner.write_last_use();
                inner.index.close();
                if !inner.files.durable() && !inner.suspect.load(Ordering::Acquire) {
                    inner.settle();
                }
                Ok(())
            })
            .await;
        self.0.general.stop().await;
        self.0.release_lock();
    }

    /// How full the store is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            bytes: self.0.space.used(),
            held: self.0.held(),
            limit: self.0.space.limit,
            blobs: self.0.catalogue.len(),
            ingests: self.0.partials.len(),
            exact: self.0.walked.load(Ordering::Acquire),
        }
    }

    /// What is wrong with the disk, if nothing can be stored at the moment.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.0.health.trouble()
    }

    /// Whether nothing is wrong with the disk, as far as is known.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.0.health.is_well()
    }

    /// The complete, verified blob, open. One that was opened a while ago costs no system call and no change of thread.
    pub async fn blob(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        if let Some(blob) = self.0.catalogue.hit(digest) {
            return Ok(Some(blob));
        }
        let digest = *digest;
        self.run(move |inner| inner.open_blob(&digest)).await
    }

    /// A manifest's bytes, checked against the digest. Damaged ones are set aside and `None`, as is what is longer than
    /// [`MAX_MANIFEST`](crate::oci::MAX_MANIFEST).
    pub async fn read_small(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        let digest = *digest;
        self.run(move |inner| {
            let content = inner.read_small(&digest)?;
            if let Some(entry) = inner.catalogue.get(&digest) {
                entry.touch_with_children();
            }
            Ok(content)
        })
        .await
    }

    /// The same without counting as a use of it.
    pub async fn peek_small(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        let digest = *digest;
        self.run(move |inner| inner.peek_small(&digest)).await
    }

    /// The length of a blob that the store knows of, without a system call.
    #[must_use]
    pub fn length(&self, digest: &Digest) -> Option<u64> {
        self.0.catalogue.get(digest).map(|entry| entry.len)
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// Notes that a manifest was given out, without a read: it and all that it refers to is in use.
    pub fn used(&self, digest: &Digest) {
        if let Some(entry) = self.0.catalogue.get(digest) {
            entry.touch_with_children();
        }
    }

    /// Stores a manifest's bytes, checked against the digest.
    pub async fn put_small(&self, digest: &Digest, content: Bytes) -> Result<(), StoreError> {
        let digest = *digest;
        self.write(move |inner| inner.put_small(&digest, &content)).await
    }

    /// Begins to receive a blob of `length` bytes, where that is known, or goes on with what is kept of it.
    pub async fn ingest(&self, digest: &Digest, length: Option<u64>) -> Result<Ingest, IngestError> {
        Ingest::begin(&self.0, Part::new(*digest, None), length).await
    }

    /// The same, for bytes that come from this registry: no other's are gone on with.
    pub async fn ingest_from(&self, registry: &Registry, digest: &Digest) -> Result<Ingest, IngestError> {
        Ingest::begin(&self.0, Part::new(*digest, Some(registry)), None).await
    }

    /// Begins to receive a blob whose digest comes at its end.
    pub async fn upload(&self) -> Result<Upload, StoreError> {
        Upload::begin(&self.0).await
    }

    /// The key that seals upload sessions; made at the first call, the same for whoever has a copy of its file.
    pub async fn upload_key(&self) -> Result<[u8; 32], StoreError> {
        match self.run(Inner::read_upload_key).await? {
            Some(key) => Ok(key),
            None => self.write(Inner::make_upload_key).await,
        }
    }

    /// Where a tag pointed when it was last seen.
    pub async fn tag(&self, repository: &Repository, tag: &Tag) -> Result<Option<TagLink>, StoreError> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.run(move |inner| inner.tag(&repository, &tag)).await
    }

    /// Remembers where a tag points.
    pub async fn set_tag(&self, repository: &Repository, tag: &Tag, link: TagLink) -> Result<(), StoreError> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.write(move |inner| inner.set_tag(&repository, &tag, link)).await
    }

    /// When a tag last pointed elsewhere than now, as far as is known.
    pub async fn tag_moved(&self, repository: &Repository, tag: &Tag) -> Result<Option<SystemTime>, StoreError> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.run(move |inner| inner.tag_moved(&repository, &tag)).await
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
        self.write(move |inner| inner.put_tag(&repository, &tag, link, Some(moved))).await
    }

    /// Forgets a tag.
    pub async fn remove_tag(&self, repository: &Repository, tag: &Tag) -> Result<(), StoreError> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.write(move |inner| inner.remove_tag(&repository, &tag)).await
    }

    /// The media type under which a manifest is served, if it is linked in the repository and its bytes are here.
    pub async fn manifest_type(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<MediaType>, StoreError> {
        let (repository, digest) = (repository.clone(), *digest);
        self.run(move |inner| inner.manifest_type(&repository, &digest)).await
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
        self.write(move |inner| inner.link_manifest(&repository, &digest, &media_type, &manifest)).await
    }

    /// Says that the repository has a manifest no more.
    pub async fn unlink_manifest(&self, repository: &Repository, digest: &Digest) -> Result<(), StoreError> {
        let (repository, digest) = (repository.clone(), *digest);
        self.write(move |inner| inner.unlink_manifest(&repository, &digest)).await
    }

    /// Whether the repository has a blob: a linked manifest vouches for it, or it has a link of its own. Says nothing about whether
    /// its bytes are here, nor whether they may answer for it. What is known already costs no change of thread.
    pub async fn membership(&self, repository: &Repository, digest: &Digest) -> Result<Option<Member>, StoreError> {
        if let Some(answer) = self.0.members.get(repository, digest) {
            return Ok(answer);
        }
        let (repository, digest) = (repository.clone(), *digest);
        let (theirs, inner) = (repository.clone(), Arc::clone(&self.0));
        if let Some(found) = self.run(move |inner| inner.finds_blob(&theirs, &digest)).await? {
            return Ok(Some(found));
        }
        let walk = self.0.walker.run(move || inner.membership(&repository, &digest));
        self.0.general.within(walk).await
    }

    /// Who gave a blob. What is known already costs no change of thread.
    pub async fn givers(&self, digest: &Digest) -> Result<Arc<Givers>, StoreError> {
        if let Some(givers) = self.0.known_givers(digest) {
            return Ok(givers);
        }
        let digest = *digest;
        self.run(move |inner| inner.givers(&digest)).await
    }

    /// Writes down that somebody gave a blob that is stored already.
    pub async fn given_by(&self, digest: &Digest, giver: Giver) -> Result<(), StoreError> {
        let digest = *digest;
        self.write(move |inner| inner.note_givers(&digest, &[giver])).await
    }

    /// Says that the repository has a blob: upstream said so, or it was pushed there.
    pub async fn link_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), StoreError> {
        let (repository, digest) = (repository.clone(), *digest);
        self.write(move |inner| inner.link_blob(&repository, &digest)).await
    }

    /// Tells the store whom to ask which registries cannot give again now what they have given or, asked with `true`, perhaps
    /// cannot: what these alone have is not removed to make room. Asked on the store's threads; the answer must come at once.
    pub fn hold_for(&self, away: impl Fn(bool) -> Vec<Registry> + Send + Sync + 'static) {
        self.0.origins.set_away(Box::new(away));
    }

    /// Notes that a registry has given a blob, whatever its repositories' links say.
    pub fn came_from(&self, digest: &Digest, registry: &Registry) {
        self.0.note_origin(registry, &[*digest]);
    }

    /// Whether there is room for `bytes` more, without anything being removed.
    pub async fn fits(&self, bytes: u64) -> bool {
        let fits = self.run(move |inner| Ok(inner.fits(bytes))).await;
        fits.unwrap_or(true)
    }

    /// Whether room is to be made as soon as something may go.
    #[must_use]
    pub fn wants_room(&self) -> bool {
        self.0.space.over_high().is_some()
    }

    /// A stored list.
    pub async fn list(&self, key: &ListKey) -> Result<Option<StoredList>, StoreError> {
        let key = key.clone();
        self.run(move |inner| inner.list(&key)).await
    }

    /// Stores a list.
    pub async fn set_list(&self, key: &ListKey, list: &StoredList) -> Result<(), StoreError> {
        let (key, list) = (key.clone(), list.clone());
        self.write(move |inner| inner.set_list(&key, &list)).await
    }

    /// Removes a list.
    pub async fn remove_list(&self, key: &ListKey) -> Result<(), StoreError> {
        let key = key.clone();
        self.write(move |inner| inner.remove_list(&key)).await
    }

    /// Everything that can be asked for by tag, with what is here of it. Walks over all links.
    pub async fn references(&self) -> Result<Vec<StoredReference>, StoreError> {
        let inner = Arc::clone(&self.0);
        self.0.walker.run(move || inner.references()).await
    }

    /// The links of one repository, by what they speak for.
    pub async fn links(&self, repository: &Repository) -> Result<RepositoryLinks, StoreError> {
        let (repository, inner) = (repository.clone(), Arc::clone(&self.0));
        self.0.walker.run(move || inner.links_of(&repository)).await
    }

    /// Every repository that has a link here. Walks over all of them.
    pub async fn repositories(&self) -> Result<Vec<Repository>, StoreError> {
        let inner = Arc::clone(&self.0);
        self.0.walker.run(move || inner.repositories()).await
    }

    /// `digest` and every manifest of the repository that refers to it, directly or not.
    pub async fn referring(&self, repository: &Repository, digest: &Digest) -> Result<Vec<Digest>, StoreError> {
        let (repository, digest, inner) = (repository.clone(), *digest, Arc::clone(&self.0));
        self.0.walker.run(move || inner.referring(&repository, &digest)).await
    }

    /// A linked manifest's digest and all that it refers to, as far as it is here.
    pub async fn refers_to(&self, repository: &Repository, digest: &Digest) -> Result<Vec<Digest>, StoreError> {
        let (repository, digest) = (repository.clone(), *digest);
        self.run(move |inner| Ok(inner.children(&repository, &digest)?.into_iter().chain([digest]).collect())).await
    }

    /// Removes those of `digests` that no link speaks for and nobody reads; the bytes that went.
    pub async fn remove_unlinked(&self, digests: HashSet<Digest>) -> Result<u64, StoreError> {
        let inner = Arc::clone(&self.0);
        self.0.walker.run(move || inner.remove_unlinked(digests)).await
    }

    /// The digests of all blobs.
    #[must_use]
    pub fn digests(&self) -> HashSet<Digest> {
        self.0.catalogue.all().into_iter().map(|(digest, _)| digest).collect()
    }

    /// Whether a digest is pinned.
    #[must_use]
    pub fn is_pinned(&self, digest: &Digest) -> bool {
        self.0.pins.has(digest)
    }

    /// All pins: those of the configuration, then those that [`pin`](Self::pin) has added.
    #[must_use]
    pub fn pins(&self) -> (Vec<Pin>, Vec<Pin>) {
        self.0.all_pins()
    }

    /// Adds a pin, which holds from then on, over restarts too. `false`: it was there.
    pub async fn pin(&self, pin: Pin) -> Result<bool, StoreError> {
        let inner = Arc::clone(&self.0);
        self.0.walker.run(move || inner.pin(&pin)).await
    }

    /// Removes a pin that was added. `false`: there is none.
    pub async fn unpin(&self, pin: Pin) -> Result<bool, StoreError> {
        let inner = Arc::clone(&self.0);
        self.0.walker.run(move || inner.unpin(&pin)).await
    }

    /// Begins to hash every blob; with `repair`, damaged ones are set aside. `false`: that goes on already.
    pub fn inspect(&self, repair: bool) -> Result<bool, StoreError> {
        self.0.begin_inspection(repair)
    }

    /// How far the last such look has come.
    #[must_use]
    pub fn inspection(&self) -> Option<Inspection> {
        self.0.inspection()
    }

    /// Says that the repository has a blob no more, unless a linked manifest names it.
    pub async fn unlink_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), StoreError> {
        let (repository, digest) = (repository.clone(), *digest);
        self.write(move |inner| inner.unlink_blob(&repository, &digest)).await
    }

    /// Runs a job that writes, unless that is of no use now.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.0.health.admit()?;
        let inner = Arc::clone(&self.0);
        let result = self.0.small.run(move || job(&inner)).await;
        self.0.health.heed(result)
    }

    /// Says that the repository has a blob no more, although linked manifests may name it; until it is linked again.
    pub async fn disown_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), StoreError> {
        let (repository, digest) = (repository.clone(), *digest);
        self.write(move |inner| inner.disown_blob(&repository, &digest)).await
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.0);
        self.0.general.run(move || job(&inner)).await
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.usage()).finish()
    }
}
