//! The credentials that callers show for themselves: a login of the upstream's session that is nobody's but theirs, forgotten with it.

use super::credential::{Credential, Grant, Material, Pending};
use super::jwt;
use super::secret::Secret;
use crate::oci::Grants;
use base64::Engine as _;
use std::fmt;
use std::time::SystemTime;

/// Users whose password is a token: ACR's, and that of Docker's credential helpers.
const NULL_GUID: &str = "00000000-0000-0000-0000-000000000000";
const TOKEN_USER: &str = "<token>";

/// A credential that a caller has shown. Nothing shows it, and it is wiped when dropped.
#[derive(Clone)]
pub struct CallerLogin(pub(in crate::upstream) Shown);

#[derive(Clone)]
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
    pub(in crate::upstream) fn materials(&self) -> Vec<Material> {
        let material = |grant| Material {
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

/// A login that is what it is.
pub(in crate::upstream) struct Fixed(pub(in crate::upstream) Material);

impl Credential for Fixed {
    fn material(&self) -> Pending<'_> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

/// What a token allows, if it says so. To be believed only of one that comes from the token service itself.
pub(in crate::upstream) fn grants(token: &str) -> Option<Grants> {
    let payload = token.split('.').nth(1)?;
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    Grants::of_claims(&engine.decode(payload.trim_end_matches('=')).ok()?)
}
