//! The registry API: one request in, one answer out, and what is said about it in header, log and metric.

use super::error::Problem;
use super::explain;
use super::oauth::Service;
use super::record::RequestRecord;
use super::reply::{API_VERSION, CACHE_STATUS, NAMESPACE, Reply, ping, problem_reply};
use super::request::{Naming, Resolved, Routes, Target, without_port};
use super::sites;
use crate::access::{Access, Act, Caller, Guest, Refusal, Shown};
use crate::cache::Cache;
use crate::config::{ClientName, Listen, Right};
use crate::oci::{Deed, Registry, Repository};
use crate::server::http::body::Body;
use crate::server::http::connection::Handler;
use crate::server::http::peer::Peer;
use crate::telemetry::{Log, Metrics};
use crate::upstream::{CallerLogin, Client, for_caller};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use hyper::body::Incoming;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The handler of the registry's listeners; a cheap clone.
#[derive(Clone)]
pub struct RegistryService(Arc<Inner>);

pub(in crate::server) struct Inner {
    pub(in crate::server) routes: Routes,
    pub(in crate::server) access: Access,
    pub(in crate::server) cache: Cache,
    pub(in crate::server) metrics: Arc<Metrics>,
    log: Log,
    requests: AtomicU64,
}

impl RegistryService {
    /// Joins what a request passes through, in its order: routes, access, cache.
    #[must_use]
    pub fn new(routes: Routes, access: Access, cache: Cache, metrics: Arc<Metrics>, log: Log) -> Self {
        Self(Arc::new(Inner { routes, access, cache, metrics, log, requests: AtomicU64::new(0) }))
    }
}

impl Handler for RegistryService {
    async fn handle(&self, request: Request<Incoming>, peer: Arc<Peer>) -> Response<Body> {
        let inner = &self.0;
        let number = inner.requests.fetch_add(1, Ordering::Relaxed);
        let mut record = RequestRecord::new(&request, &peer, number, Arc::clone(&inner.metrics), inner.log.clone());
        let client = Client::at(peer.address.map(|address| address.ip()));
        let result = client.scope(inner.answer(request, &peer, &mut record)).await;
        let Reply { mut response, provenance, detail } =
            result.unwrap_or_else(|problem| problem_reply(&problem, &record.request_id()));
        let headers = response.headers_mut();
        headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
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
    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: &Peer,
        record: &mut RequestRecord,
    ) -> Result<Reply, Problem> {
        let (head, body) = request.into_parts();
        let host = host(&head.uri, &head.headers);
        let own_name = host.and_then(|host| self.routes.own_name(host));
        let caller = Caller {
            address: peer.address.map(|address| address.ip()),
            local: peer.local.map(|address| address.ip()),
            host: host.map(without_port),
            authority: host.filter(|_| own_name.is_some()),
            own_name,
            encrypted: matches!(*peer.listener, Listen::Tls(_)),
            certificate: peer.client.as_ref().map(ClientName::as_str),
            authorization: head.headers.get(header::AUTHORIZATION),
            shows_several: head.headers.get_all(header::AUTHORIZATION).iter().nth(1).is_some(),
        };
        if let (Some(service), Some(registry)) = (Service::of(head.uri.path()), own_name)
            && self.access.has_token_service()
        {
            sites::refuse_foreign(&head.method, &head.headers, host)?;
            return Box::pin(self.token_service(service, registry, &caller, &head, body)).await;
        }
        let guest = self.access.admit(&caller).await?;
        sites::refuse_foreign(&head.method, &head.headers, host)?;
        let query = head.uri.query();
        // The name of the TLS handshake says where a request goes to like `Host` does, which comes first.
        let named = host.filter(|host| self.routes.is_host(host)).or(peer.server_name.as_deref());
        let Resolved { target, naming } = self.routes.resolve(head.uri.path(), query, named)?;
        record.resolved(&target);
        let ctx = RequestContext {
            method: &head.method,
            headers: &head.headers,
            query: query.unwrap_or(""),
            naming: &naming,
            guest: &guest,
            host,
        };
        // An error, too, is scoped by the namespace.
        let result = match self.caller(&guest) {
            None => self.target(&target, &ctx, body).await,
            login => Box::pin(for_caller(login, self.target(&target, &ctx, body))).await,
        };
        let mut reply = result.unwrap_or_else(|problem| problem_reply(&problem, &record.request_id()));
        if let Some(ns) = naming.ns.as_deref().and_then(|ns| HeaderValue::from_str(ns).ok()) {
            reply.response.headers_mut().insert(NAMESPACE, ns);
        }
        Ok(reply)
    }

