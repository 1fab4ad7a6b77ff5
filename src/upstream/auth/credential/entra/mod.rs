//! Identities of Entra (Azure's directory): where their tokens come from, and how they are kept fresh.
//!
//! A source asks one service once; [`Keeper`] runs it ahead of need, with one request in flight, and hands out the last token until
//! it really expires. A source never waits for a person and never follows a redirect. `docs/identity.md` tells it to operators, and
//! why this is not a library.

mod answer;
mod app_service;
mod arc;
mod assertion;
mod door;
mod imds;
mod keeper;
mod login;
mod managed;
mod pause;
mod principal;
mod remedy;
mod surroundings;
mod token_request;
mod workload;

pub(super) use door::Door;
pub(super) use keeper::Keeper;
pub(super) use managed::managed;
pub(super) use principal::Principal;
pub(super) use surroundings::Surroundings;
pub(super) use workload::Workload;

use crate::upstream::auth::login::is_acr;
use crate::upstream::auth::secret::Secret;
use crate::upstream::error::Failure;
use http::Uri;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::Instant;

/// What tokens are asked for: the one audience that ACR accepts whatever its policies, the same in all clouds.
const RESOURCE: &str = "https://containerregistry.azure.net";
const SCOPE: &str = "https://containerregistry.azure.net/.default";

/// A token as it was given.
struct Minted {
    secret: Secret,
    /// From `asked` on.
    life: Duration,
    asked: Instant,
}

type Minting<'a> = Pin<Box<dyn Future<Output = Result<Minted, Failure>> + Send + 'a>>;

/// One way to get tokens.
trait IdentitySource: Send + Sync {
    /// Asks for a token, once or with the patience that the service wants.
    fn mint(&self) -> Minting<'_>;
}

/// What is said of a source.
#[derive(Clone, Debug)]
struct About {
    /// A metric's label.
    kind: &'static str,
    /// Whom its tokens name.
    identity: String,
    /// Where they come from.
    from: String,
    tenant: Option<String>,
    /// What it is told by: a change of one is a reason to try again at once.
    files: Vec<PathBuf>,
}

/// The login host of the cloud that a registry belongs to.
pub(super) fn authority(registry: &str) -> Uri {
    Uri::from_static(match registry.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "cn" if is_acr(registry) => "https://login.chinacloudapi.cn",
        "us" if is_acr(registry) => "https://login.microsoftonline.us",
        _ => "https://login.microsoftonline.com",
    })
}

/// A base with a path of the protocol; `path` begins with a slash.
fn at(base: &Uri, path: &str) -> Result<Uri, Failure> {
    let text = format!("{}{path}", base.to_string().trim_end_matches('/'));
    text.parse().map_err(|_| Failure::foreign(format!("'{text}' is no address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_ending_names_its_cloud() {
        for (registry, login) in [
            ("myacr.azurecr.io", "https://login.microsoftonline.com/"),
            ("myacr.azurecr.cn", "https://login.chinacloudapi.cn/"),
            ("myacr.azurecr.us", "https://login.microsoftonline.us/"),
            ("registry.example.cn", "https://login.microsoftonline.com/"),
        ] {
            assert_eq!(authority(registry).to_string(), login, "{registry}");
        }
        assert_eq!(at(&authority("a"), "/t/x?y=1").unwrap(), "https://login.microsoftonline.com/t/x?y=1");
    }
}
