//! A machine's metadata service, and the endpoint that App Service and Container Apps have.

use http::HeaderMap;

use super::super::reply::{self, Reply};
use super::super::route::value;
use super::{AssignedIdentity, Directory, EntraSettings, IDENTITY_HEADER, RESOURCE};

const JSON: &str = "application/json; charset=utf-8";

type Fields = [(String, String)];

/// `GET /metadata/identity/oauth2/token`: refuses what came through a proxy, and what does not carry `Metadata: true`.
pub(super) fn imds(directory: &Directory, settings: &EntraSettings, headers: &HeaderMap, fields: &Fields) -> Reply {
    if !is_metadata(headers) {
        return refused("invalid_request", "Required metadata header not specified");
    }
    if headers.contains_key("x-forwarded-for") || headers.contains_key("via") {
        return refused("invalid_request", "The request was forwarded by a proxy");
    }
    match value(fields, "api-version") {
        None => return refused("invalid_request", "Required query variable 'api-version' is missing"),
        Some("2018-02-01" | "2019-08-01") => {}
        Some(_) => return refused("bad_request_102", "Required query variable 'api-version' is not supported"),
    }
    if let Err(refusal) = resource(fields) {
        return refusal;
    }
    match chosen(settings, fields, "msi_res_id") {
        Ok(identity) => token(directory, settings, identity),
        Err(()) => refused("invalid_request", "Identity not found"),
    }
}

/// `GET $IDENTITY_ENDPOINT`, with `X-IDENTITY-HEADER`; a resource id is called `mi_res_id` here.
pub(super) fn app_service(
    directory: &Directory,
    settings: &EntraSettings,
    headers: &HeaderMap,
    fields: &Fields,
) -> Reply {
    if headers.get("x-identity-header").is_none_or(|header| header != IDENTITY_HEADER) {
        return plain(401, "The X-IDENTITY-HEADER does not match.");
    }
    if value(fields, "api-version") != Some("2019-08-01") {
        return plain(400, "Unsupported api-version.");
    }
    if let Err(refusal) = resource(fields) {
        return refusal;
    }
    match chosen(settings, fields, "mi_res_id") {
        Ok(identity) => token(directory, settings, identity),
        Err(()) => plain(
            400,
            "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId.",
        ),
    }
}

pub(super) fn is_metadata(headers: &HeaderMap) -> bool {
    headers.get("metadata").is_some_and(|value| value == "true")
}

pub(super) fn resource(fields: &Fields) -> Result<(), Reply> {
    match value(fields, "resource") {
        Some(RESOURCE) => Ok(()),
        None => Err(refused("invalid_request", "Required query variable 'resource' is missing")),
        Some(other) => {
            let text = format!("AADSTS500011: The resource principal named {other} was not found in the tenant.");
            Err(refused("invalid_resource", &text))
        }
    }
}

/// The identity that is asked for: at most one name is looked at, and names that another service uses are none.
fn chosen<'a>(settings: &'a EntraSettings, fields: &Fields, by_resource: &str) -> Result<&'a AssignedIdentity, ()> {
    let named = |name| value(fields, name);
    let found = match (named("client_id"), named("object_id"), named(by_resource)) {
        (None, None, None) => {
            let system = settings.identities.iter().find(|identity| identity.system);
            system.or_else(|| settings.identities.first().filter(|_| settings.identities.len() == 1))
        }
        (Some(id), None, None) => settings.identities.iter().find(|identity| identity.client_id == id),
        (None, Some(id), None) => settings.identities.iter().find(|identity| identity.object_id == id),
        (None, None, Some(id)) => settings.identities.iter().find(|identity| identity.resource_id == id),
        _ => None,
    };
    found.ok_or(())
}

/// `expires_on` is a text of digits.
pub(super) fn token(directory: &Directory, settings: &EntraSettings, identity: &AssignedIdentity) -> Reply {
    let (token, end) = directory.issue(&identity.client_id);
    let life =
        if settings.only_expires_on { String::new() } else { format!("\"expires_in\":\"{}\",", settings.life_s) };
    let body = format!(
        "{{\"access_token\":\"{token}\",\"client_id\":\"{}\",{life}\"expires_on\":\"{end}\",\"resource\":\"{RESOURCE}\",\
         \"token_type\":\"Bearer\"}}",
        identity.client_id
    );
    reply::text(200, JSON, body)
}

pub(super) fn refused(error: &str, description: &str) -> Reply {
    let body = serde_json::json!({ "error": error, "error_description": description });
    reply::text(400, JSON, body.to_string())
}

fn plain(status: u16, message: &str) -> Reply {
    let body = serde_json::json!({ "statusCode": status, "message": message });
    reply::text(status, JSON, body.to_string())
}
