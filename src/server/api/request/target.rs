use crate::config::Right;
use crate::oci::{Deed, Digest, Reference, Registry, Repository, Tag};
use http::Method;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/v2/`: whether this is a registry.
    Ping,
    /// `/v2/_catalog` of one upstream.
    Catalogue(Registry),
    /// `/v2/_catalog` of them all.
    Catalogues,
    /// `…/manifests/<reference>`
    Manifest(Repository, Reference),
    /// `…/blobs/<digest>`
    Blob(Repository, Digest),
    /// `…/tags/list`
    Tags(Repository),
    /// `…/referrers/<digest>`
    Referrers(Repository, Digest),
    /// `…/blobs/uploads/`: where uploads begin.
    Uploads(Repository),
    /// `…/blobs/uploads/<session>`: one that has begun; the session is what larder's own `Location` said.
    Upload(Repository, String),
    /// `/acr/v1/…`
    Acr(AcrResource),
}

/// What ACR's own API is about: the data plane that `az acr repository` and `az acr manifest` use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcrResource {
    /// `_catalog`
    Catalogue(Registry),
    /// `<name>`
    Repository(Repository),
    /// `<name>/_tags`
    Tags(Repository),
    /// `<name>/_tags/<tag>`
    Tag(Repository, Tag),
    /// `<name>/_manifests`
    Manifests(Repository),
    /// `<name>/_manifests/<digest>`
    Manifest(Repository, Digest),
}

impl AcrResource {
    /// The upstream that it is of.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        match self {
            Self::Catalogue(registry) => registry,
            Self::Repository(repository)
            | Self::Tags(repository)
            | Self::Tag(repository, _)
            | Self::Manifests(repository)
            | Self::Manifest(repository, _) => &repository.registry,
        }
    }

    /// The repository that it is in; the catalogue is in none.
    #[must_use]
    pub fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Catalogue(_) => None,
            Self::Repository(repository)
            | Self::Tags(repository)
            | Self::Tag(repository, _)
            | Self::Manifests(repository)
            | Self::Manifest(repository, _) => Some(repository),
        }
    }
}

impl Target {
    /// The word for metrics and logs.
    #[must_use]
    pub fn route(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Catalogue(_) | Self::Catalogues => "catalogue",
            Self::Manifest(..) => "manifest",
            Self::Blob(..) => "blob",
            Self::Tags(_) => "tags",
            Self::Referrers(..) => "referrers",
            Self::Uploads(_) | Self::Upload(..) => "upload",
            Self::Acr(..) => "acr",
        }
    }

    /// The methods that it knows.
    #[must_use]
    pub fn methods(&self) -> &'static [Method] {
        match self {
            Self::Ping | Self::Catalogue(_) | Self::Catalogues | Self::Tags(_) | Self::Referrers(..) => {
                &[Method::GET, Method::HEAD]
            }
            Self::Manifest(..) => &[Method::GET, Method::HEAD, Method::PUT, Method::DELETE],
            Self::Blob(..) => &[Method::GET, Method::HEAD, Method::DELETE],
            Self::Uploads(_) => &[Method::POST],
            Self::Upload(..) => &[Method::GET, Method::PATCH, Method::PUT, Method::DELETE],
            Self::Acr(AcrResource::Catalogue(_) | AcrResource::Tags(_) | AcrResource::Manifests(_)) => &[Method::GET],
            Self::Acr(..) => &[Method::GET, Method::PATCH, Method::DELETE],
        }
    }

    #[must_use]
    pub fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Ping | Self::Catalogue(_) | Self::Catalogues => None,
            Self::Manifest(repository, _)
            | Self::Blob(repository, _)
            | Self::Tags(repository)
            | Self::Referrers(repository, _)
            | Self::Uploads(repository)
            | Self::Upload(repository, _) => Some(repository),
            Self::Acr(resource) => resource.repository(),
        }
    }

    /// The upstream; the ping is answered without one, and the catalogue of all has no one.
    #[must_use]
    pub fn registry(&self) -> Option<&Registry> {
        match self {
            Self::Catalogue(registry) => Some(registry),
            Self::Acr(resource) => Some(resource.registry()),
            _ => self.repository().map(|repository| &repository.registry),
        }
    }

    /// What a method does, as upstream sees it.
    #[must_use]
    pub fn deed(&self, method: &Method) -> Deed {
        let writes = matches!(*method, Method::PUT | Method::PATCH | Method::POST);
        match self {
            Self::Ping => Deed::Login,
            Self::Catalogue(_) | Self::Catalogues | Self::Acr(AcrResource::Catalogue(_)) => Deed::Catalogue,
            Self::Uploads(it) | Self::Upload(it, _) => Deed::Push(it.name.clone()),
            Self::Manifest(it, _) | Self::Blob(it, _) if *method == Method::DELETE => Deed::Delete(it.name.clone()),
            Self::Manifest(it, _) | Self::Blob(it, _) if writes => Deed::Push(it.name.clone()),
            Self::Manifest(it, reference) => Deed::Manifest(it.name.clone(), reference.clone()),
            Self::Blob(it, digest) => Deed::Blob(it.name.clone(), *digest),
            Self::Tags(it) => Deed::Tags(it.name.clone()),
            Self::Referrers(it, digest) => Deed::Referrers(it.name.clone(), *digest),
            Self::Acr(resource) => match resource.repository().map(|it| it.name.clone()) {
                Some(name) if *method == Method::DELETE => Deed::Delete(name),
                Some(name) if writes => Deed::Locks(name),
                Some(name) => Deed::Metadata(name),
                None => Deed::Catalogue,
            },
        }
    }

    /// The right that a method needs in the repository. Whoever uploads may look at the upload.
    #[must_use]
    pub fn right(&self, method: &Method) -> Right {
        match (self, method) {
            (_, &Method::DELETE) if !matches!(self, Self::Upload(..)) => Right::Delete,
            (Self::Uploads(_) | Self::Upload(..), _) | (_, &Method::PUT | &Method::PATCH | &Method::POST) => {
                Right::Push
            }
            _ => Right::Pull,
        }
    }
}
