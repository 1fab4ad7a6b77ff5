//! ACR's own API: what it says is kept briefly, what it changes is passed through, and what it removes or hides is forgotten here.

use super::error::Problem;
use super::lists::passed_link;
use super::read_body;
use super::reply::{Reply, value};
use super::request::AcrResource;
use super::service::{Inner, RequestContext};
use crate::cache::{CacheError, MetadataAnswer, Provenance, Removal};
use crate::oci::{Registry, each_entry};
use crate::server::http::body::Body;
use crate::telemetry::CacheStatus;
use crate::upstream::{AcrAnswer, AcrMethod, AcrRequest};
use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use hyper::body::Incoming;
use serde::Serialize;
use std::borrow::Cow;

/// A change of attributes has some hundred bytes.
const MAX_CHANGE: usize = 64 << 10;

impl Inner {
    pub(in crate::server) async fn acr(
        &self,
        resource: &AcrResource,
        ctx: &RequestContext<'_>,
        body: Incoming,
    ) -> Result<Reply, Problem> {
        let path = path(resource);
        let link = ctx.naming.acr_path(&path);
        let request = AcrRequest {
            method: AcrMethod::Get,
            repository: resource.repository().map(|repository| repository.name.clone()),
            path,
            query: without_ns(ctx.query),
            body: None,
        };
        if let (Some(repository), &(Method::PATCH | Method::DELETE)) = (resource.repository(), ctx.method) {
            let request = self.change_of(request, ctx, body).await?;
            let hides = request.body.as_ref().is_none_or(|(_, content)| hides(content));
            let removal = if hides { removal(resource) } else { None };
            let answer = self.cache.change_acr(repository, request, removal).await;
            let answer = answer.map_err(|error| Problem::from(error).of_write())?;
            return Ok(reply(&answer, answer.content.clone(), &link, ctx, Provenance::new(CacheStatus::Bypass)));
        }
        let registry = resource.registry();
        let MetadataAnswer { answer, provenance } = self.cache.metadata(registry, request, ctx.no_cache()).await?;
        let content = match resource {
            AcrResource::Catalogue(registry) => self.visible_to(ctx, registry, &answer.content)?,
            _ => answer.content.clone(),
        };
        Ok(reply(&answer, content, &link, ctx, provenance))
    }

    /// The request as one that changes or deletes.
    async fn change_of(
        &self,
        request: AcrRequest,
        ctx: &RequestContext<'_>,
        body: Incoming,
    ) -> Result<AcrRequest, Problem> {
        if ctx.method == Method::DELETE {
            return Ok(AcrRequest { method: AcrMethod::Delete, ..request });
        }
        let (stall, documents) = (self.cache.limits().stall_timeout, self.cache.documents());
        let content = read_body::collect(body, "the change", MAX_CHANGE, stall, documents).await?;
        let kind = ctx.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let body = Some((kind.unwrap_or("application/json").to_owned(), content));
        Ok(AcrRequest { method: AcrMethod::Patch, body, ..request })
    }

    /// The page of a catalogue without what the caller may not pull.
    fn visible_to(&self, ctx: &RequestContext<'_>, registry: &Registry, page: &Bytes) -> Result<Bytes, Problem> {
        if !self.access.restricts_pulls() {
            return Ok(page.clone());
        }
        let unreadable =
            |problem: String| CacheError::Unreadable { upstream: registry.to_string(), what: "list", problem };
        let mut names = Vec::new();
        let mut add = |name: &str| {
            if self.may_pull(ctx, registry, name) {
                names.push(name.to_owned());
            }
        };
        each_entry(page, "repositories", |raw| {
            serde_json::from_str(raw.get()).map(|name: Cow<'_, str>| add(&name)).map_err(|_| "an entry is no text")?;
            Ok(true)
        })
        .map_err(|problem| unreadable(problem.to_owned()))?;
        let page = serde_json::to_vec(&Visible { repositories: names });
        Ok(page.map_err(|error| unreadable(error.to_string()))?.into())
    }
}

/// What of a catalogue's page its caller may see.
#[derive(Serialize)]
struct Visible {
    repositories: Vec<String>,
}

fn reply(answer: &AcrAnswer, content: Bytes, path: &str, ctx: &RequestContext<'_>, provenance: Provenance) -> Reply {
    let length = content.len();
    let mut response = Response::new(Body::full(content));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    if let Some(kind) = &answer.content_type {
        headers.insert(header::CONTENT_TYPE, value(kind));
    }
    headers.insert(header::CONTENT_LENGTH, length.into());
    if let Some(next) = &answer.next {
        headers.insert(header::LINK, value(&passed_link(path, next, ctx.naming)));
    }
    Reply { response, provenance: Some(provenance), detail: None }
}

/// Path behind `/acr/v1/`, as upstream has it.
fn path(resource: &AcrResource) -> String {
    match resource {
        AcrResource::Catalogue(_) => "_catalog".to_owned(),
        AcrResource::Repository(repository) => repository.name.to_string(),
        AcrResource::Tags(repository) => format!("{}/_tags", repository.name),
        AcrResource::Tag(repository, tag) => format!("{}/_tags/{tag}", repository.name),
        AcrResource::Manifests(repository) => format!("{}/_manifests", repository.name),
        AcrResource::Manifest(repository, digest) => format!("{}/_manifests/{digest}", repository.name),
    }
}

/// What the resource is, where that can be removed.
fn removal(resource: &AcrResource) -> Option<Removal> {
    match resource.clone() {
        AcrResource::Repository(repository) => Some(Removal::Repository(repository)),
        AcrResource::Tag(repository, tag) => Some(Removal::Tag(repository, tag)),
        AcrResource::Manifest(repository, digest) => Some(Removal::Manifest(repository, digest)),
        AcrResource::Catalogue(_) | AcrResource::Tags(_) | AcrResource::Manifests(_) => None,
    }
}

/// Whether a change of attributes keeps people from reading: what is stored must not answer for it then.
fn hides(change: &[u8]) -> bool {
    let change: serde_json::Value = serde_json::from_slice(change).unwrap_or_default();
    ["readEnabled", "listEnabled"].iter().any(|attribute| change.get(attribute) == Some(&false.into()))
}

fn without_ns(query: &str) -> String {
    let rest: Vec<_> = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("ns=")).collect();
    rest.join("&")
}
