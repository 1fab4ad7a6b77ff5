//! The file that the operator writes, its overrides, and the validated settings that the other rooms are given.
//!
//! File, environment and flags become one tree in which each value knows its place (`tree`, `overlay`); the tree is read into
//! [`Settings`] by `sections`, `access` and `upstreams`, which collect every error instead of stopping at the first (`reader`).
//! The other rooms see only [`Settings`]: whatever is wrong with them has been said before a room is built.
//!
//! Secrets are never in the settings, only the paths of their files: [`read_secret`] reads one when it is needed.

mod access;
mod across;
mod certificate;
mod entra;
mod environment;
mod freshness;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod load;
mod names;
mod origin;
mod overlay;
mod reader;
mod secret;
mod sections;
mod server_names;
mod settings;
mod signing;
mod tls;
mod tree;
mod upstreams;
mod users;
mod values;

pub use certificate::{Certificate, ClientName};
pub use entra::parse_authority;
pub use environment::Environment;
pub use load::{Loaded, Sources, configured_names, find_socket, find_users_file, load, load_store};
pub use names::parse_url;
pub use origin::{ConfigError, ConfigErrors, Origin};
pub use overlay::{Flags, IdentityFlags, Login};
pub use reader::Effective;
pub use secret::{SecretError, read_private, read_secret, secret_path};
pub use server_names::ServerNames;
pub use settings::{
    AccessRule, AccessSettings, AdminSettings, AssignedIdentity, CredentialSettings, Durability, FreshnessRule,
    FreshnessSettings, Limits, Listen, NetworkSettings, PrincipalProof, Right, ServerSettings, Settings, StoreSettings,
    Tier, TlsSettings, UpstreamSettings,
};
pub use signing::SigningCertificate;
pub use tls::{TlsFiles, TlsIdentity, TlsProblem};
pub use users::{Users, UsersError, check_user_name, read_line, read_users, read_users_text};
