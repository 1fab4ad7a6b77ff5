//! Content that came in by disk: linked as if upstream had given it just now, tags last.
//!
//! A tag that moved here later than in the bundle is left alone: an older disk must not put back what a newer one, or upstream, has
//! brought.

use crate::cache::epochs::WriteScope;
use crate::cache::negative::Object;
use crate::cache::{Cache, CacheError};
use crate::oci::{Digest, MediaType, Reference, Repository, Role, Tag};
use crate::store::{ListKey, TagLink};
use crate::upstream::parse;
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

impl Cache {
    /// Links manifests that are stored, children first, then a tag. `false`: the tag here is newer, and stays.
    pub async fn arrive(
        &self,
        repository: &Repository,
        manifests: &[(Digest, MediaType)],
        tag: Option<&ArrivingTag>,
        force: bool,
    ) -> Result<bool, CacheError> {
        let inner = &*self.0;
        let _applying = inner.epochs.begin(repository, WriteScope::Everything).apply().await;
        for (digest, media_type) in manifests {
            let Some(content) = inner.store.read_small(digest).await? else { continue };
            let children = parse(&content).await.unwrap_or_default();
            // The operator's word, in place of upstream's: what the bundle names, the repository has.
            for child in children.children().filter(|child| inner.store.length(&child.digest).is_some()) {
                inner.store.given_by(&child.digest, inner.as_giver(repository)).await?;
                if child.role != Role::Manifest {
                    inner.store.link_blob(repository, &child.digest).await?;
                }
            }
            inner.store.given_by(digest, inner.as_giver(repository)).await?;
            inner.store.link_manifest(repository, digest, media_type, &children).await?;
            inner.memory.remove(repository, digest);
            inner.negatives.forget(repository, Object::Manifest(Reference::Digest(*digest)));
            if let Some(subject) = children.subject {
                inner.forget_list(&ListKey::Referrers(repository.clone(), subject)).await?;
            }
        }
        let Some(arriving) = tag else { return Ok(true) };
        let tag = &arriving.tag;
        let here = inner.store.tag(repository, tag).await?;
        let moved = inner.store.tag_moved(repository, tag).await?;
        let is_newer = here.is_some_and(|here| here.digest != arriving.digest) && moved > Some(arriving.moved);
        if is_newer && !force {
            return Ok(false);
        }
        let link = TagLink { digest: arriving.digest, seen: SystemTime::now() };
        inner.store.import_tag(repository, tag, link, arriving.moved).await?;
        inner.tags.remove(&(repository.clone(), tag.clone()));
        inner.negatives.forget(repository, Object::Manifest(Reference::Tag(tag.clone())));
        inner.forget_list(&ListKey::Tags(repository.clone())).await?;
        inner.forget_list(&ListKey::Catalogue(repository.registry.clone())).await?;
        Ok(true)
    }
}
