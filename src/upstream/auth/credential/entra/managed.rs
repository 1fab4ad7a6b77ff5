use super::app_service::AppService;
use super::arc::Arc as ArcServer;
use super::door::Door;
use super::imds::Imds;
use super::keeper::Keeper;
use super::surroundings::Surroundings;
use super::token_request::words;
use super::{About, IdentitySource, Minting};
use crate::config::AssignedIdentity;
use crate::upstream::error::Failure;
use http::Uri;
use std::sync::Arc;

/// The managed identity of wherever larder runs; an `endpoint` speaks as a machine's metadata service does.
pub(in crate::upstream) fn managed(
    door: &Arc<Door>,
    identity: &AssignedIdentity,
    endpoint: Option<&Uri>,
    surroundings: Surroundings,
) -> Keeper {
    let about = |kind, from: String| About { kind, identity: words(identity), from, tenant: None, files: Vec::new() };
    let (asks, own) = (Arc::clone(door), identity.clone());
    let keeper = |source: Box<dyn IdentitySource>, about| Keeper::new(source, about, Arc::clone(door));
    match (endpoint, surroundings) {
        (Some(base), _) => {
            let from = format!("metadata service {}", base.authority().map_or("", |authority| authority.as_str()));
            keeper(Box::new(Imds { door: asks, identity: own, base: base.clone() }), about("entra-imds", from))
        }
        (None, Surroundings::Machine) => {
            let base = Uri::from_static("http://169.254.169.254");
            let about = about("entra-imds", "metadata service 169.254.169.254".to_owned());
            keeper(Box::new(Imds { door: asks, identity: own, base }), about)
        }
        (None, Surroundings::AppService { endpoint, header }) => {
            let about = about("entra-app-service", "App Service or Container Apps".to_owned());
            keeper(Box::new(AppService { door: asks, identity: own, endpoint, header }), about)
        }
        (None, Surroundings::Arc { endpoint, folder }) => {
            let about = about("entra-arc", "Azure Arc".to_owned());
            keeper(Box::new(ArcServer { door: asks, identity: own, endpoint, folder }), about)
        }
        (None, Surroundings::Unsupported(why)) => {
            let about = about("entra-imds", "surroundings that larder does not know".to_owned());
            keeper(Box::new(Unsupported(why)), about)
        }
    }
}

/// Surroundings that larder does not speak to.
struct Unsupported(&'static str);

impl IdentitySource for Unsupported {
    fn mint(&self) -> Minting<'_> {
        let (problem, remedy) = self.0.split_once("; ").unwrap_or((self.0, "choose another kind of credential"));
        Box::pin(async move { Err(Failure::credential("the managed identity", problem, remedy)) })
    }
}

impl IdentitySource for Box<dyn IdentitySource> {
    fn mint(&self) -> Minting<'_> {
        (**self).mint()
    }
}
