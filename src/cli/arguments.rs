//! The flags that `serve` and `check` share.

use crate::config::{Flags, IdentityFlags, Login, Sources};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

pub(super) const EXAMPLES: &str = "Examples:
  larder serve --upstream myacr.azurecr.io
  larder serve --upstream myacr.azurecr.io --username ci --password-file ./password
  larder serve --upstream myacr.azurecr.io --login managed-identity
  larder serve --upstream http://127.0.0.1:5555 --login anonymous
  larder serve --config /etc/larder/larder.toml";

/// The flags that say something about settings; what a flag says holds over the environment and the file.
#[derive(Args, Debug)]
pub(super) struct Settings {
    /// Read this file [default: $LARDER_CONFIG, /etc/larder/larder.toml, the user's configuration folder]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A registry to pull from, by host or url; the first one is the default and the login belongs to it
    #[arg(long, value_name = "HOST|URL")]
    upstream: Vec<String>,
    /// The login to use there: whatever works, Docker's, the Azure CLI's, an identity of Entra, or none [default: auto]
    #[arg(long, value_enum, conflicts_with_all = ["username", "password_file"])]
    login: Option<LoginKind>,
    /// The user to log in as
    #[arg(long, value_name = "NAME", requires = "password_file")]
    username: Option<String>,
    /// The file that holds the user's password
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<String>,
    #[command(flatten)]
    identity: Identity,
    /// Where clients reach larder [default: 127.0.0.1:5000 and [::1]:5000]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Where health and metrics are [default: 127.0.0.1:5001]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// The folder of the store [default: $STATE_DIRECTORY, the user's cache folder]
    #[arg(long, value_name = "DIR")]
    store: Option<String>,
    /// What the store may take, such as 100GiB
    #[arg(long, value_name = "SIZE")]
    max_size: Option<String>,
    /// Networks that are let in without a credential, separated by commas [default: loopback]
    #[arg(long, value_name = "NET,…", value_delimiter = ',')]
    open_to: Vec<String>,
    /// Never ask any upstream: what is stored is all there is
    #[arg(long)]
    sealed: bool,
    /// What everybody who is let in may do with every repository, besides pulling
    #[arg(long, value_name = "push,delete", value_delimiter = ',')]
    allow: Vec<String>,
}

/// Which identity of Entra is meant.
#[derive(Args, Debug)]
struct Identity {
    /// The tenant of a service principal or workload identity
    #[arg(long, value_name = "ID", requires = "login")]
    tenant_id: Option<String>,
    /// The client (application) id of a service principal or identity
    #[arg(long, value_name = "ID", requires = "login")]
    client_id: Option<String>,
    /// The object id of a managed identity
    #[arg(long, value_name = "ID", requires = "login")]
    object_id: Option<String>,
    /// The resource id of a managed identity
    #[arg(long, value_name = "ID", requires = "login")]
    resource_id: Option<String>,
    /// The file that holds a service principal's secret
    #[arg(long, value_name = "FILE", requires = "login")]
    client_secret_file: Option<String>,
    /// The PEM file that holds a service principal's key and certificate
    #[arg(long, value_name = "FILE", requires = "login")]
    certificate_file: Option<String>,
    /// The file that holds a workload's token
    #[arg(long, value_name = "FILE", requires = "login")]
    token_file: Option<String>,
    /// Where Entra is, instead of the cloud's login host
    #[arg(long, value_name = "URL", requires = "login")]
    authority: Option<String>,
    /// Where managed identities are given out, instead of the machine's metadata service
    #[arg(long, value_name = "URL", requires = "login")]
    endpoint: Option<String>,
}

impl Identity {
    fn into_flags(self) -> IdentityFlags {
        IdentityFlags {
            tenant_id: self.tenant_id,
            client_id: self.client_id,
            object_id: self.object_id,
            resource_id: self.resource_id,
            client_secret_file: self.client_secret_file,
            certificate_file: self.certificate_file,
            token_file: self.token_file,
            authority: self.authority,
            endpoint: self.endpoint,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LoginKind {
    Auto,
    Docker,
    Az,
    Anonymous,
    ManagedIdentity,
    WorkloadIdentity,
    ServicePrincipal,
}

impl Settings {
    /// Adds the flags to the other sources.
    pub(super) fn into_sources(self, sources: Sources) -> Sources {
        let chosen = self.login.map(|kind| match kind {
            LoginKind::Auto => Login::Auto,
            LoginKind::Docker => Login::Docker,
            LoginKind::Az => Login::AzureCli,
            LoginKind::Anonymous => Login::Anonymous,
            LoginKind::ManagedIdentity => Login::ManagedIdentity,
            LoginKind::WorkloadIdentity => Login::WorkloadIdentity,
            LoginKind::ServicePrincipal => Login::ServicePrincipal,
        });
        let password = self.username.zip(self.password_file);
        let password = password.map(|(username, password_file)| Login::Password { username, password_file });
        let flags = Flags {
            upstreams: self.upstream,
            login: chosen.or(password),
            identity: self.identity.into_flags(),
            listen: self.listen,
            admin: self.admin,
            store: self.store,
            max_size: self.max_size,
            open_to: self.open_to,
            allow: self.allow,
            sealed: self.sealed,
        };
        Sources { file: self.config, flags, ..sources }
    }
}

/// Which larder, or which store: what the other commands need to know.
#[derive(Args, Debug, Default)]
pub(super) struct Place {
    /// Read this file [default: $LARDER_CONFIG, /etc/larder/larder.toml, the user's configuration folder]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of the store [default: as for serve]
    #[arg(long, value_name = "DIR")]
    store: Option<String>,
}

/// A question to the running daemon.
#[derive(Args, Debug)]
pub(super) struct Question {
    #[command(flatten)]
    pub(super) place: Place,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Place {
    /// Adds them to the other sources.
    pub(super) fn into_sources(self, sources: Sources) -> Sources {
        Sources { file: self.config, flags: Flags { store: self.store, ..Flags::default() }, ..sources }
    }
}
