//! What is removed or hidden upstream by way of larder: forwarded once, and forgotten here with upstream's word.

use crate::cache::epochs::WriteScope;
use crate::cache::freshness::{Age, TagState};
use crate::cache::negative::{Absence, Object};
use crate::cache::upstream_state::state::UpstreamState;
use crate::cache::{Cache, CacheError, Inner, log_and_ignore};
use crate::oci::{Code, Digest, Reference, Registry, Repository, Tag};
use crate::store::{ListKey, TagLink};
use crate::upstream::{AcrAnswer, AcrMethod, AcrRequest, Denied, ErrorKind, UpstreamError, parse};
use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::oneshot;

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
    fn repository(&self) -> &Repository {
        let (Self::Tag(it, _) | Self::Manifest(it, _) | Self::Blob(it, _) | Self::Repository(it)) = self;
        it
    }

    fn touch(&self) -> WriteScope {
        match self {
            Self::Tag(_, tag) => WriteScope::Tags(vec![tag.clone()]),
            _ => WriteScope::Everything,
        }
    }
}

impl Cache {
    /// Deletes a manifest with its tags, or a tag. Goes on if the caller leaves, as all of these do.
    pub async fn delete_manifest(&self, repository: &Repository, reference: &Reference) -> Result<(), CacheError> {
        let removal = match reference {
            Reference::Tag(tag) => Removal::Tag(repository.clone(), tag.clone()),
            Reference::Digest(digest) => Removal::Manifest(repository.clone(), *digest),
        };
        let (repository, reference) = (repository.clone(), reference.clone());
        let delete =
            async move |upstream: &UpstreamState| upstream.client.delete_manifest(&repository.name, &reference).await;
        let (inner, upstream) = (Arc::clone(&self.0), Arc::clone(self.0.writable(&removal.repository().registry)?));
        self.0.to_its_end(async move { inner.removed(&removal, &upstream, delete(&upstream)).await }).await
    }

    /// Deletes a blob.
    pub async fn delete_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), CacheError> {
        let removal = Removal::Blob(repository.clone(), *digest);
        let (inner, upstream) = (Arc::clone(&self.0), Arc::clone(self.0.writable(&repository.registry)?));
        let (name, digest) = (repository.name.clone(), *digest);
        let delete = async move |upstream: &UpstreamState| upstream.client.delete_blob(&name, &digest).await;
        self.0.to_its_end(async move { inner.removed(&removal, &upstream, delete(&upstream)).await }).await
    }

    /// Changes or deletes something of `repository` by ACR's own API. `removal` is what the request removes, or hides.
    pub async fn change_acr(
        &self,
        repository: &Repository,
        request: AcrRequest,
        removal: Option<Removal>,
    ) -> Result<AcrAnswer, CacheError> {
        let (inner, upstream) = (Arc::clone(&self.0), Arc::clone(self.0.writable(&repository.registry)?));
        let repository = repository.clone();
        let work = async move {
            let answer = async |upstream: &UpstreamState| upstream.client.acr(&request).await;
            match removal {
                Some(removal) if request.method == AcrMethod::Delete => {
                    inner.removed(&removal, &upstream, answer(&upstream)).await
                }
                removal => inner.relabelled(&repository, removal.as_ref(), &upstream, answer(&upstream)).await,
            }
        };
        self.0.to_its_end(work).await
    }
}

impl Inner {
    /// The upstream of a write, if it is one that is asked.
    pub(in crate::cache) fn writable(&self, registry: &Registry) -> Result<&Arc<UpstreamState>, CacheError> {
        let upstream = self.upstream_of(registry)?;
        if upstream.sealed { Err(CacheError::ReadOnly { registry: registry.clone() }) } else { Ok(upstream) }
    }

