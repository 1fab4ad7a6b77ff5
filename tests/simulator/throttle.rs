//! Requests per minute by category, for the whole registry and for each identity: token buckets, refilled continuously.
//!
//! The figures are Microsoft's; how long a refused caller waits is not published beyond "up to a minute, counting
//! down", so a bucket that runs dry refuses for `retry_after_s` from then on.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Requests per minute. `(registry, identity)`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    pub read: (u32, u32),
    pub write: (u32, u32),
    pub delete: (u32, u32),
    pub referrers: (u32, u32),
    /// Exchange and token together, for the whole registry.
    pub oauth: u32,
    pub retry_after_s: u64,
}

impl Limits {
    pub const STANDARD: Self = Self {
        read: (10_000, 5_000),
        write: (2_000, 1_000),
        delete: (1_000, 500),
        referrers: (500, 250),
        oauth: 10_000,
        retry_after_s: 60,
    };
    pub const PREMIUM: Self = Self {
        read: (20_000, 10_000),
        write: (4_000, 2_000),
        delete: (4_000, 2_000),
        referrers: (2_000, 1_000),
        oauth: 20_000,
        retry_after_s: 60,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::STANDARD
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Category {
    Read,
    Write,
    Delete,
    Referrers,
    OAuth,
}

impl Category {
    fn limits(self, limits: &Limits) -> (u32, Option<u32>) {
        let pair = |(registry, identity)| (registry, Some(identity));
        match self {
            Self::Read => pair(limits.read),
            Self::Write => pair(limits.write),
            Self::Delete => pair(limits.delete),
            Self::Referrers => pair(limits.referrers),
            Self::OAuth => (limits.oauth, None),
        }
    }
}

#[derive(Default)]
pub(super) struct Throttle(Mutex<HashMap<(Category, Option<String>), Bucket>>);

struct Bucket {
    tokens: f64,
    filled: Instant,
    refused_until: Option<Instant>,
}

impl Throttle {
    /// Takes one request from the registry's and the identity's bucket; `Err` holds the seconds to wait.
    pub(super) fn take(&self, limits: &Limits, category: Category, identity: &str) -> Result<(), u64> {
        let (registry, own) = category.limits(limits);
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut take = |owner: Option<String>, per_minute: u32| {
            let now = Instant::now();
            let new = || Bucket { tokens: f64::from(per_minute), filled: now, refused_until: None };
            buckets.entry((category, owner)).or_insert_with(new).take(now, per_minute, limits.retry_after_s)
        };
        if let Some(own) = own {
            take(Some(identity.to_owned()), own)?;
        }
        take(None, registry)
    }
}

impl Bucket {
    fn take(&mut self, now: Instant, per_minute: u32, retry_after_s: u64) -> Result<(), u64> {
        let full = f64::from(per_minute);
        self.tokens = (self.tokens + now.duration_since(self.filled).as_secs_f64() * full / 60.0).min(full);
        self.filled = now;
        if let Some(until) = self.refused_until.filter(|until| *until > now) {
            return Err(until.duration_since(now).as_secs_f64().ceil() as u64);
        }
        if self.tokens < 1.0 {
            self.refused_until = Some(now + Duration::from_secs(retry_after_s));
            return Err(retry_after_s);
        }
        self.tokens -= 1.0;
        self.refused_until = None;
        Ok(())
    }
}
