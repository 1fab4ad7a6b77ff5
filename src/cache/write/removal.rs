//! What is removed or hidden upstream by way of larder: forwarded once, and forgotten here with upstream's word.

use super::forget::Forget;
use super::relist::Relist;
use crate::cache::epochs::{Applying, Epochs, WriteScope};
use crate::cache::error::CacheError;
use crate::cache::log::log_and_ignore;
use crate::cache::negative::{Absence, Object};
use crate::cache::view::RepositoryView;
use crate::oci::{Code, Digest, Reference, Repository, Tag};
use crate::upstream::{AcrAnswer, AcrMethod, AcrRequest, Denied, ErrorKind, UpstreamError, parse};
use std::future::Future;
use std::sync::Arc;

/// What is to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// A tag; the manifest that it names stays.
    Tag(Repository, Tag),
    /// A manifest with all its tags.
    Manifest(Repository, Digest),
    /// A blob.
    Blob(Repository, Digest),
    /// A repository with all that is in it.
    Repository(Repository),
}

impl Removal {
    pub(in crate::cache) fn repository(&self) -> &Repository {
        let (Self::Tag(it, _) | Self::Manifest(it, _) | Self::Blob(it, _) | Self::Repository(it)) = self;
        it
    }

    fn scope(&self) -> WriteScope {
        match self {
            Self::Tag(_, tag) => WriteScope::Tags(vec![tag.clone()]),
            _ => WriteScope::Everything,
        }
    }
}

/// Removes and hides.
#[derive(Debug)]
pub(in crate::cache) struct Removals {
    pub(in crate::cache) forget: Arc<Forget>,
    pub(in crate::cache) relist: Arc<Relist>,
    pub(in crate::cache) epochs: Arc<Epochs>,
}

impl Removals {
    /// Deletes a tag, a manifest with its tags, or a blob.
    pub(in crate::cache) async fn delete(&self, view: &RepositoryView, what: &Removal) -> Result<(), CacheError> {
        let (upstream, repository) = (&view.upstream, view.repository());
        let reference = match what {
            Removal::Blob(_, digest) => {
                return self.removed(view, what, upstream.delete_blob(repository, digest)).await;
            }
            Removal::Tag(_, tag) => Reference::Tag(tag.clone()),
            Removal::Manifest(_, digest) => Reference::Digest(*digest),
            // There is no such request but ACR's own.
            Removal::Repository(_) => return Ok(()),
        };
        self.removed(view, what, upstream.delete_manifest(repository, &reference)).await
    }

    /// Changes or deletes something by ACR's own API. `removal` is what the request removes, or hides.
    pub(in crate::cache) async fn acr(
        &self,
        view: &RepositoryView,
        request: &AcrRequest,
        removal: Option<&Removal>,
    ) -> Result<AcrAnswer, CacheError> {
        let answer = view.upstream.acr(request);
        match removal {
            Some(removal) if request.method == AcrMethod::Delete => self.removed(view, removal, answer).await,
            removal => self.relabelled(view, removal, answer).await,
        }
    }

    /// Runs the request that removes `what`, and forgets it if upstream has removed it, or did not have it.
    async fn removed<T: Send>(
        &self,
        view: &RepositoryView,
        what: &Removal,
        request: impl Future<Output = Result<T, UpstreamError>> + Send,
    ) -> Result<T, CacheError> {
        let subjects = self.subjects_of(what).await;
        let repository = what.repository();
        let write = self.epochs.begin(repository, what.scope());
        let answer = request.await;
        let applying = write.apply().await;
        let error = answer.as_ref().err();
        let unknown = error.is_some_and(|error| matches!(error.kind(), ErrorKind::NotFound { .. }));
        if error.is_none() || unknown && is_gone(view, what).await {
            self.forget.referrers(&applying, repository, subjects).await;
            self.forget_removed(&applying, view, what, true).await;
        } else if unknown || error.is_some_and(UpstreamError::may_have_happened) {
            self.forget.referrers(&applying, repository, subjects).await;
            self.doubt_removed(&applying, view, what).await;
        }
        drop(applying);
        Ok(answer?)
    }

    /// Runs a request that changes attributes. What they hide is forgotten; what they show again has to be asked for.
    async fn relabelled<T: Send>(
        &self,
        view: &RepositoryView,
        hidden: Option<&Removal>,
        request: impl Future<Output = Result<T, UpstreamError>> + Send,
    ) -> Result<T, CacheError> {
        let repository = view.repository();
        let write = self.epochs.begin(repository, hidden.map_or(WriteScope::Tags(Vec::new()), Removal::scope));
        let answer = request.await;
        let applying = write.apply().await;
        if answer.as_ref().err().is_none_or(UpstreamError::may_have_happened) {
            if let Some(hidden) = hidden {
                self.forget_removed(&applying, view, hidden, false).await;
            }
            self.forget.negatives.forget_all(repository);
            self.relist.tags(&applying, repository, &[], &[]).await;
            self.relist.catalogue(&applying, repository, |_| ()).await;
        }
        drop(applying);
        Ok(answer?)
    }

