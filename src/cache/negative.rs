use super::epochs::{Epoch, StorePermit};
use super::error::CacheError;
use super::freshness::is_fallback_tag;
use super::view::{RepositoryView, Scoped, View};
use crate::oci::{Digest, Reference, Repository};
use crate::upstream::{Denied, ErrorKind, UpstreamError};
use quick_cache::sync::Cache;
use std::time::Duration;
use tokio::time::Instant;

/// How long "upstream does not have it" is believed of `sha256-…` tags at most, where signatures and fallback lists of referrers
/// appear moments after an image.
const BRIEF: Duration = Duration::from_secs(1);

/// What upstream has just said that it does not have.
#[derive(Debug)]
pub(super) struct Negatives(Cache<(Repository, Object), Entry>);

#[derive(Clone, Debug)]
struct Entry {
    until: Instant,
    epoch: Epoch,
    absence: Absence,
}

/// What can be absent. A digest may name a manifest and a blob, and a repository have the one without the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Object {
    Manifest(Reference),
    Blob(Digest),
    /// The list of tags, or of a digest's referrers. Any write may bring it about, so it is believed in its epoch only.
    List(Option<Digest>),
}

impl Object {
    /// The same, as what no mirror is asked for. A list is no thing of its own.
    pub(super) fn denied(&self) -> Option<Denied> {
        match self {
            Self::Manifest(reference) => Some(Denied::Manifest(reference.clone())),
            Self::Blob(digest) => Some(Denied::Blob(*digest)),
            Self::List(_) => None,
        }
    }
}

/// The words of an upstream's 404.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Absence {
    pub(super) code: String,
    pub(super) message: String,
}

impl Negatives {
    /// Remembers at most `entries` at once.
    pub(super) fn new(entries: usize) -> Self {
        Self(Cache::new(entries))
    }

    /// Remembers for a moment that upstream does not have it, if that is what `error` says and there was no write since.
    pub(super) async fn note_absence(&self, view: &RepositoryView, object: Object, error: &UpstreamError) {
        if let Some(permit) = view.store_permit().await {
            self.note(&permit, view, view.repository(), object, error);
        }
    }

    /// The same, with a permit for `view` at hand.
    pub(super) fn note<S: Scoped>(
        &self,
        _permit: &StorePermit<'_>,
        view: &View<S>,
        repository: &Repository,
        object: Object,
        error: &UpstreamError,
    ) {
        if let ErrorKind::NotFound { code, message } = error.kind() {
            // An answer to HEAD has no words of its own.
            let message = if message.is_empty() { error.to_string() } else { message.clone() };
            let absence = Absence { code: code.clone(), message };
            self.insert(repository, object, view.epoch, absence, view.upstream.freshness.of(repository).negative_ttl);
        }
    }

    /// It has been removed by way of larder.
    pub(super) fn note_removal(
        &self,
        _permit: &StorePermit<'_>,
        view: &RepositoryView,
        object: Object,
        absence: Absence,
    ) {
        let ttl = view.upstream.freshness.of(view.repository()).negative_ttl;
        self.insert(view.repository(), object, view.epoch, absence, ttl);
    }

    fn insert(&self, repository: &Repository, object: Object, epoch: Epoch, absence: Absence, ttl: Duration) {
        let belief = match &object {
            Object::Manifest(Reference::Tag(tag)) if is_fallback_tag(tag.as_str()) => ttl.min(BRIEF),
            Object::List(Some(_)) => ttl.min(BRIEF),
            _ => ttl,
        };
        let entry = Entry { until: Instant::now() + belief, epoch, absence };
        self.0.insert((repository.clone(), object), entry);
    }

    /// What upstream said, if it was moments ago.
    pub(super) fn recall<S: Scoped>(&self, view: &View<S>, object: Object) -> Option<Absence> {
        self.recall_at(view.epoch, view.repository_of()?, object)
    }

