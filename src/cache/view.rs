//! What one request sees: its upstream, what it asks about, and the epoch that it began under. It is taken once, before anything
//! that is known is read, and handed on from there.

use super::epochs::{Epoch, Epochs, Scope, StorePermit};
use super::error::CacheError;
use super::upstream_state::{UpstreamState, Upstreams};
use crate::oci::{Registry, Repository};
use crate::store::ListKey;
use std::sync::Arc;

/// Something that belongs to a repository or to an upstream's catalogue.
pub(super) trait Scoped: Clone {
    fn scope(&self) -> Scope<'_>;
}

impl Scoped for Repository {
    fn scope(&self) -> Scope<'_> {
        self.into()
    }
}

impl Scoped for ListKey {
    fn scope(&self) -> Scope<'_> {
        self.into()
    }
}

#[derive(Clone, Debug)]
pub(super) struct View<S> {
    pub(super) upstream: Arc<UpstreamState>,
    pub(super) epoch: Epoch,
    subject: S,
    epochs: Arc<Epochs>,
}

/// The view of one repository.
pub(super) type RepositoryView = View<Repository>;
/// The view of one list, of a repository's or of an upstream's own.
pub(super) type ListView = View<ListKey>;

impl<S: Scoped> View<S> {
    pub(super) fn subject(&self) -> &S {
        &self.subject
    }

    /// The repository that it is of; none for what is of an upstream's catalogue.
    pub(super) fn repository_of(&self) -> Option<&Repository> {
        match self.subject.scope() {
            Scope::Repository(repository) => Some(repository),
            Scope::Catalogue(_) => None,
        }
    }

    /// Whether the upstream has refused the repository: nothing stored of it may be answered then.
    pub(super) fn is_denied(&self) -> bool {
        self.repository_of().is_some_and(|repository| self.upstream.is_denied(repository))
    }

    /// Names the work that requests of the same view share.
    pub(super) fn key(&self) -> (S, Epoch) {
        (self.subject.clone(), self.epoch)
    }

    /// Permit to store what came of this view; `None`: there has been a write since.
    pub(super) async fn store_permit(&self) -> Option<StorePermit<'_>> {
        self.epochs.store_permit(self.subject.scope(), self.epoch).await
    }

    /// The same view, as of now.
    pub(super) fn renewed(&self) -> Self {
        Self { epoch: self.epochs.current(self.subject.scope()), ..self.clone() }
    }
}

impl RepositoryView {
    pub(super) fn repository(&self) -> &Repository {
        &self.subject
    }
}

/// Takes views.
#[derive(Clone, Debug)]
pub(super) struct Views {
    upstreams: Arc<Upstreams>,
    epochs: Arc<Epochs>,
}

impl Views {
    pub(super) fn new(upstreams: Arc<Upstreams>, epochs: Arc<Epochs>) -> Self {
        Self { upstreams, epochs }
    }

    /// The view of something of `registry`, as of now.
    pub(super) fn take<S: Scoped>(&self, registry: &Registry, subject: S) -> Result<View<S>, CacheError> {
        let upstream = Arc::clone(self.upstreams.get(registry)?);
        let epoch = self.epochs.current(subject.scope());
        Ok(View { upstream, epoch, subject, epochs: Arc::clone(&self.epochs) })
    }

    pub(super) fn of(&self, repository: &Repository) -> Result<RepositoryView, CacheError> {
        self.take(&repository.registry, repository.clone())
    }
}
