//! Fetching ahead: a reference and all that belongs to it goes through the cache's own fills, as background work, so that pulls of
//! people come first. What is stored already costs nothing, so an interrupted warm is continued by the same command.

use super::scope::Platforms;
use crate::cache::{BlobQuery, Cache, CacheError, Content, Entries, List, ManifestRequest, Step};
use crate::oci::{Accept, Digest, MAX_DEPTH, Manifest, Reference, Repository};
use crate::store::{ListKey, Store};
use crate::upstream::in_background;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Blobs of one reference that are fetched at the same time.
const AT_ONCE: usize = 3;
/// How long a blob that has come may take to be in its place, and how often that is looked at.
const KEPT_WITHIN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);

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
        /// Whose it is.
        repository: String,
        /// Bytes that are still to come.
        missing_bytes: u64,
        /// What it names, where nothing more is fetched.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        blobs: Vec<Planned>,
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

/// A blob that would be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    digest: String,
    bytes: u64,
    present: bool,
}

/// What a warmed reference is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Warmed {
    /// Bytes of all blobs.
    pub bytes: u64,
    /// Of these, bytes that were not stored.
    pub missing: u64,
    /// Blobs that came and were not kept: there was no room, or the disk failed.
    pub unkept: u64,
}

/// Fetches `reference` and all that belongs to it, and tells `progress` of each step. A listener that has gone stops nothing. A digest
/// that is no manifest's may be a blob's: a far side asks for both.
pub async fn warm(
    cache: &Cache,
    store: &Store,
    repository: &Repository,
    reference: &Reference,
    extent: &Extent,
    progress: &Sender<Progress>,
) -> Result<Warmed, CacheError> {
    let mut walk = Walk {
        cache,
        store,
        repository,
        extent,
        progress,
        seen: HashSet::new(),
        warmed: Warmed::default(),
        tags: None,
    };
    let mut level = vec![reference.clone()];
    // Indexes in indexes, and what is attached to what is attached.
    for _ in 0..=2 * MAX_DEPTH {
        let mut below = Vec::new();
        for asked in level {
            match (walk.manifest(&asked).await, &asked) {
                (Ok(next), _) => below.extend(next),
                (Err(error), Reference::Digest(digest)) if asked == *reference && !extent.dry_run => {
                    let fetched = Box::pin(in_background(blob(cache, repository, digest))).await;
                    let (bytes, present) = fetched.map_err(|_| error)?;
                    let missing = if present { 0 } else { bytes };
                    return Ok(Warmed { bytes, missing, unkept: 0 });
                }
                (Err(error), _) => return Err(error),
            }
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
    /// The repository's tags, once they were asked for; none if they cannot be had.
    tags: Option<Vec<String>>,
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
        let planned = if self.extent.dry_run { self.planned(&blobs) } else { Vec::new() };
        let repository = self.repository.to_string();
        self.tell(Progress::Manifest { repository, missing_bytes: missing, blobs: planned }).await;
        if !self.extent.dry_run {
            self.blobs(blobs).await?;
        }
        let wanted = parsed.manifests.iter().filter(|child| self.extent.platforms.want(child.platform.as_deref()));
        let mut next: Vec<Reference> = wanted.map(|child| Reference::Digest(child.digest)).collect();
        if self.extent.referrers {
            next.extend(self.attached(&manifest.digest).await);
            next.extend(self.attached_by_tag(&manifest.digest).await);
        }
        Ok(next)
    }

    fn planned(&self, blobs: &[(Digest, u64)]) -> Vec<Planned> {
        let planned = blobs.iter().map(|(digest, bytes)| Planned {
            digest: digest.to_string(),
            bytes: *bytes,
            present: self.store.length(digest).is_some(),
        });
        planned.collect()
    }

    /// Whether what has come is stored, which it is a moment after its last byte: it is synced first.
    async fn is_kept(&self, digest: &Digest) -> bool {
        let end = Instant::now() + KEPT_WITHIN;
        while self.store.length(digest).is_none() {
            if Instant::now() >= end || !self.store.is_well() {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    async fn blobs(&mut self, blobs: Vec<(Digest, u64)>) -> Result<(), CacheError> {
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
            let (digest, fetched) = done.map_err(|_| CacheError::Aborted)?;
            let (bytes, present) = fetched?;
            if !present && !self.is_kept(&digest).await {
                self.warmed.unkept += 1;
                continue;
            }
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

    /// Tags that stand for what is attached (`sha256-<hex>`, `sha256-<hex>.sig`): older registries and tools know no other way.
    async fn attached_by_tag(&mut self, subject: &Digest) -> Vec<Reference> {
        if self.tags.is_none() {
            self.tags = Some(tags_of(self.cache, self.repository).await.unwrap_or_default());
        }
        let tags = self.tags.as_deref().unwrap_or_default();
        let begins = format!("{}-{}", subject.algorithm().as_str(), subject.hex());
        let is_it =
            |tag: &&String| tag.strip_prefix(&begins).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        tags.iter().filter(is_it).filter_map(|tag| tag.parse().ok()).map(Reference::Tag).collect()
    }

    async fn tell(&self, progress: Progress) {
        let _ = self.progress.send(progress).await;
    }
}

/// The tags of a repository, asked for as background work; what is too long to be kept has none.
pub async fn tags_of(cache: &Cache, repository: &Repository) -> Result<Vec<String>, CacheError> {
    let key = ListKey::Tags(repository.clone());
    let List::Whole(entries) = Box::pin(in_background(cache.list(&key, "", false))).await?.list else {
        return Ok(Vec::new());
    };
    Ok(if let Entries::Names(tags) = &*entries { tags.clone() } else { Vec::new() })
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