    /// Runs a write to its end, whoever waits for it or leaves.
    pub(in crate::cache) async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, CacheError>> + Send + 'static,
    ) -> Result<T, CacheError> {
        let (sender, receiver) = oneshot::channel();
        self.tasks.spawn(async move {
            // Whoever asked may have left.
            let _ = sender.send(work.await);
        });
        receiver.await.unwrap_or(Err(CacheError::Aborted))
    }

    /// Runs the request that removes `what`, and forgets it if upstream has removed it, or did not have it.
    async fn removed<T: Send>(
        &self,
        what: &Removal,
        upstream: &UpstreamState,
        request: impl Future<Output = Result<T, UpstreamError>> + Send,
    ) -> Result<T, CacheError> {
        let subjects = self.subjects_of(what).await;
        let repository = what.repository();
        let write = self.epochs.begin(repository, what.touch());
        let answer = upstream.ask(None, request).await;
        let applying = write.apply().await;
        let error = answer.as_ref().err();
        let unknown = error.is_some_and(|error| matches!(error.kind(), ErrorKind::NotFound { .. }));
        if error.is_none() || unknown && self.is_gone(what, upstream).await {
            self.forget_referrers(repository, subjects).await;
            self.forget_removed(what, upstream, true).await;
        } else if unknown || error.is_some_and(UpstreamError::may_have_happened) {
            self.forget_referrers(repository, subjects).await;
            self.doubt_removed(what, upstream).await;
        }
        drop(applying);
        Ok(answer?)
    }

    /// Whether upstream does not have `what`, of which it said so to a DELETE: a registry without that way to delete says the same. A tag
    /// is asked for anew by the next who wants it, and so are those of a repository.
    async fn is_gone(&self, what: &Removal, upstream: &UpstreamState) -> bool {
        let name = &what.repository().name;
        let asked = match what {
            Removal::Tag(..) | Removal::Repository(_) => return false,
            Removal::Manifest(_, digest) => {
                let reference = Reference::Digest(*digest);
                upstream.ask(None, upstream.client.head_manifest(name, &reference)).await.map(drop)
            }
            Removal::Blob(_, digest) => upstream.ask(None, upstream.client.head_blob(name, digest)).await.map(drop),
        };
        asked.is_err_and(|error| matches!(error.kind(), ErrorKind::NotFound { .. }))
    }

    /// Runs a request that changes attributes in `repository`. What they hide is forgotten; what they show again has to be asked for.
    async fn relabelled<T: Send>(
        &self,
        repository: &Repository,
        hidden: Option<&Removal>,
        upstream: &UpstreamState,
        request: impl Future<Output = Result<T, UpstreamError>> + Send,
    ) -> Result<T, CacheError> {
        let write = self.epochs.begin(repository, hidden.map_or(WriteScope::Tags(Vec::new()), Removal::touch));
        let answer = upstream.ask(None, request).await;
        let applying = write.apply().await;
        if answer.as_ref().err().is_none_or(UpstreamError::may_have_happened) {
            if let Some(hidden) = hidden {
                self.forget_removed(hidden, upstream, false).await;
            }
            self.negatives.forget_all(repository);
            self.relist_tags(repository, &[], &[]).await;
            self.relist_catalogue(repository, |_| ()).await;
        }
        drop(applying);
        Ok(answer?)
    }

    /// The manifests whose lists of referrers name what goes: its subject, or any, if its document is not here.
    async fn subjects_of(&self, what: &Removal) -> Vec<Digest> {
        let Removal::Manifest(repository, digest) = what else { return Vec::new() };
        if let Ok(Some(manifest)) = self.stored_manifest(repository, digest).await {
            return parse(&manifest.content).await.and_then(|manifest| manifest.subject).into_iter().collect();
        }
        // Lists that are on disk alone are seconds from being asked for anew: they are good for no longer than that.
        let listed = self.lists.keys().filter_map(|key| match key {
            ListKey::Referrers(of, subject) if of == *repository => Some(subject),
            _ => None,
        });
        listed.collect()
    }

    /// Forgets what is there no more, and says so for a while if it is `deleted`; what is hidden is upstream's to answer for.
    async fn forget_removed(&self, what: &Removal, upstream: &UpstreamState, deleted: bool) {
        let repository = what.repository();
        let absent = |object: Object, code: Code, name: &str| {
            if let Some(denied) = object.denied() {
                upstream.client.deny(&repository.name, denied);
            }
            if !deleted {
                return;
            }
            let absence = Absence { code: code.as_str().to_owned(), message: format!("{name} has been deleted") };
            self.negatives.remember(repository, object, absence, upstream.freshness.of(repository).negative_ttl);
        };
        let no_tag = |tag: &Tag| {
            absent(Object::Manifest(Reference::Tag(tag.clone())), Code::ManifestUnknown, &format!("tag {tag}"));
        };
        let no_manifest = |digest: &Digest| {
            let name = format!("manifest {digest}");
            absent(Object::Manifest(Reference::Digest(*digest)), Code::ManifestUnknown, &name);
        };
        let no_blob = |digest: &Digest| absent(Object::Blob(*digest), Code::BlobUnknown, &format!("blob {digest}"));
        match what {
            Removal::Tag(_, tag) => {
                log_and_ignore("forget the tag", tag, self.forget_tag(repository, tag).await);
                self.relist_tags(repository, &[], std::slice::from_ref(tag)).await;
                no_tag(tag);
            }
            Removal::Manifest(_, digest) => {
                let tags = self.tags_of(repository).await;
                let gone = log_and_ignore("forget", digest, self.forget_manifest(repository, digest, &tags).await);
                let gone = gone.unwrap_or_default();
                self.relist_tags(repository, &[], &gone).await;
                if tags.len() == gone.len() {
                    // A repository without tags may be one no more.
                    self.relist_catalogue(repository, |_| ()).await;
                }
                gone.iter().for_each(no_tag);
                no_manifest(digest);
            }
            Removal::Blob(_, digest) => {
                log_and_ignore("forget", digest, self.store.tombstone_blob(repository, digest).await);
                no_blob(digest);
            }
            Removal::Repository(_) => {
                upstream.client.deny(&repository.name, Denied::Repository);
                let name = repository.name.as_str();
                self.relist_catalogue(repository, |names| names.retain(|known| known != name)).await;
                if let Some(links) = log_and_ignore("forget", repository, self.forget_repository(repository).await) {
                    links.tags.iter().for_each(|(tag, _)| no_tag(tag));
                    links.manifests.iter().for_each(no_manifest);
                    links.blobs.iter().for_each(no_blob);
                }
            }
        }
    }

    /// Nobody knows whether it is gone: the next who asks for one of its tags has upstream asked.
    async fn doubt_removed(&self, what: &Removal, upstream: &UpstreamState) {
        let repository = what.repository();
        let tags: Vec<Tag> = match what {
            Removal::Tag(_, tag) => vec![tag.clone()],
            Removal::Blob(..) => Vec::new(),
            Removal::Manifest(_, digest) => {
                let tags = self.tags_of(repository).await;
                tags.into_iter().filter(|(_, named)| named == digest).map(|(tag, _)| tag).collect()
            }
            Removal::Repository(_) => self.tags_of(repository).await.into_iter().map(|(tag, _)| tag).collect(),
        };
        self.doubt_tags(repository, upstream, &tags).await;
        self.relist_tags(repository, &[], &[]).await;
        if let Removal::Repository(_) = what {
            self.relist_catalogue(repository, |_| ()).await;
        }
    }

    async fn tags_of(&self, repository: &Repository) -> Vec<(Tag, Digest)> {
        log_and_ignore("read the links of", repository, self.store.links(repository).await).unwrap_or_default().tags
    }

    /// What is known of `tags` may not be so any more: it stands in for upstream, and is confirmed before it is anything else.
    pub(in crate::cache) async fn doubt_tags(&self, repository: &Repository, upstream: &UpstreamState, tags: &[Tag]) {
        for tag in tags {
            self.negatives.forget(repository, Object::Manifest(Reference::Tag(tag.clone())));
            let link = log_and_ignore("read the tag", tag, self.store.tag(repository, tag).await).flatten();
            match link {
                Some(TagLink { digest, .. }) if !upstream.freshness.of(repository).is_immutable(tag) => {
                    let link = TagLink { digest, seen: SystemTime::UNIX_EPOCH };
                    log_and_ignore("doubt the tag", tag, self.store.set_tag(repository, tag, link).await);
                    let state = TagState { digest, age: Age::unknown() };
                    self.tags.insert((repository.clone(), tag.clone()), state);
                }
                _ => drop(log_and_ignore("forget the tag", tag, self.forget_tag(repository, tag).await)),
            }
        }
    }
}
