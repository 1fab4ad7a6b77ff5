//! The registry's content, once per replica: a write is seen at once where it was made, and at the other after a delay.
//!
//! Writes are applied in the order in which they arrive, so two that race may leave the replicas apart, as they do in a
//! geo-replicated registry. Without a delay both always hold the same.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::content::Repository;

pub(super) type Repositories = BTreeMap<String, Repository>;

type Change = Box<dyn FnOnce(&mut Repositories) + Send>;

/// Two replicas instead of one registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replication {
    /// How long a write takes to reach the other replica.
    pub delay_ms: u64,
    pub answers: Answers,
}

/// Which replica answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answers {
    First,
    Second,
    /// Connections take turns.
    Connection,
    /// Requests take turns.
    Alternating,
}

impl Replication {
    /// The replica for a request, by its number and its connection's.
    pub(super) fn replica(self, request: u64, connection: u64) -> usize {
        match self.answers {
            Answers::First => 0,
            Answers::Second => 1,
            Answers::Connection => usize::from(connection % 2 == 1),
            Answers::Alternating => usize::from(request % 2 == 1),
        }
    }
}

#[derive(Default)]
pub(super) struct Replicas([Mutex<Replica>; 2]);

#[derive(Default)]
struct Replica {
    repositories: Repositories,
    coming: VecDeque<(Instant, Change)>,
}

/// The content as one replica sees it, and how long its writes take to reach the other.
#[derive(Clone, Copy)]
pub(super) struct Content<'a> {
    replicas: &'a Replicas,
    pub(super) replica: usize,
    delay: Duration,
}

impl Replicas {
    pub(super) fn at(&self, replica: usize, delay: Duration) -> Content<'_> {
        Content { replicas: self, replica, delay }
    }

    /// For writes that are everywhere at once.
    pub(super) fn everywhere(&self) -> Content<'_> {
        self.at(0, Duration::ZERO)
    }

    pub(super) fn each(&self) -> [Content<'_>; 2] {
        [self.at(0, Duration::ZERO), self.at(1, Duration::ZERO)]
    }

    /// Brings a replica up to now.
    fn lock(&self, replica: usize) -> MutexGuard<'_, Replica> {
        let mut replica = self.0[replica].lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while let Some((due, change)) = replica.coming.pop_front() {
            if due > now {
                replica.coming.push_front((due, change));
                break;
            }
            change(&mut replica.repositories);
        }
        replica
    }
}

impl Content<'_> {
    pub(super) fn read<T>(&self, ask: impl FnOnce(&Repositories) -> T) -> T {
        ask(&self.replicas.lock(self.replica).repositories)
    }

    /// Changes this replica, and the other one later.
    pub(super) fn write<T>(&self, change: impl Fn(&mut Repositories) -> T + Send + 'static) -> T {
        let changed = change(&mut self.replicas.lock(self.replica).repositories);
        let other = 1 - self.replica;
        let due = Instant::now() + self.delay;
        self.replicas.lock(other).coming.push_back((due, Box::new(move |all| drop(change(all)))));
        // What is due already is applied now, lest it pile up where nobody asks.
        drop(self.replicas.lock(other));
        changed
    }
}
