use super::answer::{self, IdentityAnswer};
use super::door::{Door, Reply};
use super::token_request::{request, words};
use super::{IdentitySource, Minted, Minting};
use crate::config::AssignedIdentity;
use crate::upstream::auth::challenge::challenges;
use crate::upstream::auth::secret;
use crate::upstream::error::Failure;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use std::path::{Path, PathBuf};
use std::sync::Arc as Shared;

/// Challenges are short; a larger file is another one.
const LARGEST: u64 = 4096;
const VERSION: &str = "2019-11-01";
const GROUP: &str = "see that larder runs in the group himds (SupplementaryGroups=himds in its unit, or usermod -aG himds USER), and \
                     restart it";

/// A server that Azure Arc manages. Its agent has the asker read a file that only its own group may read.
pub(super) struct Arc {
    pub(super) door: Shared<Door>,
    pub(super) identity: AssignedIdentity,
    pub(super) endpoint: Uri,
    /// Where the agent's challenges are: no other file is ever read for it.
    pub(super) folder: PathBuf,
}

impl Arc {
    async fn ask(&self) -> Result<Minted, Failure> {
        let who = words(&self.identity);
        if self.identity != AssignedIdentity::System {
            let problem = "Azure Arc has the server's own identity and no other";
            return Err(Failure::credential(&who, problem, "leave client_id, object_id and resource_id out"));
        }
        let challenge = self.send(None).await?;
        if challenge.status == StatusCode::OK {
            return answer::minted(&challenge);
        }
        if challenge.status != StatusCode::UNAUTHORIZED {
            return Err(self.refused(&challenge));
        }
        let key = self.answer_to(&challenge).await.map_err(|problem| Failure::credential(&who, problem, GROUP))?;
        let reply = self.send(Some(key)).await?;
        if reply.status == StatusCode::OK { answer::minted(&reply) } else { Err(self.refused(&reply)) }
    }

    async fn send(&self, authorization: Option<HeaderValue>) -> Result<Reply, Failure> {
        let metadata = (HeaderName::from_static("metadata"), HeaderValue::from_static("true"));
        let own = authorization.map(|value| (AUTHORIZATION, value));
        let headers: HeaderMap = std::iter::once(metadata).chain(own).collect();
        let outgoing = request(&self.endpoint, VERSION, &self.identity, "msi_res_id", headers)?;
        self.door.ask(outgoing).await.map_err(|failure| {
            let advice = "see that Arc's agent runs (azcmagent show; systemctl status himdsd)";
            let reason = format!("no token from Azure Arc's agent: {}; {advice}", failure.reason);
            Failure { reason, ..failure }
        })
    }

    /// The header that a challenge's file makes.
    async fn answer_to(&self, challenge: &Reply) -> Result<HeaderValue, String> {
        let found = challenges(&challenge.headers);
        let basic = found.iter().find(|challenge| challenge.scheme == "basic");
        let file = basic.and_then(|basic| basic.get("realm")).unwrap_or_default();
        let file = Path::new(file);
        let is_key = file.extension().is_some_and(|ending| ending == "key") && file.parent() == Some(&self.folder);
        if !is_key {
            let (host, folder) = (&challenge.host, self.folder.display());
            return Err(format!("{host} wants a file read that is not one of Arc's (*.key in {folder})"));
        }
        let unread = |error: std::io::Error| format!("Arc's challenge {} cannot be read ({error})", file.display());
        let meta = tokio::fs::symlink_metadata(file).await.map_err(unread)?;
        if !meta.is_file() || meta.len() > LARGEST {
            return Err(format!("Arc's challenge {} is no file of at most {LARGEST} bytes", file.display()));
        }
        let key = secret::read_file(file).await?;
        let mut header = HeaderValue::from_str(&format!("Basic {}", key.trim_end()))
            .map_err(|_| format!("Arc's challenge {} holds what no header can carry", file.display()))?;
        header.set_sensitive(true);
        Ok(header)
    }

    fn refused(&self, reply: &Reply) -> Failure {
        let what = "no token from Azure Arc's agent";
        match (reply.status, IdentityAnswer::of(reply)) {
            (StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(said)) => {
                let problem = format!("Azure Arc's agent refuses a token ({})", said.words());
                let remedy = "see that the server is connected (azcmagent show) and has its identity in Azure";
                Failure::credential(&words(&self.identity), problem, remedy)
            }
            _ => answer::trouble(reply, what),
        }
    }
}

impl IdentitySource for Arc {
    fn mint(&self) -> Minting<'_> {
        Box::pin(self.ask())
    }
}
