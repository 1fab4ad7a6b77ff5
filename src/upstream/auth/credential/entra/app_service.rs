use super::answer::{self, IdentityAnswer};
use super::door::Door;
use super::token_request::{request, words};
use super::{IdentitySource, Minted, Minting};
use crate::config::AssignedIdentity;
use crate::upstream::error::Failure;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use std::sync::Arc;

/// App Service, Functions and Container Apps: an endpoint and a header that the platform puts into the environment.
pub(super) struct AppService {
    pub(super) door: Arc<Door>,
    pub(super) identity: AssignedIdentity,
    pub(super) endpoint: Uri,
    pub(super) header: String,
}

impl AppService {
    async fn ask(&self) -> Result<Minted, Failure> {
        let who = words(&self.identity);
        let what = format!("no token for {who} from the app's identity endpoint");
        let refused = |problem: String, remedy: &str| Err(Failure::credential(&who, problem, remedy));
        let Ok(mut secret) = HeaderValue::from_str(&self.header) else {
            return refused("IDENTITY_HEADER holds what no header can carry".to_owned(), "restart the app");
        };
        secret.set_sensitive(true);
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x-identity-header"), secret)]);
        let outgoing = request(&self.endpoint, "2019-08-01", &self.identity, "mi_res_id", headers)?;
        let reply = self.door.ask(outgoing).await.map_err(|failure| {
            let reason =
                format!("{what}: {}; IDENTITY_ENDPOINT is the platform's, which may be restarting", failure.reason);
            Failure { reason, ..failure }
        })?;
        match (reply.status, IdentityAnswer::of(&reply)) {
            (StatusCode::OK, _) => answer::minted(&reply),
            (StatusCode::BAD_REQUEST, Some(said)) => {
                let remedy = match self.identity {
                    AssignedIdentity::System => {
                        "switch the app's system-assigned identity on, or name a user-assigned one by client_id"
                    }
                    _ => "assign that identity to the app, or correct its id",
                };
                refused(format!("{} has no token for {who} ({})", reply.host, said.words()), remedy)
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(said)) => {
                let problem = format!("{} does not take IDENTITY_HEADER ({})", reply.host, said.words());
                refused(problem, "restart the app: the platform gives it a new one")
            }
            _ => Err(answer::trouble(&reply, &what)),
        }
    }
}

impl IdentitySource for AppService {
    fn mint(&self) -> Minting<'_> {
        Box::pin(self.ask())
    }
}
