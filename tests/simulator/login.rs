//! The login server: the order in which a request is judged, and who answers it.
//!
//! A configured fault first; then as ACR does it: route (404), firewall (403), quota (429), authentication (401),
//! content (404). A request is judged by its head; its body is read by whoever wants it, and the rest of it before
//! the answer goes out, unless `leaves_body` says otherwise.

use std::io;

use http::{HeaderMap, Method};

use super::faults::{FaultAnswer, PathClass};
use super::intake::Intake;
use super::reply::{self, Reply};
use super::route::{Route, form};
use super::throttle::Category;
use super::{Region, State, acr, auth, blob, delete, lists, manifest, manifest_push, oauth, uploads};

/// The largest body that is read whole, manifests aside; forms are far smaller.
const MAX_FORM: usize = 1024 * 1024;

/// The head of a request.
pub(super) struct Request<'a> {
    pub(super) method: &'a Method,
    /// Path and query as they came.
    pub(super) target: &'a str,
    pub(super) headers: &'a HeaderMap,
    /// The client's address, which the firewall's text names.
    pub(super) client: &'a str,
    /// The number of its connection.
    pub(super) connection: u64,
}

pub(super) async fn answer(state: &State, request: &Request<'_>, mut body: Intake) -> io::Result<Reply> {
    let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
    let route = Route::parse(request.method, path);
    let class = route.as_ref().map_or(PathClass::Unknown, Route::class);
    let fault = state.knobs.take_fault(class, request.method.as_str());
    if let Some((fault, _)) = &fault {
        state.effects.count(format!("{} {}", class.name(), fault.name()));
    }
    let foreign = fault.as_ref().is_some_and(|(fault, _)| is_foreign(fault));
    let judged = match (&fault, &route) {
        (Some((fault, left)), _) => Err(reply::faulty(fault, *left, request.client)),
        (None, None) => Err(reply::route_not_found()),
        (None, Some(route)) => judge(state, route, query, request).map(|()| route),
    };
    let mut answer = match judged {
        Ok(route) => perform(state, route, query, request, &mut body).await?,
        Err(refused) => refused,
    };
    if !(answer.status().as_u16() >= 400 && leaves_body(state, request)) {
        body.drain().await?;
    }
    if !foreign {
        dress(state, &mut answer, route.as_ref(), request);
    }
    Ok(answer)
}

/// Whether a refused request's body is left unread: the client waits for leave to send it, or the knob says so.
fn leaves_body(state: &State, request: &Request<'_>) -> bool {
    request.headers.contains_key("expect") || state.knobs.read(|k| k.refuse_early)
}

/// Answers of portals, front doors and broken gateways carry nothing of the registry's.
fn is_foreign(fault: &FaultAnswer) -> bool {
    match fault {
        FaultAnswer::Oci { .. } | FaultAnswer::Firewall => false,
        FaultAnswer::TooManyRequests { front_door, .. } => *front_door,
        FaultAnswer::Status { .. } | FaultAnswer::Portal { .. } | FaultAnswer::ForeignRedirect { .. } => true,
    }
}

fn judge(state: &State, route: &Route, query: &str, request: &Request<'_>) -> Result<(), Reply> {
    let Request { method, headers, client, .. } = *request;
    let (limits, firewall) = state.knobs.read(|k| (k.throttle, k.firewall));
    if firewall {
        state.effects.count("firewall");
        return Err(reply::firewall(client));
    }
    if let Some(limits) = limits {
        let owner = auth::quota_owner(state, headers);
        for category in categories(route, method) {
            state.throttle.take(&limits, *category, &owner).map_err(|left| reply::throttled(Some(left)))?;
        }
    }
    if route.is_oauth() {
        return Ok(());
    }
    let host = headers.get("host").and_then(|h| h.to_str().ok()).map_or_else(|| state.host(), str::to_owned);
    auth::check(state, &host, headers, &auth::needs(state, route, method, &form(query)))
}

async fn perform(
    state: &State,
    route: &Route,
    query: &str,
    request: &Request<'_>,
    body: &mut Intake,
) -> io::Result<Reply> {
    if route.is_oauth() {
        let Some(form) = body.collect(MAX_FORM).await? else { return Ok(reply::empty(413)) };
        return Ok(oauth(state, route, query, request, &String::from_utf8_lossy(&form)));
    }
    let region = state.region(request.connection);
    let query = form(query);
    match (route, request.method) {
        (Route::Upload { name, id }, _) => uploads::answer(&region, (name, id), &query, request, body).await,
        (_, &Method::GET | &Method::HEAD) => Ok(read(&region, route, &query, request)),
        (Route::Manifest { name, reference }, &Method::PUT) => {
            manifest_push::answer(&region, name, reference, request.headers, body).await
        }
        (_, &Method::DELETE) => Ok(delete::answer(&region, route)),
        (_, &Method::PATCH) if route.class() == PathClass::Acr => {
            let Some(changes) = body.collect(MAX_FORM).await? else { return Ok(reply::empty(413)) };
            Ok(acr::patch(&region, route, &changes))
        }
        _ => Ok(reply::unsupported()),
    }
}

fn oauth(state: &State, route: &Route, query: &str, request: &Request<'_>, form: &str) -> Reply {
    let Request { method, headers, .. } = *request;
    match route {
        Route::Exchange => oauth::exchange(state, method, form),
        Route::Token => oauth::token(state, method, query, headers, form),
        _ => oauth::distribution(state, method, query, headers, form),
    }
}

fn read(region: &Region<'_>, route: &Route, query: &[(String, String)], request: &Request<'_>) -> Reply {
    match route {
        Route::Ping => reply::text(200, reply::JSON, "{}"),
        Route::Catalog => lists::catalog(region, "/v2/_catalog", query),
        Route::Tags { name } => lists::tags(region, name, query),
        Route::Referrers { name, digest } => lists::referrers(region, name, digest, query),
        Route::Manifest { name, reference } => manifest::answer(region, name, reference, request.headers),
        Route::Blob { name, digest } => blob::answer(region, name, digest, request.method, request.headers),
        _ => acr::get(region, route, query),
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
