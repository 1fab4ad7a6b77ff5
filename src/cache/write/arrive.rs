//! Content that came in by disk: linked as if upstream had given it just now, tags last.
//!
//! A tag that moved here later than in the bundle is left alone: an older disk must not put back what a newer one, or upstream, has
//! brought.

use super::forget::Forget;
use crate::cache::epochs::{Applying, Epochs, WriteScope};
use crate::cache::error::CacheError;
use crate::cache::negative::Object;
use crate::cache::vouch::Vouch;
use crate::oci::{Digest, MediaType, Reference, Repository, Role, Tag};
use crate::store::{ListKey, TagLink};
use crate::upstream::parse;
use std::sync::Arc;
use std::time::SystemTime;

/// A tag of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrivingTag {
    /// The tag.
    pub tag: Tag,
    /// The manifest that it names.
    pub digest: Digest,
    /// When it moved there, on the side that exported it.
    pub moved: SystemTime,
}

/// Links what arrives.
#[derive(Debug)]
pub(in crate::cache) struct Arrivals {
    pub(in crate::cache) forget: Arc<Forget>,
    pub(in crate::cache) vouch: Arc<Vouch>,
    pub(in crate::cache) epochs: Arc<Epochs>,
}

impl Arrivals {
    /// Links manifests that are stored, children first, then a tag. `false`: the tag here is newer, and stays.
    pub(in crate::cache) async fn arrive(
        &self,
        repository: &Repository,
        manifests: &[(Digest, MediaType)],
        tag: Option<&ArrivingTag>,
        force: bool,
    ) -> Result<bool, CacheError> {
        let applying = self.epochs.begin(repository, WriteScope::Everything).apply().await;
        for (digest, media_type) in manifests {
            self.link(&applying, repository, digest, media_type).await?;
        }
        match tag {
            Some(arriving) => self.tag(&applying, repository, arriving, force).await,
            None => Ok(true),
        }
    }

    async fn link(
        &self,
        applying: &Applying,
        repository: &Repository,
        digest: &Digest,
        media_type: &MediaType,
    ) -> Result<(), CacheError> {
        let Forget { store, manifests, negatives, .. } = &*self.forget;
        let Some(content) = store.read_small(digest).await? else { return Ok(()) };
        let children = parse(&content).await.unwrap_or_default();
        // The operator's word, in place of upstream's: what the bundle names, the repository has.
        for child in children.children().filter(|child| store.length(&child.digest).is_some()) {
            store.given_by(&child.digest, self.vouch.as_giver(repository)).await?;
            if child.role != Role::Manifest {
                store.link_blob(repository, &child.digest).await?;
            }
        }
        store.given_by(digest, self.vouch.as_giver(repository)).await?;
        store.link_manifest(repository, digest, media_type, &children).await?;
        manifests.reread_manifest(applying, repository, digest);
        negatives.forget(repository, Object::Manifest(Reference::Digest(*digest)));
        if let Some(subject) = children.subject {
            self.forget.list(applying, &ListKey::Referrers(repository.clone(), subject)).await?;
        }
        Ok(())
    }

    async fn tag(
        &self,
        applying: &Applying,
        repository: &Repository,
        arriving: &ArrivingTag,
        force: bool,
    ) -> Result<bool, CacheError> {
        let (Forget { store, manifests, negatives, .. }, tag) = (&*self.forget, &arriving.tag);
        let here = store.tag(repository, tag).await?;
        let moved = store.tag_moved(repository, tag).await?;
        let is_newer = here.is_some_and(|here| here.digest != arriving.digest) && moved > Some(arriving.moved);
        if is_newer && !force {
            return Ok(false);
        }
        let link = TagLink { digest: arriving.digest, seen: SystemTime::now() };
        store.import_tag(repository, tag, link, arriving.moved).await?;
        manifests.reread_tag(applying, repository, tag);
        negatives.forget(repository, Object::Manifest(Reference::Tag(tag.clone())));
        self.forget.list(applying, &ListKey::Tags(repository.clone())).await?;
        self.forget.catalogue(&repository.registry).await?;
        Ok(true)
    }
}
