use super::answer::{self, IdentityAnswer};
use super::door::Door;
use super::remedy::remedy;
use super::{Minted, SCOPE, at};
use crate::upstream::auth::token_client::encode_form;
use crate::upstream::error::{ErrorKind, Failure};
use crate::upstream::transport::pool::Outgoing;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use std::sync::Arc;

const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An application at Entra's token endpoint.
pub(super) struct Application {
    pub(super) door: Arc<Door>,
    pub(super) tenant: String,
    pub(super) client: String,
    pub(super) authority: Uri,
    /// Whom to name in a failure.
    pub(super) identity: String,
    /// Where the proof comes from, for remedies.
    pub(super) proof: String,
}

/// What the application shows.
pub(super) enum Proof<'a> {
    Secret(&'a str),
    Assertion(&'a str),
}

impl Application {
    /// Its token endpoint, which an assertion names as its audience.
    pub(super) fn endpoint(&self) -> Result<Uri, Failure> {
        at(&self.authority, &format!("/{}/oauth2/v2.0/token", self.tenant))
    }

    /// Asks for a token (OAuth 2, client credentials).
    pub(super) async fn redeem(&self, proof: Proof<'_>) -> Result<Minted, Failure> {
        let mut fields = vec![("grant_type", "client_credentials"), ("client_id", &*self.client), ("scope", SCOPE)];
        match proof {
            Proof::Secret(secret) => fields.push(("client_secret", secret)),
            Proof::Assertion(jwt) => {
                fields.extend([("client_assertion_type", ASSERTION), ("client_assertion", jwt)]);
            }
        }
        let headers =
            HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))]);
        let body = Bytes::from(encode_form(&fields));
        let outgoing = Outgoing { method: Method::POST, url: self.endpoint()?, headers, body };
        let what = format!("no token for {} from Entra", self.identity);
        let reply = self.door.ask(outgoing).await.map_err(|failure| unreachable(failure, &what, &self.authority))?;
        match (reply.status, IdentityAnswer::of(&reply)) {
            (StatusCode::OK, _) => answer::minted(&reply),
            (StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(said)) => {
                if said.error == "temporarily_unavailable" {
                    let reason = format!("{what}: {} is not available for the moment ({})", reply.host, said.words());
                    return Err(Failure::new(ErrorKind::ServerError(503), reason));
                }
                let problem = format!("{} refuses a token to {} ({})", reply.host, self.identity, said.words());
                let remedy = remedy(said.code(), &self.tenant, &self.client, &self.proof);
                Err(Failure::credential(&self.identity, problem, &remedy))
            }
            _ => Err(answer::trouble(&reply, &what)),
        }
    }

    /// The proof could not be had.
    pub(super) fn without_proof(&self, problem: &str) -> Failure {
        Failure::credential(&self.identity, problem, &format!("check {}", self.proof))
    }
}

fn unreachable(failure: Failure, what: &str, authority: &Uri) -> Failure {
    let host = authority.host().unwrap_or_default();
    let reason =
        format!("{what}: {}; see that {host} can be reached from here (firewall, HTTPS_PROXY)", failure.reason);
    Failure { reason, ..failure }
}
