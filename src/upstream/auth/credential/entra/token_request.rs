//! What all metadata services are asked, and how an identity is named to a person.

use super::RESOURCE;
use crate::config::AssignedIdentity;
use crate::upstream::auth::token_client::encode_form;
use crate::upstream::error::Failure;
use crate::upstream::transport::pool::Outgoing;
use bytes::Bytes;
use http::{HeaderMap, Method, Uri};

/// An identity as an operator would say it.
pub(super) fn words(identity: &AssignedIdentity) -> String {
    match identity {
        AssignedIdentity::System => "the managed identity".to_owned(),
        AssignedIdentity::ClientId(id) => format!("managed identity with client id {id}"),
        AssignedIdentity::ObjectId(id) => format!("managed identity with object id {id}"),
        AssignedIdentity::ResourceId(id) => format!("managed identity {id}"),
    }
}

/// A request for a token; `by_resource` is what this service calls an Azure resource id.
pub(super) fn request(
    endpoint: &Uri,
    api_version: &str,
    identity: &AssignedIdentity,
    by_resource: &str,
    headers: HeaderMap,
) -> Result<Outgoing, Failure> {
    let mut fields = vec![("api-version", api_version), ("resource", RESOURCE)];
    match identity {
        AssignedIdentity::System => {}
        AssignedIdentity::ClientId(id) => fields.push(("client_id", id)),
        AssignedIdentity::ObjectId(id) => fields.push(("object_id", id)),
        AssignedIdentity::ResourceId(id) => fields.push((by_resource, id)),
    }
    let joint = if endpoint.query().is_some() { '&' } else { '?' };
    let url = format!("{endpoint}{joint}{}", encode_form(&fields));
    let url = url.parse().map_err(|_| Failure::foreign(format!("'{endpoint}' cannot be asked for a token")))?;
    Ok(Outgoing { method: Method::GET, url, headers, body: Bytes::new() })
}
