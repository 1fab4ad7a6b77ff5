//! Manifests that clients put: upstream decides, larder remembers. What upstream has taken is stored, linked and served from then on.

use crate::cache::answer::StoredManifest;
use crate::cache::epochs::WriteScope;
use crate::cache::negative::Object;
use crate::cache::upstream_state::state::UpstreamState;
use crate::cache::{Cache, CacheError, Inner, log_and_ignore};
use crate::oci::{Algorithm, Digest, Manifest, MediaType, Reference, Repository, Tag};
use crate::store::ListKey;
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
    /// As what. A digest matches the content: whoever asks has seen to it.
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

impl Cache {
    /// Puts a manifest upstream, and keeps it here. Goes on if the caller leaves: what upstream was sent is then known here, too.
    pub async fn put_manifest(&self, put: Put) -> Result<Taken, CacheError> {
        let inner = Arc::clone(&self.0);
        self.0.to_its_end(async move { inner.put(&put).await }).await
    }
}

impl Inner {
    async fn put(&self, put: &Put) -> Result<Taken, CacheError> {
        let Put { repository, reference, content, .. } = put;
        let upstream = self.writable(&repository.registry)?;
        let mut tags = put.tags.clone();
        if let Reference::Tag(tag) = reference {
            tags.push(tag.clone());
        }
        let write = self.epochs.begin(repository, WriteScope::Tags(tags.clone()));
        let mut said = self.forward(put, upstream).await;
        // Read only now: what upstream refuses costs nothing here.
        let is_refused = said.as_ref().err().is_some_and(|error| !lacks_blobs(error) && !error.may_have_happened());
        let parsed = if is_refused { Manifest::default() } else { parse(content).await.unwrap_or_default() };
        if let Err(error) = &said {
            let lacking = self.drop_what_is_lacking(repository, &parsed, error).await;
            if self.push_again(repository, upstream, &lacking).await {
                said = self.forward(put, upstream).await;
            }
        }
        let applying = write.apply().await;
        match said {
            Ok(said) => {
                self.forget_referrers(repository, parsed.subject).await;
                self.relist_repositories(repository).await;
                let set: Vec<Tag> = tags.iter().filter(|tag| put.sets(tag, &said)).cloned().collect();
                self.relist_tags(repository, &set, &[]).await;
                let stored = if applying.is_conflicted() {
                    self.forget_tags(repository, &tags).await;
                    false
                } else {
                    self.remember(put, &said, &tags).await
                };
                let digest = said.digest.unwrap_or_else(|| put.digest());
                Ok(Taken { digest, subject: said.subject, tags: said.tags, stored })
            }
            Err(error) => {
                if error.may_have_happened() {
                    self.doubt_tags(repository, upstream, &tags).await;
                    self.forget_referrers(repository, parsed.subject).await;
                    self.relist_tags(repository, &[], &[]).await;
                    self.relist_repositories(repository).await;
                }
                Err(error.into())
            }
        }
    }

    async fn forward(&self, put: &Put, upstream: &UpstreamState) -> Result<PutManifest, UpstreamError> {
        let mut query = String::new();
        for tag in &put.tags {
            let joint = if query.is_empty() { "" } else { "&" };
            // A tag needs no encoding, and writing to a text cannot fail.
            let _ = write!(query, "{joint}tag={tag}");
        }
        let (media_type, content) = (put.media_type.as_deref(), put.content.clone());
        let name = &put.repository.name;
        upstream.ask(None, upstream.client.put_manifest(name, &put.reference, media_type, &query, content)).await
    }

    /// Upstream does not have what links here say that it has: they go. Blobs that the repository had by them, and nobody else's,
    /// come back: they may be uploaded again.
    async fn drop_what_is_lacking(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        error: &UpstreamError,
    ) -> Vec<Digest> {
        let mut had = Vec::new();
        let ErrorKind::Rejected { about, .. } = error.kind() else { return had };
        if !lacks_blobs(error) {
            return had;
        }
        let lacking = |digest: &Digest| about.is_empty() || about.contains(digest);
        for blob in manifest.blobs.iter().filter(|blob| lacking(&blob.digest)) {
            if self.is_known_upstream(repository, &blob.digest).await {
                had.push(blob.digest);
            }
            log_and_ignore("forget", blob.digest, self.store.tombstone_blob(repository, &blob.digest).await);
        }
        for child in manifest.manifests.iter().filter(|child| lacking(&child.digest)) {
            log_and_ignore("forget", child.digest, self.forget_manifest(repository, &child.digest, &[]).await);
        }
        had
    }

    /// Keeps what upstream has taken, under the digest that it named, if that is the content's.
    async fn remember(&self, put: &Put, said: &PutManifest, asked: &[Tag]) -> bool {
        let Put { repository, reference, content, .. } = put;
        let digest = said.digest.filter(|said| matches!(reference, Reference::Tag(_)) || *said == put.digest());
        let digest = digest.unwrap_or_else(|| put.digest());
        let Some(media_type) = put.known_type().await.filter(|_| digest.matches(content)) else {
            self.forget_tags(repository, asked).await;
            return false;
        };
        let manifest = Arc::new(StoredManifest { content: content.clone(), digest, media_type });
        self.negatives.forget(repository, Object::Manifest(Reference::Digest(digest)));
        let kept = self.keep_manifest(repository, &manifest).await;
        for tag in asked {
            let reference = Reference::Tag(tag.clone());
            match (put.sets(tag, said), kept) {
                (false, _) => continue,
                (true, true) => self.keep_tag(repository, tag, digest, SystemTime::now()).await,
                (true, false) => self.forget_tags(repository, std::slice::from_ref(tag)).await,
            }
            self.negatives.forget(repository, Object::Manifest(reference));
        }
        kept
    }

    /// The lists in which a manifest stands, or does no more, beside its subject.
    pub(in crate::cache) async fn forget_referrers(
        &self,
        repository: &Repository,
        subjects: impl IntoIterator<Item = Digest>,
    ) {
        for subject in subjects {
            let list = ListKey::Referrers(repository.clone(), subject);
            log_and_ignore("forget the referrers of", subject, self.forget_list(&list).await);
        }
    }

    async fn forget_tags(&self, repository: &Repository, tags: &[Tag]) {
        for tag in tags {
            self.negatives.forget(repository, Object::Manifest(Reference::Tag(tag.clone())));
            log_and_ignore("forget the tag", tag, self.forget_tag(repository, tag).await);
        }
    }
}

fn lacks_blobs(error: &UpstreamError) -> bool {
    matches!(error.kind(), ErrorKind::Rejected { code, .. } if code == LACKS_BLOBS)
}

impl Put {
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