    async fn target(&self, target: &Target, ctx: &RequestContext<'_>, body: Incoming) -> Result<Reply, Problem> {
        if !target.methods().contains(ctx.method) {
            return Err(Problem::method(ctx.method, target.methods()));
        }
        // The catalogue of all upstreams is decided for each of them.
        if let Some(registry) = self.routes.asked_of(target, ctx.naming, ctx.host) {
            let (right, deed) = (target.right(ctx.method), target.deed(ctx.method));
            self.permit(ctx, right, registry, target.repository(), &deed).await?;
        }
        if ctx.headers.contains_key(header::VIA) {
            self.note_passers(target, ctx.headers)?;
        }
        match (target, ctx.method) {
            (Target::Ping, _) => Ok(ping(ctx.is_head())),
            (Target::Manifest(repository, reference), &Method::PUT) => {
                self.put_manifest(repository, reference, ctx, body).await
            }
            (Target::Manifest(repository, reference), &Method::DELETE) => {
                self.delete_manifest(repository, reference).await
            }
            (Target::Manifest(repository, reference), _) => self.manifest(repository, reference, ctx).await,
            (Target::Blob(repository, digest), &Method::DELETE) => self.delete_blob(repository, digest).await,
            (Target::Blob(repository, digest), _) => self.blob(repository, digest, ctx).await,
            (Target::Tags(repository), _) => self.tags(repository, ctx).await,
            (Target::Catalogue(registry), _) => self.catalogue(registry, ctx).await,
            (Target::Catalogues, _) => self.catalogues(ctx).await,
            (Target::Referrers(repository, digest), _) => self.referrers(repository, digest, ctx).await,
            (Target::Uploads(repository), _) => self.begin_upload(repository, ctx, body).await,
            (Target::Upload(repository, session), _) => self.upload(repository, session, ctx, body).await,
            (Target::Acr(resource), _) => self.acr(resource, ctx, body).await,
        }
    }
}

impl Inner {
    /// The credential with which upstreams are asked that are asked as their callers.
    fn caller(&self, guest: &Guest) -> Option<CallerLogin> {
        Some(match self.access.shown(guest)? {
            Shown::Password { user, password } => CallerLogin::password(user, password),
            Shown::Bearer(token) => CallerLogin::bearer(token),
        })
    }

    /// Whether the caller may do this: the one way to ask.
    pub(in crate::server) async fn permit(
        &self,
        ctx: &RequestContext<'_>,
        right: Right,
        registry: &Registry,
        repository: Option<&Repository>,
        deed: &Deed,
    ) -> Result<(), Refusal> {
        self.access.permit(ctx.guest, &Act { right, registry, repository, deed }).await
    }

    /// Hears which larders have passed the request on. One that goes in a circle would wait for itself.
    fn note_passers(&self, target: &Target, headers: &HeaderMap) -> Result<(), Problem> {
        match target {
            Target::Ping => {}
            Target::Catalogues => {
                for registry in self.routes.registries() {
                    self.cache.note_passers(registry, headers)?;
                }
            }
            _ => target.registry().map_or(Ok(()), |registry| self.cache.note_passers(registry, headers))?,
        }
        Ok(())
    }
}

/// What of a request the answers look at.
pub(in crate::server) struct RequestContext<'a> {
    pub(in crate::server) method: &'a Method,
    pub(in crate::server) headers: &'a HeaderMap,
    /// Without its question mark; empty if there is none.
    pub(in crate::server) query: &'a str,
    pub(in crate::server) naming: &'a Naming,
    /// Who asks.
    pub(in crate::server) guest: &'a Guest,
    /// The request's authority, else `Host`.
    pub(in crate::server) host: Option<&'a str>,
}

impl RequestContext<'_> {
    pub(in crate::server) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// Whether the client wants upstream's word, not a stored one.
    pub(in crate::server) fn no_cache(&self) -> bool {
        let lines = self.headers.get_all(header::CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).any(|directive| directive.trim().eq_ignore_ascii_case("no-cache"))
    }
}

/// The authority of the request itself counts, where there is one, as HTTP/2 and proxies write it (RFC 9112, 3.2.2).
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let named = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => headers.get(header::HOST)?.to_str().ok()?,
    };
    Some(named.rsplit_once('@').map_or(named, |(_, host)| host))
}

/// As the registry reads it, without the port.
#[must_use]
pub fn named_host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    host(uri, headers).map(without_port)
}
