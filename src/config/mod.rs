//! The file that the operator writes, its overrides, and the validated settings that the other rooms are given.
//!
//! File, environment and flags become one tree in which each value knows its place (`tree`, `overlay`); the tree is read into
//! [`Settings`], whose tables declare their keys (`declare`); reading collects every error instead of stopping at the first (`reader`).
//! The other rooms see only [`Settings`]: whatever is wrong with them has been said before a room is built.
//!
//! Secrets are never in the settings, only the paths of their files: [`read_secret`] reads one when it is needed.

mod access;
mod across;
mod certificate;
mod choices;
mod credential;
mod declare;
mod environment;
mod freshness;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod handed;
mod load;
mod names;
mod origin;
mod overlay;
mod quantities;
mod reader;
mod secret;
mod server;
mod server_names;
mod settings;
mod signing;
mod tls;
mod tree;
mod upstreams;
mod users;
mod values;
mod warming;

pub use access::{AccessRule, AccessSettings};
pub use certificate::{Certificate, ClientName};
pub use choices::{Durability, Listen, Right, Tier};
pub use credential::{
    AssignedIdentity, CredentialSettings, DockerLogins, ManagedIdentity, PasswordLogin, PrincipalProof,
    RefreshTokenFile, ServicePrincipal, WorkloadIdentity,
};
pub use declare::{KeyDoc, TableDoc};
pub use environment::Environment;
pub use freshness::{FreshnessRule, FreshnessSettings};
pub use handed::Handed;
pub use load::{Loaded, Sources, configured_names, find_socket, find_users_file, load, load_store};
pub use names::parse_url;
pub use origin::{ConfigError, ConfigErrors, Origin};
pub use overlay::{Flags, IdentityFlags, Login};
pub use reader::Effective;
pub use secret::{SecretError, read_private, read_secret, secret_path};
pub use server::{AdminSettings, Limits, NetworkSettings, ServerSettings, StoreSettings};
pub use server_names::ServerNames;
pub use settings::Settings;
pub use signing::SigningCertificate;
pub use tls::{TlsFiles, TlsIdentity, TlsProblem, TlsSettings};
pub use upstreams::UpstreamSettings;
pub use users::{Users, UsersError, check_user_name, read_line, read_users, read_users_text};
pub use values::parse_authority;
pub use warming::WarmSettings;
