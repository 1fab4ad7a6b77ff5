//! Manifests that clients put: upstream decides, larder remembers. What upstream has taken is stored, linked and served from then on.

use super::forget::Forget;
use super::relist::Relist;
use super::upload::{count_upload, push_again};
use crate::cache::documents::StoredManifest;
use crate::cache::epochs::{Applying, Epochs, WriteScope};
use crate::cache::error::CacheError;
use crate::cache::log::log_and_ignore;
use crate::cache::negative::Object;
use crate::cache::upstream_state::UpstreamState;
use crate::cache::vouch::Vouch;
use crate::oci::{Algorithm, Digest, Manifest, MediaType, Reference, Repository, Tag};
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::upstream::{ErrorKind, PutManifest, UpstreamError, parse};
use bytes::Bytes;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

/// The error code of a manifest that refers to what the repository lacks (distribution specification, "Error Codes").
const LACKS_BLOBS: &str = "MANIFEST_BLOB_UNKNOWN";

/// A manifest that is to be put.
#[derive(Clone, Debug)]
pub struct Put {
    /// Where.
    pub repository: Repository,
    /// As what. A digest matches the content: the caller has checked it.
    pub reference: Reference,
    /// Tags to be set besides, where upstream knows how (`?tag=`).
    pub tags: Vec<Tag>,
    /// The client's `Content-Type`, as it stands.
    pub media_type: Option<String>,
    /// The document.
    pub content: Bytes,
}

/// What upstream said of a manifest that it has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Under which digest it is there.
    pub digest: Digest,
    /// `OCI-Subject`, if it was said.
    pub subject: Option<String>,
    /// `OCI-Tag`, line by line.
    pub tags: Vec<String>,
    /// Whether it is stored here, to be served without asking.
    pub stored: bool,
}

/// Puts manifests.
#[derive(Debug)]
pub(in crate::cache) struct Puts {
    pub(in crate::cache) store: Store,
    pub(in crate::cache) vouch: Arc<Vouch>,
    pub(in crate::cache) forget: Arc<Forget>,
    pub(in crate::cache) relist: Arc<Relist>,
    pub(in crate::cache) epochs: Arc<Epochs>,
    pub(in crate::cache) metrics: Arc<Metrics>,
}

impl Puts {
    pub(in crate::cache) async fn put(&self, upstream: &UpstreamState, put: &Put) -> Result<Taken, CacheError> {
        let Put { repository, content, .. } = put;
        let tags = put.all_tags();
        let write = self.epochs.begin(repository, WriteScope::Tags(tags.clone()));
        let mut said = forward(put, upstream).await;
        // Read only now: what upstream refuses costs nothing here.
        let is_refused = said.as_ref().err().is_some_and(|error| !lacks_blobs(error) && !error.may_have_happened());
        let parsed = if is_refused { Manifest::default() } else { parse(content).await.unwrap_or_default() };
        if let Err(error) = &said
            && self.restore_what_is_lacking(upstream, repository, &parsed, error).await
        {
            said = forward(put, upstream).await;
        }
        let applying = write.apply().await;
        match said {
            Ok(said) => {
                self.forget.referrers(&applying, repository, parsed.subject).await;
                self.relist.add_repository(&applying, repository).await;
                let set: Vec<Tag> = tags.iter().filter(|tag| put.sets(tag, &said)).cloned().collect();
                self.relist.tags(&applying, repository, &set, &[]).await;
                let stored = if applying.is_conflicted() {
                    self.forget.tags(&applying, repository, &tags).await;
                    false
                } else {
                    self.remember(&applying, put, &said, &tags).await
                };
                let digest = said.digest.unwrap_or_else(|| put.digest());
                Ok(Taken { digest, subject: said.subject, tags: said.tags, stored })
            }
            Err(error) => {
                if error.may_have_happened() {
                    let freshness = upstream.freshness.of(repository);
                    self.forget.doubt_tags(&applying, repository, freshness, &tags).await;
                    self.forget.referrers(&applying, repository, parsed.subject).await;
                    self.relist.tags(&applying, repository, &[], &[]).await;
                    self.relist.add_repository(&applying, repository).await;
                }
                Err(error.into())
            }
        }
    }

