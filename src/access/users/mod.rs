//! Users with passwords: who is in the file now, what has been checked before, and how those are treated who guess.
//!
//! A password that has been right is known again under a keyed hash that holds the user's stored hash too: it is right no longer once
//! that changes or goes. What is not known is checked by threads of their own ([`Checkers`]), and a wrong answer is held back for a
//! while, the longer the more of them came from that address ([`Patience`]). A right one never is.

mod checkers;
mod file;
mod seen;

use super::ask::Seal;
use super::basic::Basic;
use super::patience::Patience;
use super::refusal::{Challenge, Refusal};
use super::service::hex;
use crate::config::Users;
use crate::telemetry::Metrics;
use checkers::{Checkers, Full};
use file::{Current, watch};
use seen::{Outcome, Seen};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::task::AbortHandle;
use zeroize::Zeroizing;

/// bcrypt looks at no more of a password; a longer one would be right with any end.
const MAX_PASSWORD: usize = 72;
/// What an unknown user's password is checked against where the file has nobody: a hash of nothing that anybody knows.
const NOBODY: &str = "$2b$10$WIiqBrdY0bMxlrHbgiAdhuXTgKbJyDJfMcK4MTnCkqv9XfHvmQNWO";

/// Checks logins against the users file.
pub(super) struct Logins {
    users: Arc<Current>,
    seen: Seen,
    checkers: Checkers,
    metrics: Arc<Metrics>,
    watching: AbortHandle,
}

impl Logins {
    pub(super) fn new(file: &Path, metrics: Arc<Metrics>) -> Self {
        let users = Arc::new(Current::read(file));
        let watching = tokio::spawn(watch(file.to_owned(), Arc::downgrade(&users))).abort_handle();
        for result in ["ok", "failed", "busy"] {
            metrics.logins.with_label_values(&["users_file", result]);
        }
        Self { users, seen: Seen::new(), checkers: Checkers::new(), metrics, watching }
    }

    /// Whether there is a user of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.users.get().has(name)
    }

    /// What changes when the user's password does; `None` if there is no such user.
    pub(super) fn fingerprint(&self, seal: &Seal, name: &str) -> Option<String> {
        let users = self.users.get();
        Some(hex(&seal.key(&[b"user", name.as_bytes(), users.hash(name)?.as_bytes()])))
    }

    /// The user whose name and password it is, or why there is none.
    pub(super) async fn check(
        &self,
        address: Option<IpAddr>,
        login: Option<&Basic>,
        patience: &Patience,
    ) -> Result<Arc<str>, Refusal> {
        let Some(login) = login else {
            return Err(self.failed(address, None, patience).await);
        };
        let users = self.users.get();
        let stored = users.hash(login.user());
        let key = self.seen.key(login, stored.map_or("", |hash| hash));
        match (self.seen.get(&key), stored) {
            (Some(Outcome::Right(name)), Some(_)) => return Ok(name),
            (Some(Outcome::Wrong), _) => return Err(self.failed(address, Some((login, &users)), patience).await),
            _ => {}
        }
        let against = stored.or(users.any_hash()).map_or(NOBODY, |hash| hash);
        let right = match self.verify(address, login, against).await {
            Ok(right) => right && stored.is_some(),
            Err(Full { retry }) => {
                self.metrics.logins.with_label_values(&["users_file", "busy"]).inc();
                return Err(Refusal::Busy { retry });
            }
        };
        if !right {
            self.seen.put(key, Outcome::Wrong);
            return Err(self.failed(address, Some((login, &users)), patience).await);
        }
        let name = Arc::<str>::from(login.user());
        self.seen.put(key, Outcome::Right(Arc::clone(&name)));
        self.metrics.logins.with_label_values(&["users_file", "ok"]).inc();
        // The user may have been removed while the password was checked.
        if self.users.get().hash(&name) == stored { Ok(name) } else { Err(Refusal::wrong(Challenge::Basic)) }
    }

    async fn verify(&self, address: Option<IpAddr>, login: &Basic, against: &str) -> Result<bool, Full> {
        let password = login.password();
        let sound = password.len() <= MAX_PASSWORD && !password.contains(&0);
        // What cannot be right takes as long as what can.
        let password = if sound { password } else { b"" };
        let right = self.checkers.verify(address, Zeroizing::new(password.to_vec()), against.to_owned()).await?;
        Ok(right && sound)
    }

    /// Counts a failed login, says so once, and holds the answer back.
    async fn failed(&self, address: Option<IpAddr>, login: Option<(&Basic, &Users)>, patience: &Patience) -> Refusal {
        self.metrics.logins.with_label_values(&["users_file", "failed"]).inc();
        // An unknown name may be a password that was typed in the wrong place.
        let known = login.and_then(|(login, users)| users.has(login.user()).then(|| login.user()));
        patience.wrong(address, known).await;
        Refusal::wrong(Challenge::Basic)
    }
}

impl Drop for Logins {
    fn drop(&mut self) {
        self.watching.abort();
    }
}
