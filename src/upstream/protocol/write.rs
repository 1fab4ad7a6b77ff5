//! What changes a registry: manifests that are put, what is deleted, and ACR's own API, which also reads.
//!
//! Each is sent once: a 401 is answered with a token and nothing else is tried again, since what was done cannot be known. The
//! exception is a `PUT`, which may follow a connection that died under it: put twice is put once.

use super::fetch::{Ask, header};
use super::link::{self, Next};
use super::relayed::Relayed;
use crate::oci::{Digest, Name, Reference};
use crate::upstream::auth::scope::Scope;
use crate::upstream::endpoints::Upstream;
use crate::upstream::error::{ErrorKind, Failure, UpstreamError};
use crate::upstream::limits::op::Op;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};

/// The most that an answer of ACR's API may have: a page of a thousand manifests with all their attributes has a tenth of it.
const MAX_ACR: usize = 8 << 20;

/// What a registry says of a manifest that it has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutManifest {
    /// The digest under which it is kept, if that can be verified.
    pub digest: Option<Digest>,
    /// `OCI-Subject`: the subject that it will be listed under.
    pub subject: Option<String>,
    /// `OCI-Tag`, line by line: tags that were set besides.
    pub tags: Vec<String>,
}

/// What is asked of ACR's own API.
#[derive(Clone, Debug)]
pub struct AcrRequest {
    /// What is to be done.
    pub method: AcrMethod,
    /// The repository; the catalogue is of none.
    pub repository: Option<Name>,
    /// Path behind `/acr/v1/`, encoded.
    pub path: String,
    /// The raw query.
    pub query: String,
    /// For a change, its type and content.
    pub body: Option<(String, Bytes)>,
}

/// What is done with a thing of ACR's own API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcrMethod {
    /// Looks at it.
    Get,
    /// Changes its attributes: locks.
    Patch,
    /// Removes it.
    Delete,
}

/// An answer of ACR's own API, as it came.
#[derive(Clone, Debug)]
pub struct AcrAnswer {
    /// The status, a success.
    pub status: u16,
    pub content_type: Option<String>,
    pub content: Bytes,
    /// The raw query that gets the next page.
    pub next: Option<String>,
    /// What caches on the way say of it.
    pub relayed: Relayed,
}

impl Upstream {
    /// Puts a manifest. `media_type` goes out as it is; `query` is for tags to be set besides.
    pub async fn put_manifest(
        &self,
        repository: &Name,
        reference: &Reference,
        media_type: Option<&str>,
        query: &str,
        content: Bytes,
    ) -> Result<PutManifest, UpstreamError> {
        let put = async {
            let mut path = format!("/v2/{repository}/manifests/{reference}");
            if !query.is_empty() {
                path = format!("{path}?{query}");
            }
            let mut ask = self.change(Op::ManifestPut, Method::PUT, &path, Scope::Push(repository.clone()))?;
            if let Some(media_type) = media_type {
                ask.headers.insert(CONTENT_TYPE, header(media_type)?);
            }
            let answer = self.own().session().write(&ask, content).await?;
            let tags = answer.headers.get_all("oci-tag").iter().filter_map(|tag| Some(tag.to_str().ok()?.to_owned()));
            let said = PutManifest {
                digest: answer.digest(),
                subject: answer.header("oci-subject").map(str::to_owned),
                tags: tags.collect(),
            };
            answer.body.drain().await;
            self.lift_all(repository);
            Ok(said)
        };
        self.own().settled(put.await, || format!("put manifest {reference} into {repository} of {}", self.name()))
    }

    /// Deletes a manifest with all its tags, or, where the registry can, a tag alone.
    pub async fn delete_manifest(&self, repository: &Name, reference: &Reference) -> Result<(), UpstreamError> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let deleted = self.delete(Op::ManifestDelete, repository, &path).await;
        self.own().done(deleted, || format!("delete manifest {reference} of {repository}"))
    }

    pub async fn delete_blob(&self, repository: &Name, digest: &Digest) -> Result<(), UpstreamError> {
        let deleted = self.delete(Op::BlobDelete, repository, &format!("/v2/{repository}/blobs/{digest}")).await;
        self.own().done(deleted, || format!("delete blob {digest} of {repository}"))
    }

    /// Asks ACR's own API.
    pub async fn acr(&self, request: &AcrRequest) -> Result<AcrAnswer, UpstreamError> {
        let (op, method) = match request.method {
            AcrMethod::Get => (Op::AcrRead, Method::GET),
            AcrMethod::Patch => (Op::AcrWrite, Method::PATCH),
            AcrMethod::Delete => (Op::AcrDelete, Method::DELETE),
        };
        let attempt = format!("{method} /acr/v1/{} of {}", request.path, self.name());
        let answered = async {
            let scope = match (request.method, &request.repository) {
                (_, None) => Scope::Catalogue,
                (AcrMethod::Get, Some(name)) => Scope::Metadata(name.clone()),
                (AcrMethod::Patch, Some(name)) => Scope::Locks(name.clone()),
                (AcrMethod::Delete, Some(name)) => Scope::Delete(name.clone()),
            };
            let mut path = format!("/acr/v1/{}", request.path);
            if !request.query.is_empty() {
                path = format!("{path}?{}", request.query);
            }
            let mut ask = self.change(op, method, &path, scope)?;
            let mut content = Bytes::new();
            if let Some((kind, body)) = &request.body {
                ask.headers.insert(CONTENT_TYPE, header(kind)?);
                content = body.clone();
            }
            let answer = self.own().session().write(&ask, content).await?;
            let next = match link::next(&answer.headers, &answer.url) {
                Next::None => None,
                Next::Page(next) => Some(next.split_once('?').map_or(String::new(), |(_, query)| query.to_owned())),
                Next::Astray(_) => {
                    let reason = "the next page of the list is said to be on another host";
                    return Err(Failure::new(ErrorKind::Foreign, reason));
                }
            };
            let (status, content_type) = (answer.status.as_u16(), answer.header(CONTENT_TYPE).map(str::to_owned));
            let relayed = Relayed::of(&answer.headers);
            Ok(AcrAnswer {
                status,
                content_type,
                next,
                relayed,
                content: answer.collect_document(MAX_ACR, self.documents()).await?,
            })
        };
        self.own().settled(answered.await, || attempt)
    }

    async fn delete(&self, op: Op, repository: &Name, path: &str) -> Result<(), Failure> {
        let ask = self.change(op, Method::DELETE, path, Scope::Delete(repository.clone()))?;
        self.own().session().write(&ask, Bytes::new()).await?.body.drain().await;
        Ok(())
    }

    fn change(&self, op: Op, method: Method, path: &str, scope: Scope) -> Result<Ask, Failure> {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("*/*"))]);
        Ok(Ask { op, method, url: self.own().url(path)?, headers, scope })
    }
}
