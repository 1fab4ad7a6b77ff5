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

use super::secret::Secret;
use crate::config::CredentialSettings;
use crate::config::Environment;
use crate::oci::Registry;
use crate::telemetry::Metrics;
use crate::upstream::error::{Failure, SetupError};
use crate::upstream::transport::origin::Origin;
use crate::upstream::transport::resolve::Resolver;
use entra::{Door, Principal, Surroundings, Workload};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

/// As whom larder asks an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginSummary {
    /// Whom the login names.
    pub identity: String,
    /// Where it comes from.
    pub source: String,
    /// When it dies, if it says so.
    pub expires: Option<SystemTime>,
    /// Why there is none, and what to do.
    pub problem: Option<String>,
}

/// What is presented to a token service, or to a registry that wants a password itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Grant {
    Anonymous,
    Password {
        username: String,
        password: Secret,
    },
    /// A refresh or identity token.
    Refresh(Secret),
    /// An Entra access token, which ACR exchanges for a refresh token.
    Entra {
        token: Secret,
        tenant: Option<String>,
    },
}

/// A login as it is now.
#[derive(Clone, Debug)]
pub(in crate::upstream) struct Login {
    pub(in crate::upstream) grant: Grant,
    /// Whom it names.
    pub(in crate::upstream) identity: String,
    /// Where it came from.
    pub(in crate::upstream) source: String,
    /// What to do when it is refused.
    pub(in crate::upstream) remedy: String,
    pub(in crate::upstream) expires: Option<SystemTime>,
}

impl Login {
    fn anonymous(source: &str, remedy: &str) -> Self {
        Self {
            grant: Grant::Anonymous,
            identity: "anonymous".to_owned(),
            source: source.to_owned(),
            remedy: remedy.to_owned(),
            expires: None,
        }
    }

    /// The failure that says that this login was refused.
    pub(in crate::upstream) fn refused(&self, by: &str) -> Failure {
        let Self { identity, source, .. } = self;
        let problem = match self.grant {
            Grant::Anonymous => format!("{by} gives nothing to anonymous callers"),
            _ => format!("{by} refuses the login of {identity} (from {source})"),
        };
        Failure::credential(identity, problem, &self.remedy)
    }
}

pub(in crate::upstream) type Pending<'a> = Pin<Box<dyn Future<Output = Result<Login, Failure>> + Send + 'a>>;

/// A source of logins.
pub(in crate::upstream) trait Credential: Send + Sync {
    /// The login as it is now.
    fn material(&self) -> Pending<'_>;

    /// The login last given out was refused: whatever was remembered is not to be given again.
    fn refused(&self) {}

    /// Whether it keeps its login itself, so that nothing else is to remember it.
    fn keeps(&self) -> bool {
        false
    }

    /// Which logins were thought of before the one last given out, each with why it was not that.
    fn passed_over(&self) -> Vec<String> {
        Vec::new()
    }
}

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

/// Whether a host is an Azure Container Registry.
pub(in crate::upstream) fn is_acr(host: &str) -> bool {
    [".azurecr.io", ".azurecr.cn", ".azurecr.us"].iter().any(|suffix| host.ends_with(suffix))
}

/// What to do about a dead login made by `az acr login` or `docker login`.
fn login_again(registry: &str) -> String {
    match registry.split_once('.') {
        Some((name, _)) if is_acr(registry) => {
            format!("run `az acr login --name {name}` again (such a login dies after three hours)")
        }
        _ => format!("run `docker login {registry}` again"),
    }
}
