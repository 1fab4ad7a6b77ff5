use crate::oci::{Reference, Repository};
use quick_cache::sync::Cache;
use std::time::Duration;
use tokio::time::Instant;

/// How long "upstream does not have it" is believed of `sha256-…` tags at most, where signatures and fallback lists of referrers appear moments after an image.
const BRIEF: Duration = Duration::from_secs(1);

/// What upstream has just said that it does not have.
#[derive(Debug)]
pub(super) struct Negatives(Cache<(Repository, Reference), (Instant, Absence)>);

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

    /// Upstream says so; it is believed for `ttl`.
    pub(super) fn remember(&self, repository: &Repository, reference: &Reference, absence: Absence, ttl: Duration) {
        let belief = match reference {
            Reference::Tag(tag) if is_fallback_tag(tag.as_str()) => ttl.min(BRIEF),
            _ => ttl,
        };
        self.0.insert((repository.clone(), reference.clone()), (Instant::now() + belief, absence));
    }

    /// What upstream said, if it was moments ago.
    pub(super) fn recall(&self, repository: &Repository, reference: &Reference) -> Option<Absence> {
        if self.0.is_empty() {
            return None;
        }
        let key = (repository.clone(), reference.clone());
        let (until, absence) = self.0.get(&key)?;
        if until > Instant::now() {
            return Some(absence);
        }
        self.0.remove(&key);
        None
    }

    /// It is there after all.
    pub(super) fn forget(&self, repository: &Repository, reference: &Reference) {
        if !self.0.is_empty() {
            self.0.remove(&(repository.clone(), reference.clone()));
        }
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
        let tag: Reference = "v1".parse().unwrap();
        let signature: Reference = format!("sha256-{}.sig", "a".repeat(64)).parse().unwrap();
        let ttl = Duration::from_secs(5);
        negatives.remember(&repository, &tag, absence.clone(), ttl);
        negatives.remember(&repository, &signature, absence.clone(), ttl);
        assert_eq!(negatives.recall(&repository, &tag), Some(absence));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(negatives.recall(&repository, &tag).is_some());
        assert!(negatives.recall(&repository, &signature).is_none());
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(negatives.recall(&repository, &tag).is_none());
    }
}
