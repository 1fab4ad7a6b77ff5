//! As whom larder asks: sources of logins, each behind one trait.
//!
//! A source reads its file or runs its program every time it is asked. [`Memo`] asks it once for all who wait and remembers the
//! login for seconds, so that a secret rotates without a restart.

mod auto;
mod azure_cli;
mod docker;
mod entra;
mod file;
mod helper;
mod memo;

pub(in crate::upstream) use memo::Memo;

use super::login::{Credential, Login, Pending, is_acr};
use crate::config::CredentialSettings;
use crate::config::Environment;
use crate::oci::Registry;
use crate::telemetry::Metrics;
use crate::upstream::error::{Failure, SetupError};
use crate::upstream::transport::origin::Origin;
use crate::upstream::transport::resolve::Resolver;
use entra::{Door, Principal, Surroundings, Workload};
use std::path::Path;
use std::sync::Arc;

/// What a source of logins is made with.
#[derive(Clone, Copy)]
pub(in crate::upstream) struct Place<'a> {
    pub(in crate::upstream) name: &'a Registry,
    pub(in crate::upstream) origin: &'a Origin,
    pub(in crate::upstream) ca_file: Option<&'a Path>,
    pub(in crate::upstream) environment: &'a Environment,
    pub(in crate::upstream) resolver: &'a Resolver,
    pub(in crate::upstream) metrics: &'a Arc<Metrics>,
}

impl Place<'_> {
    /// The way to identity services.
    fn door(&self) -> Result<Arc<Door>, SetupError> {
        Door::new(self.name, self.origin, self.ca_file, self.environment, self.resolver, Arc::clone(self.metrics))
    }

    /// The name of the ACR that is asked; its address, if no ACR is.
    fn registry(&self) -> &str {
        let name = self.name.as_str();
        if is_acr(name) { name } else { &self.origin.host }
    }
}

/// The source that is configured for an upstream.
pub(in crate::upstream) fn source(
    settings: &CredentialSettings,
    place: Place<'_>,
) -> Result<Box<dyn Credential>, SetupError> {
    let (name, origin) = (place.name.as_str(), place.origin);
    let environment = place.environment.clone();
    let authority = |given: &Option<http::Uri>| given.clone().unwrap_or_else(|| entra::authority(place.registry()));
    Ok(match settings {
        CredentialSettings::Anonymous => Box::new(Anonymous),
        CredentialSettings::Password(login) => {
            Box::new(file::Password { username: login.username.clone(), file: login.password_file.clone() })
        }
        CredentialSettings::RefreshToken(token) => {
            Box::new(file::RefreshToken { file: token.token_file.clone(), registry: origin.host.clone() })
        }
        CredentialSettings::DockerConfig(logins) => {
            Box::new(docker::DockerConfig::new(logins.config_file.clone(), name, origin, environment))
        }
        CredentialSettings::Caller => Box::new(NoCaller),
        CredentialSettings::AzureCli => Box::new(azure_cli::AzureCli { environment }),
        CredentialSettings::Auto => Box::new(auto::Auto::new(place, Surroundings::chassis(), None)?),
        CredentialSettings::ServicePrincipal(it) => {
            let (door, authority) = (place.door()?, authority(&it.authority));
            Box::new(Principal::keeper(&door, &it.tenant_id, &it.client_id, &it.proof(), authority))
        }
        CredentialSettings::ManagedIdentity(it) => {
            let surroundings = Surroundings::of(&environment);
            Box::new(entra::managed(&place.door()?, &it.identity(), it.endpoint.as_ref(), surroundings))
        }
        CredentialSettings::WorkloadIdentity(it) => {
            let (door, authority) = (place.door()?, authority(&it.authority));
            Box::new(Workload::keeper(&door, &it.tenant_id, &it.client_id, &it.token_file, authority))
        }
    })
}

/// What is done for no caller has no login.
struct NoCaller;

impl Credential for NoCaller {
    fn material(&self) -> Pending<'_> {
        Box::pin(async {
            let remedy = "it is asked as soon as a caller with a credential wants it";
            Err(Failure::credential(
                "the caller",
                "this upstream is asked with the caller's credential, and there is none",
                remedy,
            ))
        })
    }
}

struct Anonymous;

impl Credential for Anonymous {
    fn material(&self) -> Pending<'_> {
        let remedy = "configure a login ([upstream.credential], or --login)";
        Box::pin(async move { Ok(Login::anonymous("no credential is configured", remedy)) })
    }
}
