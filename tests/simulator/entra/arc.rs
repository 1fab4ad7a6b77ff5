//! Azure Arc's agent: who asks has to show that it may read a file of the agent's.

use http::HeaderMap;

use super::super::reply::{self, Reply};
use super::super::route::value;
use super::metadata::{is_metadata, refused, resource, token};
use super::{AssignedIdentity, Directory, EntraSettings};

/// `GET $IDENTITY_ENDPOINT`: 401 with `WWW-Authenticate: Basic realm=FILE` first, a new file each time.
pub(super) fn answer(
    directory: &Directory,
    settings: &EntraSettings,
    headers: &HeaderMap,
    fields: &[(String, String)],
) -> Reply {
    let Some(arc) = &settings.arc else { return reply::empty(404) };
    if !is_metadata(headers) {
        return refused("invalid_request", "Required metadata header not specified");
    }
    if !matches!(value(fields, "api-version"), Some("2019-11-01" | "2020-06-01")) {
        return refused("invalid_request", "The api-version is not supported");
    }
    if let Err(refusal) = resource(fields) {
        return refusal;
    }
    if ["client_id", "object_id", "msi_res_id"].iter().any(|name| value(fields, name).is_some()) {
        return refused("invalid_request", "User assigned identities are not supported");
    }
    if let Some(authorization) = headers.get("authorization") {
        let key = authorization.to_str().ok().and_then(|text| text.strip_prefix("Basic ")).unwrap_or_default();
        let file = arc.folder.join(format!("{key}.key"));
        if key.is_empty() || key.contains('/') || std::fs::remove_file(file).is_err() {
            return refused("unauthorized_client", "The challenge does not match");
        }
        let own = AssignedIdentity { client_id: "arc-server".into(), ..AssignedIdentity::default() };
        return token(directory, settings, &own);
    }
    let key = format!("challenge-{}", directory.number());
    let file = arc.folder.join(format!("{key}.key"));
    std::fs::write(&file, &key).expect("the agent writes its challenge");
    let named = arc.lies.clone().unwrap_or_else(|| file.display().to_string());
    let mut reply = reply::empty(401);
    reply::set(&mut reply, "www-authenticate", &format!("Basic realm={named}"));
    reply
}