    /// The manifests whose lists of referrers name what goes: its subject, or any, if its document is not here.
    async fn subjects_of(&self, what: &Removal) -> Vec<Digest> {
        let Removal::Manifest(repository, digest) = what else { return Vec::new() };
        match self.forget.manifests.manifest(repository, digest).await {
            Ok(Some(manifest)) => {
                parse(&manifest.content).await.and_then(|manifest| manifest.subject).into_iter().collect()
            }
            _ => self.forget.lists.subjects_of(repository),
        }
    }

    /// Forgets what is there no more, and says so for a while if it is `deleted`; what is hidden is upstream's to answer for.
    async fn forget_removed(&self, applying: &Applying, view: &RepositoryView, what: &Removal, deleted: bool) {
        let (repository, forget) = (view.repository(), &self.forget);
        let absent = Absent { forget, applying, view, deleted };
        match what {
            Removal::Tag(_, tag) => {
                log_and_ignore("forget the tag", tag, forget.tag(applying, repository, tag).await);
                self.relist.tags(applying, repository, &[], std::slice::from_ref(tag)).await;
                absent.tag(tag);
            }
            Removal::Manifest(_, digest) => {
                let tags = forget.manifests.tags_of(repository).await;
                let gone = forget.manifest(applying, repository, digest, &tags).await;
                let gone = log_and_ignore("forget", digest, gone).unwrap_or_default();
                self.relist.tags(applying, repository, &[], &gone).await;
                if tags.len() == gone.len() {
                    // A repository without tags may be one no more.
                    self.relist.catalogue(applying, repository, |_| ()).await;
                }
                for tag in &gone {
                    absent.tag(tag);
                }
                absent.manifest(digest);
            }
            Removal::Blob(_, digest) => {
                log_and_ignore("forget", digest, forget.store.tombstone_blob(repository, digest).await);
                absent.blob(digest);
            }
            Removal::Repository(_) => {
                view.upstream.deny_at_mirrors(repository, Denied::Repository);
                let name = repository.name.as_str();
                self.relist.catalogue(applying, repository, |names| names.retain(|known| known != name)).await;
                let links = forget.repository(applying, repository).await;
                if let Some(links) = log_and_ignore("forget", repository, links) {
                    links.tags.iter().for_each(|(tag, _)| absent.tag(tag));
                    links.manifests.iter().for_each(|digest| absent.manifest(digest));
                    links.blobs.iter().for_each(|digest| absent.blob(digest));
                }
            }
        }
    }

    /// Whether it is gone is not known: the next request for one of its tags asks upstream.
    async fn doubt_removed(&self, applying: &Applying, view: &RepositoryView, what: &Removal) {
        let (repository, manifests) = (view.repository(), &self.forget.manifests);
        let tags: Vec<Tag> = match what {
            Removal::Tag(_, tag) => vec![tag.clone()],
            Removal::Blob(..) => Vec::new(),
            Removal::Manifest(_, digest) => {
                let tags = manifests.tags_of(repository).await;
                tags.into_iter().filter(|(_, named)| named == digest).map(|(tag, _)| tag).collect()
            }
            Removal::Repository(_) => manifests.tags_of(repository).await.into_iter().map(|(tag, _)| tag).collect(),
        };
        let freshness = view.upstream.freshness.of(repository);
        self.forget.doubt_tags(applying, repository, freshness, &tags).await;
        self.relist.tags(applying, repository, &[], &[]).await;
        if let Removal::Repository(_) = what {
            self.relist.catalogue(applying, repository, |_| ()).await;
        }
    }
}

/// Notes what is there no more.
struct Absent<'a> {
    forget: &'a Forget,
    applying: &'a Applying,
    view: &'a RepositoryView,
    deleted: bool,
}

impl Absent<'_> {
    fn note(&self, object: Object, code: Code, name: &str) {
        if let Some(denied) = object.denied() {
            self.view.upstream.deny_at_mirrors(self.view.repository(), denied);
        }
        if self.deleted {
            let absence = Absence { code: code.as_str().to_owned(), message: format!("{name} has been deleted") };
            self.forget.negatives.note_removal(&self.applying.store_permit(), self.view, object, absence);
        }
    }

    fn tag(&self, tag: &Tag) {
        self.note(Object::Manifest(Reference::Tag(tag.clone())), Code::ManifestUnknown, &format!("tag {tag}"));
    }

    fn manifest(&self, digest: &Digest) {
        let name = format!("manifest {digest}");
        self.note(Object::Manifest(Reference::Digest(*digest)), Code::ManifestUnknown, &name);
    }

    fn blob(&self, digest: &Digest) {
        self.note(Object::Blob(*digest), Code::BlobUnknown, &format!("blob {digest}"));
    }
}

/// Whether upstream does not have `what`, of which it said so to a DELETE: a registry without that way to delete says the same. A tag,
/// and those of a repository, are asked for anew by the next request for them.
async fn is_gone(view: &RepositoryView, what: &Removal) -> bool {
    match what {
        Removal::Tag(..) | Removal::Repository(_) => false,
        Removal::Manifest(repository, digest) => view.upstream.lacks_manifest(repository, digest).await,
        Removal::Blob(repository, digest) => view.upstream.lacks_blob(repository, digest).await,
    }
}
