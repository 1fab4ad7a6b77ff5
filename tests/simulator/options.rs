//! What a simulator is started with: who may log in, where it listens, how it is called.
//!
//! Everything that can be turned while it runs is a knob (`knobs.rs`); `Options::knobs` is their first position.

use super::entra::Directory;
use super::knobs::{Redirect, Settings};

/// The user name that carries a refresh token as its password.
pub const NULL_GUID: &str = "00000000-0000-0000-0000-000000000000";

/// How to start. `Options::default()` is a private registry on free ports without any user.
#[derive(Clone, Default)]
pub struct Options {
    pub users: Vec<User>,
    /// Entra tokens that `/oauth2/exchange` accepts (rights of a service principal).
    pub aad_tokens: Vec<String>,
    /// The directory whose tokens `/oauth2/exchange` accepts, too.
    pub entra: Option<Directory>,
    /// ACR refresh tokens that are good from the start, beside those that the exchange hands out.
    pub refresh_tokens: Vec<String>,
    /// Whether anybody may pull.
    pub anonymous: bool,
    /// The registry's name: `service` in the challenge and `aud` in tokens. Without one: the login server's
    /// `host:port`.
    pub registry: Option<String>,
    /// Both listeners speak TLS, with a certificate for 127.0.0.1, localhost and `tls_names`.
    pub tls: bool,
    pub tls_names: Vec<String>,
    /// 0: any free port.
    pub port: u16,
    /// 0: any free port.
    pub storage_port: u16,
    /// A third, loopback-only listener where scripts turn knobs. 0: any free port.
    pub control_port: Option<u16>,
    /// The knobs' first position.
    pub knobs: Settings,
}

impl Options {
    /// A registry that everybody may pull from.
    pub fn public() -> Self {
        Self { anonymous: true, ..Self::default() }
    }

    /// A private registry with one admin user.
    pub fn private(name: &str, password: &str) -> Self {
        Self { users: vec![User::admin(name, password)], ..Self::default() }
    }

    /// The same, with another user.
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.users.push(user);
        self
    }

    /// The same, answering blob requests in this way.
    #[must_use]
    pub fn redirect(mut self, redirect: Redirect) -> Self {
        self.knobs.redirect = redirect;
        self
    }
}

/// Somebody who has a password.
#[derive(Clone)]
pub struct User {
    pub name: String,
    pub passwords: Vec<String>,
    pub kind: UserKind,
}

/// What kind of identity decides where its password may be shown.
#[derive(Clone)]
pub enum UserKind {
    /// `REGISTRY:password`; Basic works on `/v2` itself.
    Admin,
    /// `appId:secret`; Basic works on `/v2` itself.
    ServicePrincipal,
    /// A token of the registry's own; only the token endpoint takes its password. Each entry is a repository (or a
    /// pattern that ends in `*`) and its actions (`content/read`, `metadata/read` …).
    ScopeMap(Vec<(String, Vec<String>)>),
}

impl User {
    pub fn admin(name: &str, password: &str) -> Self {
        Self { name: name.into(), passwords: vec![password.into()], kind: UserKind::Admin }
    }

    pub fn service_principal(app_id: &str, secret: &str) -> Self {
        Self { name: app_id.into(), passwords: vec![secret.into()], kind: UserKind::ServicePrincipal }
    }

    pub fn scope_map(name: &str, password: &str, repositories: &[(&str, &[&str])]) -> Self {
        let grants = repositories
            .iter()
            .map(|(name, actions)| ((*name).to_owned(), actions.iter().map(|a| (*a).to_owned()).collect()))
            .collect();
        Self { name: name.into(), passwords: vec![password.into()], kind: UserKind::ScopeMap(grants) }
    }
}
