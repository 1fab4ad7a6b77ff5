//! The login server: the order in which a request is judged, and who answers it.
//!
//! A configured fault first; then as ACR does it: route (404), firewall (403), quota (429), authentication (401),
//! content (404).

use http::{HeaderMap, Method};

use super::faults::{FaultAnswer, PathClass};
use super::reply::{self, Reply};
use super::route::{Route, form};
use super::throttle::Category;
use super::{State, acr, auth, blob, lists, manifest, oauth};

/// One request, its body read.
pub(super) struct Request<'a> {
    pub(super) method: &'a Method,
    /// Path and query as they came.
    pub(super) target: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a str,
    /// The client's address, which the firewall's text names.
    pub(super) client: &'a str,
}

pub(super) fn answer(state: &State, request: &Request<'_>) -> Reply {
    let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
    let route = Route::parse(path);
    let class = route.as_ref().map_or(PathClass::Unknown, Route::class);
    let fault = state.knobs.take_fault(class);
    let foreign = fault.as_ref().is_some_and(|(fault, _)| is_foreign(fault));
    let mut answer = match (&fault, &route) {
        (Some((fault, left)), _) => reply::faulty(fault, *left, request.client),
        (None, None) => reply::route_not_found(),
        (None, Some(route)) => judge(state, route, query, request).unwrap_or_else(|refused| refused),
    };
    if !foreign {
        dress(state, &mut answer, route.as_ref(), request);
    }
    answer
}

/// Answers of portals, front doors and broken gateways carry nothing of the registry's.
fn is_foreign(fault: &FaultAnswer) -> bool {
    match fault {
        FaultAnswer::Oci { .. } | FaultAnswer::Firewall => false,
        FaultAnswer::TooManyRequests { front_door, .. } => *front_door,
        FaultAnswer::Status { .. } | FaultAnswer::Portal { .. } | FaultAnswer::ForeignRedirect { .. } => true,
    }
}

fn judge(state: &State, route: &Route, query: &str, request: &Request<'_>) -> Result<Reply, Reply> {
    let Request { method, headers, body, client, .. } = *request;
    let (limits, firewall) = state.knobs.read(|k| (k.throttle, k.firewall));
    if firewall {
        return Err(reply::firewall(client));
    }
    if let Some(limits) = limits {
        let owner = auth::quota_owner(state, headers);
        for category in categories(route, method) {
            state.throttle.take(&limits, *category, &owner).map_err(|left| reply::throttled(Some(left)))?;
        }
    }
    match route {
        Route::Exchange => return Ok(oauth::exchange(state, method, body)),
        Route::Token => return Ok(oauth::token(state, method, query, headers, body)),
        Route::DistributionToken => return Ok(oauth::distribution(state, method, query, headers, body)),
        _ => {}
    }
    let query = form(query);
    let host = headers.get("host").and_then(|h| h.to_str().ok()).map_or_else(|| state.host(), str::to_owned);
    auth::check(state, &host, headers, &auth::needs(state, route, method, &query))?;
    if !matches!(*method, Method::GET | Method::HEAD) {
        let message = "the simulator does not imitate writes";
        return Err(reply::error(405, "UNSUPPORTED", message, None));
    }
    Ok(content(state, route, &query, request))
}

fn content(state: &State, route: &Route, query: &[(String, String)], request: &Request<'_>) -> Reply {
    match route {
        Route::Ping => reply::text(200, reply::JSON, "{}"),
        Route::Catalog => lists::catalog(state, "/v2/_catalog", query),
        Route::Tags { name } => lists::tags(state, name, query),
        Route::Referrers { name, digest } => lists::referrers(state, name, digest, query),
        Route::Manifest { name, reference } => manifest::answer(state, name, reference, request.headers),
        Route::Blob { name, digest } => blob::answer(state, name, digest, request.method, request.headers),
        Route::AcrCatalog => lists::catalog(state, "/acr/v1/_catalog", query),
        Route::AcrRepository { name } => acr::repository(state, name),
        Route::AcrTags { name } => acr::tags(state, name, query),
        Route::AcrTag { name, tag } => acr::tag(state, name, tag),
        Route::AcrManifests { name } => acr::manifests(state, name, query),
        Route::AcrManifest { name, digest } => acr::manifest(state, name, digest),
        // Upload sessions never exist here; the token endpoints have answered before.
        Route::Upload { .. } | Route::Exchange | Route::Token | Route::DistributionToken => reply::route_not_found(),
    }
}

fn categories(route: &Route, method: &Method) -> &'static [Category] {
    match (route, method) {
        (Route::Exchange | Route::Token | Route::DistributionToken, _) => &[Category::OAuth],
        (_, &Method::DELETE) => &[Category::Delete],
        (_, &Method::PUT | &Method::PATCH | &Method::POST) => &[Category::Write],
        (Route::Referrers { .. }, _) => &[Category::Referrers, Category::Read],
        _ => &[Category::Read],
    }
}

/// The standing headers, and the ids that support asks for.
fn dress(state: &State, answer: &mut Reply, route: Option<&Route>, request: &Request<'_>) {
    let oauth = route.is_some_and(Route::is_oauth);
    reply::standing_headers(answer, !oauth, &state.guid());
    if request.headers.get("connection").is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"close")) {
        reply::set(answer, "connection", "close");
    }
    if let Some(id) = request.headers.get("x-ms-client-request-id") {
        answer.headers_mut().insert("x-ms-client-request-id", id.clone());
    }
    if !oauth && !matches!(route, None | Some(Route::Ping)) && answer.status().is_success() {
        reply::set(answer, "x-ms-request-id", &state.guid());
    }
}
