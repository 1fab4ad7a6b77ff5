//! The credentials that callers show: each is a login of its own for the upstream's session, and is forgotten with it.

use super::jwt;
use super::login::{Credential, Grant, Login, Pending};
use super::secret::Secret;
use super::tokens::{Token, Tokens};
use crate::oci::Grants;
use crate::upstream::error::Failure;
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use quick_cache::sync::Cache;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// Users whose password is a token: ACR's, and that of Docker's credential helpers.
const NULL_GUID: &str = "00000000-0000-0000-0000-000000000000";
const TOKEN_USER: &str = "<token>";

/// A credential that a caller has shown. Nothing shows it, and it is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct CallerLogin(pub(in crate::upstream) Shown);

#[derive(Clone, PartialEq, Eq)]
pub(in crate::upstream) enum Shown {
    Password { user: String, password: Secret },
    Bearer(Secret),
}

impl fmt::Debug for CallerLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerLogin")
    }
}

impl CallerLogin {
    /// A user and a password, or a token in a password's place.
    #[must_use]
    pub fn password(user: &str, password: &str) -> Self {
        Self(Shown::Password { user: user.to_owned(), password: Secret::new(password) })
    }

    /// A token of the upstream's.
    #[must_use]
    pub fn bearer(token: &str) -> Self {
        Self(Shown::Bearer(Secret::new(token)))
    }

    /// What it is found again by; the key is the process's own.
    pub(in crate::upstream) fn key(&self, hashing: &hmac::Key) -> [u8; 32] {
        let mut context = hmac::Context::with_key(hashing);
        let (kind, user, secret) = match &self.0 {
            Shown::Password { user, password } => (b'p', user.as_str(), password.expose()),
            Shown::Bearer(token) => (b'b', "", token.expose()),
        };
        context.update(&[kind]);
        context.update(&(user.len() as u64).to_le_bytes());
        context.update(user.as_bytes());
        context.update(secret.as_bytes());
        let mut key = [0; 32];
        key.copy_from_slice(context.sign().as_ref());
        key
    }

    /// The token, if it is one that is shown as it is.
    pub(in crate::upstream) fn token(&self) -> Option<Token> {
        let Shown::Bearer(token) = &self.0 else { return None };
        let expires = jwt::expires(token.expose());
        Some(Token::new(token.clone(), "a caller", expires, Duration::from_secs(60)))
    }

    /// When it dies, if it says so itself. To be believed only of one that upstream has accepted.
    pub(in crate::upstream) fn expires(&self) -> Option<SystemTime> {
        match &self.0 {
            Shown::Password { password, .. } => jwt::expires(password.expose()),
            Shown::Bearer(token) => jwt::expires(token.expose()),
        }
    }

    /// Whom it names. To be believed only of one that upstream has accepted.
    pub(in crate::upstream) fn name(&self) -> Option<String> {
        match &self.0 {
            Shown::Password { user, password } if is_token_user(user) => {
                jwt::Claims::of(password.expose())?.subject().map(str::to_owned)
            }
            Shown::Password { user, .. } => Some(user.clone()),
            Shown::Bearer(_) => None,
        }
    }

    /// The logins that it may mean, in the order in which they are tried.
    pub(in crate::upstream) fn materials(&self) -> Vec<Login> {
        let material = |grant| Login {
            grant,
            identity: "a caller".to_owned(),
            source: "the caller's request".to_owned(),
            remedy: "the caller has to log in again".to_owned(),
            expires: None,
        };
        match &self.0 {
            Shown::Password { user, password } => {
                let as_password = Grant::Password { username: user.clone(), password: password.clone() };
                let mut grants = vec![if user == TOKEN_USER { Grant::Refresh(password.clone()) } else { as_password }];
                if is_token_user(user) {
                    grants.push(Grant::Entra { token: password.clone(), tenant: None });
                }
                grants.into_iter().map(material).collect()
            }
            Shown::Bearer(token) => vec![material(Grant::Entra { token: token.clone(), tenant: None })],
        }
    }
}

fn is_token_user(user: &str) -> bool {
    user == NULL_GUID || user == TOKEN_USER
}

/// What a caller's credential may mean: the next one, once the last was refused.
pub(in crate::upstream) struct Meanings {
    materials: Vec<Login>,
    at: AtomicUsize,
}

impl Meanings {
    pub(in crate::upstream) fn of(login: &CallerLogin) -> Self {
        Self { materials: login.materials(), at: AtomicUsize::new(0) }
    }
}

impl Credential for Meanings {
    fn material(&self) -> Pending<'_> {
        Box::pin(async {
            let at = self.at.load(Ordering::Relaxed).min(self.materials.len().saturating_sub(1));
            let nothing = || Failure::credential("a caller", "the credential means nothing", "log in again");
            self.materials.get(at).cloned().ok_or_else(nothing)
        })
    }

    fn refused(&self) {
        self.at.fetch_add(1, Ordering::Relaxed);
    }
}

tokio::task_local! {
    static CALLER: Option<CallerLogin>;
}

/// Does some work for a caller: upstreams that are asked with the caller's own credential are asked with this one.
pub async fn for_caller<T>(login: Option<CallerLogin>, work: impl Future<Output = T>) -> T {
    CALLER.scope(login, work).await
}

/// The caller for whom something is done just now.
#[must_use]
pub fn current_caller() -> Option<CallerLogin> {
    CALLER.try_with(Clone::clone).ok().flatten()
}

/// What a token allows, if it says so. To be believed only of one that comes from the token service itself.
pub(in crate::upstream) fn grants(token: &str) -> Option<Grants> {
    let payload = token.split('.').nth(1)?;
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    Grants::of_claims(&engine.decode(payload.trim_end_matches('=')).ok()?)
}

/// Tokens of one caller, and callers whose tokens are kept.
const TOKENS: usize = 16;
const CALLERS: usize = 1000;

/// The tokens that an upstream has given for its callers, so that each is not fetched anew for every request. Whose they are is known
/// by a keyed hash; no login is kept.
pub(in crate::upstream) struct Callers {
    hashing: hmac::Key,
    kept: Cache<[u8; 32], Arc<Tokens>>,
}

impl Callers {
    pub(in crate::upstream) fn new() -> Self {
        let mut key = [0; 32];
        // Without random numbers no hash is guarded by anything: then nothing is kept.
        let room = if rand::fill(&mut key).is_ok() { CALLERS } else { 0 };
        Self { hashing: hmac::Key::new(hmac::HMAC_SHA256, &key), kept: Cache::new(room) }
    }

    pub(in crate::upstream) fn tokens(&self, login: &CallerLogin) -> Arc<Tokens> {
        let key = login.key(&self.hashing);
        if let Some(tokens) = self.kept.get(&key) {
            return tokens;
        }
        let tokens = Arc::<Tokens>::default();
        self.kept.insert(key, Arc::clone(&tokens));
        tokens
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self::new(TOKENS)
    }
}
