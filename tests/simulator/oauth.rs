//! `/oauth2/exchange` and `/oauth2/token`, and the token endpoint for a Distribution registry.
//!
//! They refuse with an empty 401, and never refuse a scope: who may not have it gets a token without it.

use http::{HeaderMap, Method};

use super::auth::{self, Access};
use super::reply::{self, JSON, Reply};
use super::route::{form, value};
use super::tokens::{self, Identity};
use super::{State, clock};

/// `POST /oauth2/exchange`: an Entra token for a refresh token.
pub(super) fn exchange(state: &State, method: &Method, body: &str) -> Reply {
    if *method != Method::POST {
        return reply::route_not_found();
    }
    let fields = form(body);
    let grant = value(&fields, "grant_type").unwrap_or_default();
    let token = match grant {
        "access_token" | "access_token_refresh_token" => value(&fields, "access_token"),
        "refresh_token" => value(&fields, "refresh_token"),
        _ => None,
    };
    match token {
        Some(token) if is_known(state, token, value(&fields, "tenant")) => {
            let refresh = tokens::issue_refresh(state, Identity::everything(&state.guid()));
            with_rate_limit(reply::text(200, JSON, format!("{{\"refresh_token\":\"{refresh}\"}}")))
        }
        _ => reply::empty(401),
    }
}

/// A token of the registry's own tenant; of another it is refused without a word.
fn is_known(state: &State, token: &str, tenant: Option<&str>) -> bool {
    state.options.aad_tokens.iter().any(|known| known == token)
        || state.options.entra.as_ref().is_some_and(|entra| entra.takes(token, tenant))
}

/// `GET` or `POST /oauth2/token`.
pub(super) fn token(state: &State, method: &Method, query: &str, headers: &HeaderMap, body: &str) -> Reply {
    let fields = if *method == Method::POST { form(body) } else { form(query) };
    let asked = scopes(state, &fields);
    match identity(state, method, &fields, headers) {
        Ok(identity) => {
            let token = tokens::issue_access(state, &identity, &asked);
            with_rate_limit(reply::text(200, JSON, format!("{{\"access_token\":\"{token}\"}}")))
        }
        Err(refused) => refused,
    }
}

/// `GET` or `POST /distribution/token`: as the Distribution token specification has it.
pub(super) fn distribution(state: &State, method: &Method, query: &str, headers: &HeaderMap, body: &str) -> Reply {
    let fields = if *method == Method::POST { form(body) } else { form(query) };
    let asked = scopes(state, &fields);
    let service = value(&fields, "service").unwrap_or_default();
    match identity(state, method, &fields, headers) {
        Ok(identity) => {
            let (token, life) = tokens::issue_for_distribution(state, &identity, service, &asked);
            let issued = clock::rfc3339(clock::now());
            let body = format!(
                "{{\"token\":\"{token}\",\"access_token\":\"{token}\",\"expires_in\":{life},\"issued_at\":\"{issued}\"}}"
            );
            reply::text(200, "application/json", body)
        }
        Err(refused) => refused,
    }
}

/// Every `scope`, each of which may hold several.
fn scopes(state: &State, fields: &[(String, String)]) -> Vec<Access> {
    let values = fields.iter().filter(|(name, _)| name == "scope").flat_map(|(_, value)| value.split(' '));
    let asked: Vec<Access> = values.filter_map(Access::parse).collect();
    for access in asked.iter().filter(|a| a.kind == "repository" && a.name.contains('*')) {
        state.log.violation(format!(
            "scope repository:{}: a wildcard is silently ignored by registries with repository permissions",
            access.name
        ));
    }
    asked
}

fn identity(
    state: &State,
    method: &Method,
    fields: &[(String, String)],
    headers: &HeaderMap,
) -> Result<Identity, Reply> {
    let field = |name| value(fields, name);
    let login = if *method == Method::POST {
        match field("grant_type") {
            Some("refresh_token") => {
                let session = state.tokens.refresh(field("refresh_token").unwrap_or_default(), clock::now());
                return session.map(|s| s.identity).ok_or_else(|| reply::empty(401));
            }
            Some("password") => {
                field("username").map(|name| (name.to_owned(), field("password").unwrap_or_default().to_owned()))
            }
            _ => return Err(reply::empty(401)),
        }
    } else if headers.contains_key("authorization") {
        Some(auth::basic(headers).ok_or_else(|| reply::empty(401))?)
    } else {
        None
    };
    match login {
        Some((name, _)) if name.ends_with('\n') => Err(reply::empty(500)),
        Some((name, password)) => Identity::by_password(state, &name, &password).ok_or_else(|| reply::empty(401)),
        None if state.options.anonymous => Ok(Identity::anonymous()),
        None => Err(reply::empty(401)),
    }
}

fn with_rate_limit(mut reply: Reply) -> Reply {
    reply::set(&mut reply, "x-ms-ratelimit-remaining-calls-per-second", "166.65");
    reply
}
