//! Callers with a credential of their own, whom upstream judges: for each repository and each thing that is to be done there.
//!
//! A verdict is kept for `verdict_ttl`, and stands in for an upstream that is away for `verdict_stale`, never longer than the caller's own
//! token lives. It is found again under a keyed hash ([`Seal`]); no credential is kept. A refusal is believed for moments.

mod asking;
mod issued;
mod seal;
mod verdicts;

pub(super) use asking::{Asking, Decided, cover};
pub(super) use issued::SeenLogin;
pub(super) use seal::{Key, Own, Seal, process_key, unix};

use super::basic::{Basic, scheme};
use crate::oci::{Deed, Grants, Registry};
use http::HeaderValue;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// A credential as a caller shows it. Nothing shows it, and it is wiped when dropped.
pub enum Shown {
    /// A user and a password, or a token in its place.
    Password { user: String, password: Zeroizing<String> },
    /// A token of the upstream's.
    Bearer(Zeroizing<String>),
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

impl Shown {
    /// Reads `Authorization`; `None` for what is no credential that upstream could judge.
    pub(super) fn read(authorization: &HeaderValue) -> Option<Self> {
        if let Some(token) = scheme(authorization, "bearer") {
            return (!token.is_empty()).then(|| Self::Bearer(Zeroizing::new(token.to_owned())));
        }
        let basic = Basic::read(authorization)?;
        let password = std::str::from_utf8(basic.password()).ok()?;
        // ACR's token service answers 500 to a user's name with a line end.
        let sound = !basic.user().is_empty() && !basic.user().chars().any(char::is_control);
        sound.then(|| Self::Password { user: basic.user().to_owned(), password: Zeroizing::new(password.to_owned()) })
    }
}

/// What upstream says to what a caller wants to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The caller may.
    Allowed {
        /// Whom upstream takes the caller for, if it has looked.
        name: Option<String>,
        /// When the caller's own token dies, if it says so.
        expires: Option<SystemTime>,
    },
    /// The caller may not.
    Denied,
    /// There is nothing that the caller may see.
    Absent,
    /// The credential is none.
    Wrong,
    /// Nobody answers, and why.
    Away(String),
    /// Upstream wants to be left alone.
    Throttled(Duration),
}

/// What a caller asks a token service for.
pub struct TokenRequest {
    /// Whether it is for ACR's exchange of Entra's tokens.
    pub exchange: bool,
    /// Whether the fields stand in the body.
    pub post: bool,
    /// Names and values, in their order.
    pub fields: Vec<(String, String)>,
    /// `Authorization`, as it came.
    pub authorization: Option<HeaderValue>,
}

/// What the token service answers.
pub enum TokenSaid {
    /// It gives a token, or says no, with a status of its own.
    Answered {
        /// 200, or a refusal.
        status: u16,
        /// The body's type.
        content_type: Option<String>,
        /// The body, as it came.
        body: bytes::Bytes,
        token: Option<Given>,
    },
    /// Nobody answers, and why.
    Away(String),
    /// There is no such service.
    None,
    /// Upstream wants to be left alone.
    Throttled(Duration),
}

/// A token that a token service has given.
pub struct Given {
    /// The token.
    pub text: Zeroizing<String>,
    /// What it allows, if it says so.
    pub grants: Option<Grants>,
    /// When it dies, if it says so.
    pub expires: Option<SystemTime>,
}

/// An answer that is waited for.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The upstreams, as far as access asks them. The daemon joins it.
pub trait AskUpstream: Send + Sync {
    /// Asks whether a caller may do something, with the caller's credential.
    fn judge<'a>(&'a self, registry: &'a Registry, shown: &'a Shown, deed: &'a Deed) -> Pending<'a, Said>;

    /// Passes a request on to the upstream's own token service.
    fn pass<'a>(&'a self, registry: &'a Registry, request: TokenRequest) -> Pending<'a, TokenSaid>;

    /// Whether an upstream is asked as its callers: who shows no credential has no way to it.
    fn is_asked_as_callers(&self, registry: &Registry) -> bool;

    /// Whether the upstream answers now.
    fn is_there<'a>(&'a self, registry: &'a Registry) -> Pending<'a, bool>;
}