    fn recall_at(&self, epoch: Epoch, repository: &Repository, object: Object) -> Option<Absence> {
        if self.0.is_empty() {
            return None;
        }
        let key = (repository.clone(), object);
        let entry = self.0.get(&key)?;
        if entry.until <= Instant::now() {
            self.0.remove(&key);
            return None;
        }
        let holds = entry.epoch == epoch || !matches!(key.1, Object::List(_));
        holds.then_some(entry.absence)
    }

    /// It is there after all.
    pub(super) fn forget(&self, repository: &Repository, object: Object) {
        if !self.0.is_empty() {
            self.0.remove(&(repository.clone(), object));
        }
    }

    /// Anything of a repository may be there after all.
    pub(super) fn forget_all(&self, repository: &Repository) {
        self.0.retain(|(of, _), _| of != repository);
    }
}

impl From<Absence> for CacheError {
    fn from(Absence { code, message }: Absence) -> Self {
        Self::Absent { code, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::epochs::{Epochs, WriteScope};
    use crate::oci::Registry;
    use std::sync::Arc;

    fn repository() -> Repository {
        Repository { registry: Registry::new("r"), name: "a".parse().unwrap() }
    }

    fn epochs() -> (Arc<Epochs>, Repository) {
        (Arc::new(Epochs::new([])), repository())
    }

    #[tokio::test]
    async fn that_there_is_no_list_is_believed_until_the_next_write() {
        let (negatives, (epochs, it)) = (Negatives::new(10), epochs());
        let before = epochs.current(&it);
        let absence = Absence { code: "NAME_UNKNOWN".into(), message: "no".into() };
        negatives.insert(&it, Object::List(None), before, absence.clone(), Duration::from_secs(5));
        negatives.insert(&it, Object::Manifest("v1".parse().unwrap()), before, absence, Duration::from_secs(5));
        drop(epochs.begin(&it, WriteScope::Everything));
        let now = epochs.current(&it);
        assert!(negatives.recall_at(before, &it, Object::List(None)).is_some());
        assert!(negatives.recall_at(now, &it, Object::List(None)).is_none());
        assert!(negatives.recall_at(now, &it, Object::Manifest("v1".parse().unwrap())).is_some(), "forgotten by name");
    }

    #[tokio::test(start_paused = true)]
    async fn is_forgotten_after_seconds_and_sooner_for_signatures() {
        let negatives = Negatives::new(10);
        let repository = Repository { registry: Registry::new("r"), name: "a".parse().unwrap() };
        let absence = Absence { code: "MANIFEST_UNKNOWN".into(), message: "no".into() };
        let tag = || Object::Manifest("v1".parse().unwrap());
        let signature = || Object::Manifest(format!("sha256-{}.sig", "a".repeat(64)).parse().unwrap());
        let ttl = Duration::from_secs(5);
        let (epochs, key) = epochs();
        let epoch = epochs.current(&key);
        negatives.insert(&repository, tag(), epoch, absence.clone(), ttl);
        negatives.insert(&repository, signature(), epoch, absence.clone(), ttl);
        assert_eq!(negatives.recall_at(epoch, &repository, tag()), Some(absence));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(negatives.recall_at(epoch, &repository, tag()).is_some());
        assert!(negatives.recall_at(epoch, &repository, signature()).is_none());
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(negatives.recall_at(epoch, &repository, tag()).is_none());
    }

    #[tokio::test]
    async fn a_missing_manifest_says_nothing_of_a_blob_with_the_same_digest() {
        let negatives = Negatives::new(10);
        let repository = Repository { registry: Registry::new("r"), name: "a".parse().unwrap() };
        let digest = Digest::of(crate::oci::Algorithm::Sha256, b"");
        let absence = Absence { code: "BLOB_UNKNOWN".into(), message: "no".into() };
        let (epochs, key) = epochs();
        let epoch = epochs.current(&key);
        negatives.insert(&repository, Object::Blob(digest), epoch, absence, Duration::from_secs(5));
        assert!(negatives.recall_at(epoch, &repository, Object::Blob(digest)).is_some());
        assert!(negatives.recall_at(epoch, &repository, Object::Manifest(Reference::Digest(digest))).is_none());
    }
}
