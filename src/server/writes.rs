//! Answers to writes: manifests that are put, what is deleted, and ACR's own API.
#![expect(clippy::unused_async, reason = "nothing is forwarded yet")]

use super::error::Problem;
use super::registry::{Asked, Inner};
use super::reply::Reply;
use super::request::AcrResource;
use crate::oci::{Code, Digest, Reference, Registry, Repository};
use http::StatusCode;
use hyper::body::Incoming;

impl Inner {
    pub(super) async fn put_manifest(
        &self,
        repository: &Repository,
        _reference: &Reference,
        _asked: &Asked<'_>,
        _body: Incoming,
    ) -> Result<Reply, Problem> {
        Err(unavailable(&repository.registry))
    }

    pub(super) async fn delete_manifest(&self, repository: &Repository, _: &Reference) -> Result<Reply, Problem> {
        Err(unavailable(&repository.registry))
    }

    pub(super) async fn delete_blob(&self, repository: &Repository, _digest: &Digest) -> Result<Reply, Problem> {
        Err(unavailable(&repository.registry))
    }

    pub(super) async fn acr(
        &self,
        resource: &AcrResource,
        _asked: &Asked<'_>,
        _body: Incoming,
    ) -> Result<Reply, Problem> {
        let registry = match resource {
            AcrResource::Catalogue(registry) => registry,
            AcrResource::Repository(it)
            | AcrResource::Tags(it)
            | AcrResource::Tag(it, _)
            | AcrResource::Manifests(it)
            | AcrResource::Manifest(it, _) => &it.registry,
        };
        Err(unavailable(registry))
    }
}

fn unavailable(registry: &Registry) -> Problem {
    let message = format!("larder does not forward this yet: ask {registry} itself");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, &message)
}
