//! What an upstream's own address has refused, or does not have: no mirror is asked for it until that address has given it again.

use super::error::{ErrorKind, UpstreamError};
use crate::oci::{Code, Digest, Name, Reference};
use quick_cache::sync::Cache;

/// Something of a repository that an upstream's own address would not give.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Denied {
    /// Anything of it.
    Repository,
    /// A manifest or tag.
    Manifest(Reference),
    Blob(Digest),
}

/// What the address last refused or did not have. The oldest entries go when there are too many.
#[derive(Debug)]
pub(super) struct OriginDenials(Cache<(Name, Denied), ()>);

impl OriginDenials {
    pub(super) fn new(entries: usize) -> Self {
        Self(Cache::new(entries))
    }

    pub(super) fn stands(&self, repository: &Name, what: &Denied) -> bool {
        let denied = |what: Denied| self.0.get(&(repository.clone(), what)).is_some();
        !self.0.is_empty() && (denied(Denied::Repository) || denied(what.clone()))
    }

    /// Draws the conclusion of how a request to the address ended.
    pub(super) fn note<T>(&self, repository: &Name, what: &Denied, answer: &Result<T, UpstreamError>) {
        let denied = match answer.as_ref().map_err(UpstreamError::kind) {
            Ok(_) => return self.lift(repository, what),
            Err(ErrorKind::RepositoryRefused { .. }) => Denied::Repository,
            Err(ErrorKind::NotFound { code, .. }) if code == Code::NameUnknown.as_str() => Denied::Repository,
            // That a registry has no list says nothing about its repository.
            Err(ErrorKind::NotFound { .. }) if *what != Denied::Repository => what.clone(),
            Err(_) => return,
        };
        self.0.insert((repository.clone(), denied), ());
    }

    fn lift(&self, repository: &Name, what: &Denied) {
        if !self.0.is_empty() {
            self.0.remove(&(repository.clone(), Denied::Repository));
            self.0.remove(&(repository.clone(), what.clone()));
        }
    }

    /// Notes that the address no longer gives it.
    pub(super) fn add(&self, repository: &Name, what: Denied) {
        self.0.insert((repository.clone(), what), ());
    }

    /// The address has taken something new: it may have now what it did not have.
    pub(super) fn forget(&self, repository: &Name) {
        self.0.retain(|(of, _), ()| of != repository);
    }
}
