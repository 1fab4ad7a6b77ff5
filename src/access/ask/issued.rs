//! Tokens that upstream has given to callers through larder, and logins that it has taken: what was granted, and when. Of each, a keyed
//! hash.

use super::Given;
use super::seal::Key;
use crate::oci::Grants;
use quick_cache::sync::Cache;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Tokens, and logins, that are remembered.
const REMEMBERED: usize = 10_000;

/// A token that upstream has given.
#[derive(Clone)]
pub(in crate::access) struct Token {
    pub(in crate::access) grants: Grants,
    pub(in crate::access) name: Option<Arc<str>>,
    given: Instant,
    expires: Option<SystemTime>,
}

impl Token {
    /// Whether it was given less than `time` ago, and lives.
    pub(in crate::access) fn is_younger(&self, time: Duration) -> bool {
        self.given.elapsed() < time && self.expires.is_none_or(|at| SystemTime::now() < at)
    }
}

/// Tokens that upstream has given, by the keyed hash of each.
pub(in crate::access) struct Issued(Cache<Key, Token>);

impl Issued {
    pub(in crate::access) fn new() -> Self {
        Self(Cache::new(REMEMBERED))
    }

    /// Remembers a token that says what it allows.
    pub(in crate::access) fn put(&self, key: Key, given: &Given, name: Option<Arc<str>>) {
        if let Some(grants) = given.grants.clone() {
            self.0.insert(key, Token { grants, name, given: Instant::now(), expires: given.expires });
        }
    }

    pub(in crate::access) fn get(&self, key: &Key) -> Option<Token> {
        self.0.get(key)
    }

    /// Upstream takes it no longer.
    pub(in crate::access) fn forget(&self, key: &Key) {
        self.0.remove(key);
    }
}

/// A login that upstream has taken.
#[derive(Clone)]
pub(in crate::access) struct SeenLogin {
    /// What it was granted so far.
    pub(in crate::access) grants: Grants,
    pub(in crate::access) name: Option<Arc<str>>,
    /// When upstream took it last.
    pub(in crate::access) taken: Instant,
    /// When it dies itself.
    pub(in crate::access) expires: Option<SystemTime>,
    /// The login that it was exchanged for.
    pub(in crate::access) stands_for: Option<Key>,
}

impl SeenLogin {
    /// How long it is good while upstream is away.
    pub(in crate::access) fn left(&self, stale: Duration) -> Option<Duration> {
        let left = stale.checked_sub(self.taken.elapsed())?;
        let own = self.expires.map(|at| at.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO));
        let left = own.map_or(left, |own| own.min(left));
        (!left.is_zero()).then_some(left)
    }
}

/// Logins that upstream has taken, by the keyed hash of each.
pub(in crate::access) struct Logins(Cache<Key, SeenLogin>);

impl Logins {
    pub(in crate::access) fn new() -> Self {
        Self(Cache::new(REMEMBERED))
    }

    pub(in crate::access) fn get(&self, key: &Key) -> Option<SeenLogin> {
        self.0.get(key)
    }

    /// Upstream has taken it, and granted this of what was asked for.
    pub(in crate::access) fn taken(&self, key: Key, asked: &Grants, granted: Option<&Grants>, login: SeenLogin) {
        let mut grants = self.0.get(&key).map_or_else(Grants::default, |known| known.grants);
        if let Some(granted) = granted {
            grants.renew(asked, granted);
        }
        self.0.insert(key, SeenLogin { grants, ..login });
    }

    /// Upstream takes it no longer.
    pub(in crate::access) fn forget(&self, key: &Key) {
        self.0.remove(key);
    }
}
