//! ACR's own API: passed through as it is. What it removes or hides is forgotten here.

use super::body::Body;
use super::error::Problem;
use super::intake;
use super::lists::passed_link;
use super::registry::{Asked, Inner};
use super::reply::{Reply, value};
use super::request::AcrResource;
use crate::cache::{CacheError, Provenance, Removal};
use crate::oci::Registry;
use crate::telemetry::CacheStatus;
use crate::upstream::{AcrAnswer, AcrMethod, AcrRequest};
use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use hyper::body::Incoming;

/// A change of attributes has some hundred bytes.
const MAX_CHANGE: usize = 64 << 10;

impl Inner {
    pub(super) async fn acr(
        &self,
        resource: &AcrResource,
        asked: &Asked<'_>,
        body: Incoming,
    ) -> Result<Reply, Problem> {
        let (method, body) = match *asked.method {
            Method::PATCH => {
                let stall = self.cache.limits().stall_timeout;
                let content = intake::collect(body, "the change", MAX_CHANGE, stall).await?;
                let kind = asked.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
                (AcrMethod::Patch, Some((kind.unwrap_or("application/json").to_owned(), content)))
            }
            Method::DELETE => (AcrMethod::Delete, None),
            _ => (AcrMethod::Get, None),
        };
        let hides = body.as_ref().is_some_and(|(_, content)| hides(content));
        let removal = if method == AcrMethod::Delete || hides { removal(resource) } else { None };
        let path = path(resource);
        let request = AcrRequest {
            method,
            repository: resource.repository().map(|repository| repository.name.clone()),
            path: path.clone(),
            query: without_ns(asked.query),
            body,
        };
        let answer = self.cache.acr(resource.registry(), request, removal).await;
        let answer = answer.map_err(|error| Problem::from(error).of_write())?;
        let content = match resource {
            AcrResource::Catalogue(registry) => self.visible_to(asked, registry, &answer.content)?,
            _ => answer.content.clone(),
        };
        Ok(reply(&answer, content, &asked.naming.acr_path(&path), asked))
    }

    /// The page of a catalogue without what the caller may not pull.
    fn visible_to(&self, asked: &Asked<'_>, registry: &Registry, page: &Bytes) -> Result<Bytes, Problem> {
        if !self.access.restricts_pulls() {
            return Ok(page.clone());
        }
        let read = serde_json::from_slice::<serde_json::Value>(page).map_err(|error| CacheError::Unreadable {
            upstream: registry.to_string(),
            what: "list",
            problem: error.to_string(),
        });
        let mut page = read?;
        if let Some(names) = page.get_mut("repositories").and_then(serde_json::Value::as_array_mut) {
            names.retain(|name| name.as_str().is_some_and(|name| self.may_pull(asked, registry, name)));
        }
        Ok(page.to_string().into())
    }
}

fn reply(answer: &AcrAnswer, content: Bytes, path: &str, asked: &Asked<'_>) -> Reply {
    let length = content.len();
    let mut response = Response::new(Body::full(content));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    if let Some(kind) = &answer.content_type {
        headers.insert(header::CONTENT_TYPE, value(kind));
    }
    headers.insert(header::CONTENT_LENGTH, length.into());
    if let Some(next) = &answer.next {
        headers.insert(header::LINK, value(&passed_link(path, next, asked.naming)));
    }
    Reply { response, provenance: Some(Provenance::new(CacheStatus::Bypass)), detail: None }
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
