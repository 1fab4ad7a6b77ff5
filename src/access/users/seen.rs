//! Logins that have been checked before, under a keyed hash: the key is this process's alone, and no password is kept.

use crate::access::ask::process_key;
use crate::access::basic::Basic;
use aws_lc_rs::hmac;
use quick_cache::sync::Cache;
use std::sync::Arc;

/// Right logins that are known again without a check, and as many wrong ones.
const SEEN: usize = 10_000;

/// How a check ended.
#[derive(Clone)]
pub(super) enum Outcome {
    Right(Arc<str>),
    Wrong,
}

pub(super) type Key = [u8; 32];

/// Guesses must not push out who is known: each kind has its own room.
pub(super) struct Seen {
    key: hmac::Key,
    right: Cache<Key, Arc<str>>,
    wrong: Cache<Key, ()>,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self { key: process_key(), right: Cache::new(SEEN), wrong: Cache::new(SEEN) }
    }

    /// What a login is known by: it, and the hash that it was held against.
    pub(super) fn key(&self, login: &Basic, stored: &str) -> Key {
        let mut context = hmac::Context::with_key(&self.key);
        // The stored hash has one length, or none: nothing can be moved from one part to the other.
        context.update(&(stored.len() as u64).to_le_bytes());
        context.update(stored.as_bytes());
        context.update(login.pair());
        let mut key = [0; 32];
        key.copy_from_slice(context.sign().as_ref());
        key
    }

    pub(super) fn get(&self, key: &Key) -> Option<Outcome> {
        let right = self.right.get(key).map(Outcome::Right);
        right.or_else(|| self.wrong.get(key).map(|()| Outcome::Wrong))
    }

    pub(super) fn put(&self, key: Key, outcome: Outcome) {
        match outcome {
            Outcome::Right(name) => self.right.insert(key, name),
            Outcome::Wrong => self.wrong.insert(key, ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use http::HeaderValue;

    fn login(pair: &str) -> Basic {
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        Basic::read(&HeaderValue::from_str(&format!("Basic {encoded}")).unwrap()).unwrap()
    }

    #[test]
    fn a_login_is_known_again_for_the_same_stored_hash_alone() {
        let seen = Seen::new();
        let key = seen.key(&login("ann:pw"), "hash");
        seen.put(key, Outcome::Right("ann".into()));
        assert!(matches!(seen.get(&seen.key(&login("ann:pw"), "hash")), Some(Outcome::Right(name)) if &*name == "ann"));
        for (pair, stored) in
            [("ann:pw", "hash2"), ("ann:pw", ""), ("ann:p", "hash"), ("annpw:", "hash"), ("hann:pw", "has")]
        {
            assert!(seen.get(&seen.key(&login(pair), stored)).is_none(), "{pair} {stored}");
        }
        assert_ne!(Seen::new().key(&login("ann:pw"), "hash"), key, "each has a key of its own");
    }

    #[test]
    fn guesses_push_out_nobody_who_is_known() {
        let seen = Seen::new();
        let key = seen.key(&login("ann:pw"), "hash");
        seen.put(key, Outcome::Right("ann".into()));
        for guess in 0..3 * SEEN {
            seen.put(seen.key(&login(&format!("ann:{guess}")), "hash"), Outcome::Wrong);
        }
        assert!(seen.get(&key).is_some() && seen.wrong.len() <= SEEN);
    }
}
