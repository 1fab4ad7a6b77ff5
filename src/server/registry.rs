//! The registry API: one request in, one answer out, and what is said about it in header, log and metric.

use super::body::Body;
use super::connection::{Handler, Peer};
use super::error::Problem;
use super::explain;
use super::lists::{self, Cut, Page};
use super::request::{self, Naming, Resolved, Routes, Target, without_port};
use super::{content, record::Record};
use crate::access::{Access, Caller, Refusal};
use crate::cache::{BlobAnswer, Cache, List, ListAnswer, ManifestAnswer, ManifestRequest, Provenance, Want};
use crate::oci::{Accept, ByteRange, Code, Digest, ErrorBody, MediaType, Reference, Repository};
use crate::store::ListKey;
use crate::telemetry::{Log, Metrics};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The handler of the registry's listeners; a cheap clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    routes: Routes,
    access: Access,
    cache: Cache,
    metrics: Arc<Metrics>,
    log: Log,
    requests: AtomicU64,
}

/// An answer, before it is known how it ends.
struct Reply {
    response: Response<Body>,
    provenance: Option<Provenance>,
    detail: Option<String>,
}

impl Registry {
    /// Joins what a request passes through, in its order: routes, access, cache.
    #[must_use]
    pub fn new(routes: Routes, access: Access, cache: Cache, metrics: Arc<Metrics>, log: Log) -> Self {
        Self(Arc::new(Inner { routes, access, cache, metrics, log, requests: AtomicU64::new(0) }))
    }
}

impl Handler for Registry {
    async fn handle(&self, request: Request<Incoming>, peer: Arc<Peer>) -> Response<Body> {
        let inner = &self.0;
        let number = inner.requests.fetch_add(1, Ordering::Relaxed);
        let mut record = Record::new(&request, &peer, number, Arc::clone(&inner.metrics), inner.log.clone());
        let result = inner.answer(&request, &peer, &mut record).await;
        let Reply { mut response, provenance, detail } =
            result.unwrap_or_else(|problem| problem_reply(&problem, &record.request_id()));
        let headers = response.headers_mut();
        headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        if let Some(provenance) = &provenance {
            headers.insert(CACHE_STATUS, explain::cache_status(provenance));
            if let Some(warning) = explain::warning(provenance) {
                headers.insert(header::WARNING, warning);
            }
        } else if !headers.contains_key(CACHE_STATUS) {
            headers.insert(CACHE_STATUS, HeaderValue::from_static("larder"));
        }
        record.answered(response.status(), provenance.map(|p| p.status), detail);
        let (parts, body) = response.into_parts();
        Response::from_parts(parts, body.on_end(move |end| record.ended(end)))
    }
}

