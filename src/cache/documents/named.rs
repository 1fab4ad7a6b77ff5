use super::answer::ManifestPresence;
use crate::cache::epochs::{Epoch, StorePermit};
use crate::cache::freshness::{Age, TagState};
use crate::cache::provenance::Provenance;
use crate::cache::view::RepositoryView;
use crate::oci::{Digest, Repository, Tag};
use crate::telemetry::CacheStatus;
use quick_cache::sync;
use std::time::SystemTime;

/// What upstream has said to HEADs of manifests that are not stored.
///
/// Most clients then fetch the manifest by its digest, and the tag is stored with it. A client that only watches the tag is answered
/// from here for as long as a stored one would be fresh.
#[derive(Debug)]
pub(in crate::cache) struct Named {
    tags: sync::Cache<(Repository, Tag), NamedTag>,
    by_digest: sync::Cache<(Repository, Digest), (Tag, SystemTime, Epoch)>,
}

#[derive(Clone, Debug)]
struct NamedTag {
    presence: ManifestPresence,
    age: Age,
    begun: Epoch,
}

impl Named {
    /// Remembers at most `entries` tags at once.
    pub(in crate::cache) fn new(entries: usize) -> Self {
        Self { tags: sync::Cache::new(entries), by_digest: sync::Cache::new(entries) }
    }

    /// Notes what a tag named when it was `seen`.
    pub(super) fn note(
        &self,
        _permit: &StorePermit<'_>,
        view: &RepositoryView,
        tag: &Tag,
        presence: &ManifestPresence,
        seen: SystemTime,
    ) {
        let (repository, begun) = (view.repository(), view.epoch);
        let named = NamedTag { presence: presence.clone(), age: Age::since(seen), begun };
        self.tags.insert((repository.clone(), tag.clone()), named);
        self.by_digest.insert((repository.clone(), presence.digest), (tag.clone(), seen, begun));
    }

    /// What a tag names, if upstream has said so lately and there was no write since.
    pub(super) fn recall(&self, view: &RepositoryView, tag: &Tag) -> Option<ManifestPresence> {
        if self.tags.is_empty() {
            return None;
        }
        let NamedTag { mut presence, age, begun } = self.tags.get(&(view.repository().clone(), tag.clone()))?;
        let state = TagState { digest: presence.digest, age };
        let rules = view.upstream.freshness.of(view.repository());
        if begun != view.epoch || !rules.is_fresh(tag, &state) {
            return None;
        }
        presence.provenance = Provenance::new(CacheStatus::Hit).with_ttl(rules.left(tag, &age));
        Some(presence)
    }

    /// The tag of a manifest that has come, and when upstream named it, unless there was a write since.
    pub(super) fn take(&self, view: &RepositoryView, digest: Digest) -> Option<(Tag, SystemTime)> {
        if self.by_digest.is_empty() {
            return None;
        }
        let (_, (tag, seen, begun)) = self.by_digest.remove(&(view.repository().clone(), digest))?;
        (begun == view.epoch).then_some((tag, seen))
    }
}
