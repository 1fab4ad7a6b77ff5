use crate::cache::CacheError;
use crate::cache::epochs::Epoch;
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
pub(super) struct Negatives(Cache<(Repository, Object), (Instant, Absence)>);

/// What can be absent. A digest may name a manifest and a blob, and a repository have the one without the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Object {
    Manifest(Reference),
    Blob(Digest),
    /// The list of tags, or of a digest's referrers, with what was written until then: any write may bring it about.
    List(Option<Digest>, Epoch),
}

impl Object {
    /// The same, as what no mirror is asked for. A list is no thing of its own.
    pub(super) fn denied(&self) -> Option<Denied> {
        match self {
            Self::Manifest(reference) => Some(Denied::Manifest(reference.clone())),
            Self::Blob(digest) => Some(Denied::Blob(*digest)),
            Self::List(..) => None,
        }
    }
}

/// The words of an upstream's 404.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Absence {
    /// The error code.
    pub(super) code: String,
    /// The message.
    pub(super) message: String,
}

impl Negatives {
    /// Remembers at most `entries` at once.
    pub(super) fn new(entries: usize) -> Self {
        Self(Cache::new(entries))
    }

    /// Remembers for `ttl` what `error` says, if it says that upstream does not have `object`.
    pub(super) fn note(&self, repository: &Repository, object: Object, error: &UpstreamError, ttl: Duration) {
        if let ErrorKind::NotFound { code, message } = error.kind() {
            // An answer to HEAD has no words of its own.
            let message = if message.is_empty() { error.to_string() } else { message.clone() };
            self.remember(repository, object, Absence { code: code.clone(), message }, ttl);
        }
    }

    pub(super) fn remember(&self, repository: &Repository, object: Object, absence: Absence, ttl: Duration) {
        let belief = match &object {
            Object::Manifest(Reference::Tag(tag)) if is_fallback_tag(tag.as_str()) => ttl.min(BRIEF),
            Object::List(Some(_), _) => ttl.min(BRIEF),
            _ => ttl,
        };
        self.0.insert((repository.clone(), object), (Instant::now() + belief, absence));
    }

    /// What upstream said, if it was moments ago.
    pub(super) fn recall(&self, repository: &Repository, object: Object) -> Option<Absence> {
        if self.0.is_empty() {
            return None;
        }
        let key = (repository.clone(), object);
        let (until, absence) = self.0.get(&key)?;
        if until > Instant::now() {
            return Some(absence);
        }
        self.0.remove(&key);
        None
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

/// `sha256-<hex>`, with or without `.sig` and the like: written by clients beside an image (distribution specification,
/// "Referrers Tag Schema"; cosign).
pub(super) fn is_fallback_tag(tag: &str) -> bool {
    tag.starts_with("sha256-") || tag.starts_with("sha512-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Registry;

    #[tokio::test(start_paused = true)]
    async fn is_forgotten_after_seconds_and_sooner_for_signatures() {
        let negatives = Negatives::new(10);
        let repository = Repository { registry: Registry::new("r"), name: "a".parse().unwrap() };
        let absence = Absence { code: "MANIFEST_UNKNOWN".into(), message: "no".into() };
        let tag = || Object::Manifest("v1".parse().unwrap());
        let signature = || Object::Manifest(format!("sha256-{}.sig", "a".repeat(64)).parse().unwrap());
        let ttl = Duration::from_secs(5);
        negatives.remember(&repository, tag(), absence.clone(), ttl);
        negatives.remember(&repository, signature(), absence.clone(), ttl);
        assert_eq!(negatives.recall(&repository, tag()), Some(absence));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(negatives.recall(&repository, tag()).is_some());
        assert!(negatives.recall(&repository, signature()).is_none());
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(negatives.recall(&repository, tag()).is_none());
    }

    #[tokio::test]
    async fn a_missing_manifest_says_nothing_of_a_blob_with_the_same_digest() {
        let negatives = Negatives::new(10);
        let repository = Repository { registry: Registry::new("r"), name: "a".parse().unwrap() };
        let digest = Digest::of(crate::oci::Algorithm::Sha256, b"");
        let absence = Absence { code: "BLOB_UNKNOWN".into(), message: "no".into() };
        negatives.remember(&repository, Object::Blob(digest), absence, Duration::from_secs(5));
        assert!(negatives.recall(&repository, Object::Blob(digest)).is_some());
        assert!(negatives.recall(&repository, Object::Manifest(Reference::Digest(digest))).is_none());
    }
}