impl Inner {
    async fn answer(&self, request: &Request<Incoming>, peer: &Peer, record: &mut Record) -> Result<Reply, Problem> {
        let host = host(request);
        let caller = Caller {
            address: peer.address.map(|address| address.ip()),
            local: peer.local.map(|address| address.ip()),
            host: host.map(without_port),
        };
        self.access.admit(&caller)?;
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(refuse_method(request.method()));
        }
        let query = request.uri().query();
        let Resolved { target, naming } = self.routes.resolve(request.uri().path(), query, host)?;
        record.resolved(&target);
        let asked = Asked {
            headers: request.headers(),
            head: request.method() == Method::HEAD,
            query: query.unwrap_or(""),
            naming: &naming,
        };
        let result = self.target(&target, &asked).await.map_err(|problem| match target {
            Target::Referrers(..) => problem.of_referrers(),
            _ => problem,
        });
        // An error, too, is scoped by the namespace.
        let mut reply = result.unwrap_or_else(|problem| problem_reply(&problem, &record.request_id()));
        if let Some(ns) = naming.ns.as_deref().and_then(|ns| HeaderValue::from_str(ns).ok()) {
            reply.response.headers_mut().insert(NAMESPACE, ns);
        }
        Ok(reply)
    }

    async fn target(&self, target: &Target, asked: &Asked<'_>) -> Result<Reply, Problem> {
        match target {
            Target::Ping => Ok(ping(asked.head)),
            Target::Manifest(repository, reference) => self.manifest(repository, reference, asked).await,
            Target::Blob(repository, digest) => self.blob(repository, digest, asked).await,
            Target::Tags(repository) => {
                let path = asked.naming.path(&format!("{}/tags/list", repository.name));
                self.list(&ListKey::Tags(repository.clone()), asked, &path).await
            }
            Target::Catalogue(registry) => {
                self.list(&ListKey::Catalogue(registry.clone()), asked, &asked.naming.path("_catalog")).await
            }
            Target::Referrers(repository, digest) => {
                let path = asked.naming.path(&format!("{}/referrers/{digest}", repository.name));
                self.list(&ListKey::Referrers(repository.clone(), *digest), asked, &path).await
            }
        }
    }

    async fn list(&self, key: &ListKey, asked: &Asked<'_>, path: &str) -> Result<Reply, Problem> {
        let cut = Cut::parse(asked.query)?;
        let ListAnswer { list, provenance } =
            self.cache.list(key, &cut.for_upstream(asked.naming), asked.no_cache()).await?;
        let page = match &list {
            List::Whole(entries) => lists::page(&cut, key, asked.naming, path, entries),
            List::Page(passed) => {
                let mut page = lists::page(&cut.uncut(), key, asked.naming, path, &passed.entries);
                let next = passed.next.as_deref().map(|query| lists::passed_link(path, query, asked.naming));
                page.link = page.link.or(next);
                page.filtered |= passed.filtered;
                page
            }
        };
        let kind = match key {
            ListKey::Referrers(..) => HeaderValue::from_static(MediaType::OCI_INDEX),
            ListKey::Tags(_) | ListKey::Catalogue(_) => JSON,
        };
        Ok(list_reply(page, kind, asked.head, provenance))
    }

    async fn manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
        asked: &Asked<'_>,
    ) -> Result<Reply, Problem> {
        let lines = asked.headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
        let accept = Accept::from_lines(lines);
        let request = ManifestRequest { repository, reference, accept: &accept, revalidate: asked.no_cache() };
        let ManifestAnswer { manifest, provenance } = self.cache.manifest(request).await?;
        let body = if asked.head { Body::empty() } else { Body::full(manifest.content.clone()) };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, value(manifest.media_type.as_str()));
        headers.insert(header::CONTENT_LENGTH, manifest.content.len().into());
        headers.insert(CONTENT_DIGEST, value(&manifest.digest.to_string()));
        Ok(Reply { response, provenance: Some(provenance), detail: None })
    }

    async fn blob(&self, repository: &Repository, digest: &Digest, asked: &Asked<'_>) -> Result<Reply, Problem> {
        let want = match request::range(asked.headers) {
            _ if asked.head => Want::Head,
            // No validator is ever sent, so one that a client names cannot match, and the whole content is due.
            Some(range) if !asked.headers.contains_key(header::IF_RANGE) => Want::Range(range),
            _ => Want::Whole,
        };
        let BlobAnswer { length, range, content, provenance } = self.cache.blob(repository, digest, want).await?;
        let mut response = Response::new(content::body(content));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, OCTETS);
        headers.insert(header::CONTENT_LENGTH, range.map_or(length, ByteRange::len).into());
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(CONTENT_DIGEST, value(&digest.to_string()));
        if let Some(range) = range {
            headers.insert(header::CONTENT_RANGE, value(&range.content_range(length)));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        Ok(Reply { response, provenance: Some(provenance), detail: None })
    }
}

/// What of a request the answers look at.
struct Asked<'a> {
    headers: &'a HeaderMap,
    head: bool,
    query: &'a str,
    naming: &'a Naming,
}

impl Asked<'_> {
    /// Whether the client wants upstream's word, not a stored one.
    fn no_cache(&self) -> bool {
        let lines = self.headers.get_all(header::CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).any(|directive| directive.trim().eq_ignore_ascii_case("no-cache"))
    }
}

fn host(request: &Request<Incoming>) -> Option<&str> {
    if request.version() == Version::HTTP_2 {
        return request.uri().authority().map(http::uri::Authority::as_str);
    }
    request.headers().get(header::HOST)?.to_str().ok()
}

fn refuse_method(method: &Method) -> Problem {
    match *method {
        Method::PUT | Method::POST | Method::PATCH | Method::DELETE => Refusal::Write.into(),
        _ => Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            Code::Unsupported,
            &format!("{method} is none of the API's methods"),
        ),
    }
}

fn ping(head: bool) -> Reply {
    let body = if head { Body::empty() } else { Body::full("{}".into()) };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response.headers_mut().insert(header::CONTENT_LENGTH, 2.into());
    Reply { response, provenance: None, detail: None }
}

fn list_reply(page: Page, kind: HeaderValue, head: bool, provenance: Provenance) -> Reply {
    let length = page.body.len();
    let body = if head { Body::empty() } else { Body::full(page.body.into()) };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CONTENT_LENGTH, length.into());
    if let Some(link) = page.link {
        headers.insert(header::LINK, value(&link));
    }
    if page.filtered {
        headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    Reply { response, provenance: Some(provenance), detail: None }
}

fn problem_reply(problem: &Problem, request_id: &str) -> Reply {
    let hidden = format!("larder met an error of its own; its log names it under request {request_id}");
    let message = if problem.is_ours() { &hidden } else { &problem.message };
    let detail = problem.status.is_server_error().then_some(request_id);
    let body = ErrorBody::new(&problem.code, message, detail).to_json();
    let mut response = Response::new(Body::full(body.into()));
    *response.status_mut() = problem.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    if let Some(after) = problem.retry_after {
        headers.insert(header::RETRY_AFTER, after.as_secs().max(1).into());
    }
    if let Some(length) = problem.length {
        headers.insert(header::CONTENT_RANGE, value(&format!("bytes */{length}")));
    }
    let provenance = problem.origin.map(|origin| Provenance { stored: false, ..Provenance::new(origin) });
    Reply { response, provenance, detail: Some(problem.message.clone()) }
}

/// A header from text that is known to be one: digests, numbers, validated names.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}
