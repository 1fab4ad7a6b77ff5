//! Fetching ahead: a reference and all that belongs to it goes through the cache's own fills, as background work, so that pulls of
//! people come first. What is stored already costs nothing, so an interrupted warm is continued by the same command.

use super::scope::Platforms;
use crate::cache::{BlobQuery, Cache, CacheError, Content, Entries, List, ManifestRequest, Step};
use crate::oci::{Accept, Digest, MAX_DEPTH, Manifest, Reference, Repository};
use crate::store::{ListKey, Store};
use crate::upstream::in_background;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;

/// Blobs of one reference that are fetched at the same time.
const AT_ONCE: usize = 3;

/// What is to be fetched with a reference.
#[derive(Clone, Debug, Default)]
pub struct Extent {
    /// Of indexes, the platforms whose content is fetched.
    pub platforms: Platforms,
    /// Whether what is attached is fetched, too.
    pub referrers: bool,
    /// Only manifests are fetched, to know the sizes.
    pub dry_run: bool,
}

/// What happens while a reference is fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Progress {
    /// A manifest has come, and names so many bytes that are not stored.
    Manifest {
        /// Bytes that are still to come.
        missing_bytes: u64,
    },
    /// A blob has come.
    Blob {
        /// Its digest.
        digest: String,
        /// Its bytes.
        bytes: u64,
        /// Whether it was stored before.
        present: bool,
    },
}

/// What a warmed reference is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Warmed {
    /// Bytes of all blobs.
    pub bytes: u64,
    /// Of these, bytes that were not stored.
    pub missing: u64,
}

/// Fetches `reference` and all that belongs to it, and tells `progress` of each step. A listener that has gone stops nothing.
pub async fn warm(
    cache: &Cache,
    store: &Store,
    repository: &Repository,
    reference: &Reference,
    extent: &Extent,
    progress: &Sender<Progress>,
) -> Result<Warmed, CacheError> {
    let mut walk = Walk { cache, store, repository, extent, progress, seen: HashSet::new(), warmed: Warmed::default() };
    let mut level = vec![reference.clone()];
    // Indexes in indexes, and what is attached to what is attached.
    for _ in 0..=2 * MAX_DEPTH {
        let mut below = Vec::new();
        for reference in level {
            below.extend(walk.manifest(&reference).await?);
        }
        level = below;
    }
    Ok(walk.warmed)
}

struct Walk<'a> {
    cache: &'a Cache,
    store: &'a Store,
    repository: &'a Repository,
    extent: &'a Extent,
    progress: &'a Sender<Progress>,
    seen: HashSet<Digest>,
    warmed: Warmed,
}

impl Walk<'_> {
    /// A manifest and its blobs; the manifests that are next.
    async fn manifest(&mut self, reference: &Reference) -> Result<Vec<Reference>, CacheError> {
        let accept = Accept::default();
        let request = ManifestRequest { repository: self.repository, reference, accept: &accept, revalidate: false };
        let manifest = Box::pin(in_background(self.cache.manifest(request))).await?.manifest;
        if !self.seen.insert(manifest.digest) {
            return Ok(Vec::new());
        }
        let parsed = Manifest::parse(&manifest.content).unwrap_or_default();
        let blobs = parsed.blobs.iter().filter(|blob| !blob.has_urls && self.seen.insert(blob.digest));
        let blobs: Vec<(Digest, u64)> = blobs.map(|blob| (blob.digest, blob.size.unwrap_or_default())).collect();
        let is_missing = |(digest, _): &&(Digest, u64)| self.store.length(digest).is_none();
        let missing = blobs.iter().filter(is_missing).map(|(_, size)| size).sum();
        self.warmed.bytes += blobs.iter().map(|(_, size)| size).sum::<u64>();
        self.warmed.missing += missing;
        self.tell(Progress::Manifest { missing_bytes: missing }).await;
        if !self.extent.dry_run {
            self.blobs(blobs).await?;
        }
        let wanted = parsed.manifests.iter().filter(|child| self.extent.platforms.want(child.platform.as_deref()));
        let mut next: Vec<Reference> = wanted.map(|child| Reference::Digest(child.digest)).collect();
        if self.extent.referrers {
            next.extend(self.attached(&manifest.digest).await);
        }
        Ok(next)
    }

    async fn blobs(&self, blobs: Vec<(Digest, u64)>) -> Result<(), CacheError> {
        let (mut running, mut waiting) = (JoinSet::new(), blobs.into_iter());
        loop {
            while running.len() < AT_ONCE
                && let Some((digest, _)) = waiting.next()
            {
                let (cache, repository) = (self.cache.clone(), self.repository.clone());
                running
                    .spawn(async move { (digest, Box::pin(in_background(blob(&cache, &repository, &digest))).await) });
            }
            let Some(done) = running.join_next().await else { return Ok(()) };
            let Ok((digest, fetched)) = done else { continue };
            let (bytes, present) = fetched?;
            self.tell(Progress::Blob { digest: digest.to_string(), bytes, present }).await;
        }
    }

    /// Digests of what is attached. A registry that has no such list, or cannot give it, has nothing attached.
    async fn attached(&self, subject: &Digest) -> Vec<Reference> {
        #[derive(Deserialize)]
        struct Descriptor {
            digest: String,
        }
        let key = ListKey::Referrers(self.repository.clone(), *subject);
        let Ok(answer) = Box::pin(in_background(self.cache.list(&key, "", false))).await else { return Vec::new() };
        let List::Whole(entries) = answer.list else { return Vec::new() };
        let Entries::Descriptors(descriptors) = &*entries else { return Vec::new() };
        let digests = descriptors.iter().filter_map(|text| serde_json::from_str::<Descriptor>(text.get()).ok());
        digests.filter_map(|it| it.digest.parse().ok()).map(Reference::Digest).collect()
    }

    async fn tell(&self, progress: Progress) {
        let _ = self.progress.send(progress).await;
    }
}

/// Fetches a blob to its end: its length, and whether it was stored before.
async fn blob(cache: &Cache, repository: &Repository, digest: &Digest) -> Result<(u64, bool), CacheError> {
    let answer = cache.blob(repository, digest, BlobQuery::Whole).await?;
    let present = matches!(answer.content, Content::File(..) | Content::Memory(_));
    let mut transfer = match answer.content {
        Content::Follow(mut follower) => loop {
            match follower.next().await? {
                Some(Step::Part(_)) => {}
                Some(Step::Rest(rest)) => break Some(rest),
                None => break None,
            }
        },
        Content::Transfer(transfer) => Some(transfer),
        _ => None,
    };
    // It is not kept, but read to its end: the digest is checked there.
    while let Some(transfer) = &mut transfer
        && transfer.next().await?.is_some()
    {}
    Ok((answer.length, present))
}