    /// Upstream does not have what links here say that it has: the links go. Blobs that the repository had by them, and no other way,
    /// are uploaded again. Whether upstream has taken any: then it is worth asking it again.
    async fn restore_what_is_lacking(
        &self,
        upstream: &UpstreamState,
        repository: &Repository,
        manifest: &Manifest,
        error: &UpstreamError,
    ) -> bool {
        let ErrorKind::Rejected { about, .. } = error.kind() else { return false };
        if !lacks_blobs(error) {
            return false;
        }
        let mut had = Vec::new();
        let lacking = |digest: &Digest| about.is_empty() || about.contains(digest);
        for blob in manifest.blobs.iter().filter(|blob| lacking(&blob.digest)) {
            if self.vouch.is_known_upstream(repository, &blob.digest).await {
                had.push(blob.digest);
            }
            log_and_ignore("forget", blob.digest, self.store.tombstone_blob(repository, &blob.digest).await);
        }
        self.forget_children(repository, manifest.manifests.iter().map(|child| child.digest).filter(lacking)).await;
        let taken = push_again(&self.store, upstream, repository, &had).await;
        for digest in &taken {
            log_and_ignore("link", digest, self.store.link_blob(repository, digest).await);
            count_upload(&self.metrics, repository, "again");
        }
        !taken.is_empty()
    }

    async fn forget_children(&self, repository: &Repository, children: impl Iterator<Item = Digest>) {
        let children: Vec<Digest> = children.collect();
        if children.is_empty() {
            return;
        }
        let applying = self.epochs.begin(repository, WriteScope::Tags(Vec::new())).apply().await;
        for digest in children {
            let gone = self.forget.manifest(&applying, repository, &digest, &[]).await;
            log_and_ignore("forget", digest, gone);
        }
    }

    /// Stores what upstream has taken, under the digest that it named, if that is the content's.
    async fn remember(&self, applying: &Applying, put: &Put, said: &PutManifest, asked: &[Tag]) -> bool {
        let Put { repository, reference, content, .. } = put;
        let (manifests, negatives) = (&self.forget.manifests, &self.forget.negatives);
        let digest = said.digest.filter(|said| matches!(reference, Reference::Tag(_)) || *said == put.digest());
        let digest = digest.unwrap_or_else(|| put.digest());
        let Some(media_type) = put.known_type().await.filter(|_| digest.matches(content)) else {
            self.forget.tags(applying, repository, asked).await;
            return false;
        };
        let manifest = Arc::new(StoredManifest { content: content.clone(), digest, media_type });
        negatives.forget(repository, Object::Manifest(Reference::Digest(digest)));
        let permit = applying.store_permit();
        let kept = manifests.keep_manifest(&permit, repository, &manifest).await;
        for tag in asked.iter().filter(|tag| put.sets(tag, said)) {
            if kept {
                manifests.keep_tag(&permit, repository, tag, digest, SystemTime::now()).await;
                negatives.forget(repository, Object::Manifest(Reference::Tag(tag.clone())));
            } else {
                self.forget.tags(applying, repository, std::slice::from_ref(tag)).await;
            }
        }
        kept
    }
}

async fn forward(put: &Put, upstream: &UpstreamState) -> Result<PutManifest, UpstreamError> {
    let mut query = String::new();
    for tag in &put.tags {
        let joint = if query.is_empty() { "" } else { "&" };
        // A tag needs no encoding, and writing to a text cannot fail.
        let _ = write!(query, "{joint}tag={tag}");
    }
    let (media_type, content) = (put.media_type.as_deref(), put.content.clone());
    upstream.put_manifest(&put.repository, &put.reference, media_type, &query, content).await
}

fn lacks_blobs(error: &UpstreamError) -> bool {
    matches!(error.kind(), ErrorKind::Rejected { code, .. } if code == LACKS_BLOBS)
}

impl Put {
    /// The tags that it is to set.
    fn all_tags(&self) -> Vec<Tag> {
        let own = match &self.reference {
            Reference::Tag(tag) => Some(tag.clone()),
            Reference::Digest(_) => None,
        };
        self.tags.iter().cloned().chain(own).collect()
    }

    /// The content's digest, in the algorithm of the reference.
    fn digest(&self) -> Digest {
        match &self.reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(_) => Digest::of(Algorithm::Sha256, &self.content),
        }
    }

    /// Whether upstream has set `tag`: it was asked for by name, or it says that it did.
    fn sets(&self, tag: &Tag, said: &PutManifest) -> bool {
        matches!(&self.reference, Reference::Tag(own) if own == tag)
            || said.tags.iter().any(|said| said == tag.as_str())
    }

    /// The type that upstream will serve it with: the client's, or where it named none the document's own.
    async fn known_type(&self) -> Option<MediaType> {
        match &self.media_type {
            Some(media_type) => media_type.parse().ok(),
            None => parse(&self.content).await?.media_type,
        }
    }
}
