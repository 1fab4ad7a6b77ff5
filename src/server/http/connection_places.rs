//! Which connections may be open: a bound that client addresses share, and who gives way where it is reached.
//!
//! A connection beyond the bound, or beyond its client's share of it, is accepted and waits: a client that comes behind it
//! would not be seen otherwise. For each that waits, one is closed that has no request.

use super::connection_io::Stream;
use super::connection_watch::Watch;
use super::peer::Peer;
use crate::config::Limits;
use crate::upstream::{Client, Place, Shares};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, Id};
use tokio::time::Instant;

/// So long a connection has had no request when it is closed for another one; for that of a client that has none, at once.
const GIVES_WAY: Duration = Duration::from_secs(1);
/// How often such a one is looked for while connections wait.
pub(in crate::server) const LOOK: Duration = Duration::from_millis(250);
/// How many of those that wait are looked at each time.
const AT_A_TIME: usize = 64;
/// So many connections may wait, or as many as may be open if that is less: what the kernel's queue has held.
const MOST_WAITING: usize = 1024;
const LEAST_WAITING: usize = 16;
/// How often the operator hears of connections that were closed unheard.
const REMIND: Duration = Duration::from_secs(60);

pub(in crate::server) struct Places {
    limit: usize,
    shares: Shares,
    open: HashMap<Id, Open>,
    waiting: VecDeque<Waiting>,
    room_to_wait: Shares,
    patience: Duration,
    last_said: Option<Instant>,
}

struct Open {
    client: Client,
    watch: Arc<Watch>,
    task: AbortHandle,
    is_closing: bool,
}

struct Waiting {
    accepted: Accepted,
    since: Instant,
    _place: Place,
}

/// A connection that has come.
pub(in crate::server) struct Accepted {
    pub(in crate::server) stream: Stream,
    pub(in crate::server) peer: Arc<Peer>,
}

impl Accepted {
    fn client(&self) -> Client {
        Client::at(self.peer.address.map(|address| address.ip()))
    }
}

impl Places {
    pub(in crate::server) fn new(limits: &Limits) -> Self {
        let limit = limits.connections.max(1);
        Self {
            limit,
            shares: Shares::new(limit),
            open: HashMap::new(),
            waiting: VecDeque::new(),
            room_to_wait: Shares::new(limit.clamp(LEAST_WAITING, MOST_WAITING)),
            patience: limits.header_timeout,
            last_said: None,
        }
    }

    /// One more has come. It is the next one to open, or waits; one that may not even wait is closed.
    pub(in crate::server) fn arrived(&mut self, accepted: Accepted) {
        let client = accepted.client();
        if let Some(place) = self.room_to_wait.take_for(client) {
            self.waiting.push_back(Waiting { accepted, since: Instant::now(), _place: place });
            return;
        }
        if self.last_said.is_none_or(|said| said.elapsed() >= REMIND) {
            self.last_said = Some(Instant::now());
            let (client, limit) = (accepted.peer.address.map(|address| address.ip()), self.limit);
            tracing::warn!(
                ?client,
                limit,
                "connections are closed unanswered: all that may be open are taken, or this client's share of them; \
                 raise server.limits.connections if they are wanted"
            );
        }
    }

    pub(in crate::server) fn is_anybody_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next connection that may open, in the order in which they came.
    pub(in crate::server) fn next(&mut self) -> Option<(Accepted, Place)> {
        while self.waiting.front().is_some_and(|first| first.since.elapsed() >= self.patience) {
            self.waiting.pop_front();
        }
        let mut refused = Vec::new();
        for index in 0..self.waiting.len() {
            let client = self.waiting[index].accepted.client();
            if refused.contains(&client) {
                continue;
            }
            if let Some(place) = self.shares.take_for(client) {
                return self.waiting.remove(index).map(|waiting| (waiting.accepted, place));
            }
            refused.push(client);
            if refused.len() >= AT_A_TIME {
                break;
            }
        }
        None
    }

    pub(in crate::server) fn opened(&mut self, peer: &Peer, watch: Arc<Watch>, task: AbortHandle) {
        let client = Client::at(peer.address.map(|address| address.ip()));
        self.open.insert(task.id(), Open { client, watch, task, is_closing: false });
    }

    pub(in crate::server) fn closed(&mut self, id: Id) {
        self.open.remove(&id);
    }

    /// Closes connections without a request for those that wait: the ones that have had none for longest. Clients keep theirs for
    /// later, and reconnect.
    pub(in crate::server) fn give_way(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let closing = self.open.values().filter(|open| open.is_closing).count();
        if closing >= self.waiting.len() {
            return;
        }
        let idle = self.open.iter().filter(|(_, open)| !open.is_closing);
        let mut idle: Vec<(Instant, Client, Id)> =
            idle.filter_map(|(id, open)| Some((open.watch.idle_since()?, open.client, *id))).collect();
        idle.sort_unstable_by_key(|(since, ..)| *since);
        // The places beyond the limit are for addresses without a connection; no other connection comes in before they are free.
        let mut beyond = self.open.len().saturating_sub(closing).saturating_sub(self.limit);
        // The place of a closing connection is promised already.
        for waiting in self.waiting.iter().skip(closing).take(AT_A_TIME) {
            let client = waiting.accepted.client();
            let standing = self.shares.standing(client);
            let wanted = if standing.has_none { 1 } else { 1 + std::mem::take(&mut beyond) };
            for _ in 0..wanted {
                let gives_way = |(since, owner, _): &(Instant, Client, Id)| {
                    (standing.has_none || since.elapsed() >= GIVES_WAY) && (!standing.has_its_share || *owner == client)
                };
                let Some(index) = idle.iter().position(gives_way) else { break };
                let (.., id) = idle.remove(index);
                if let Some(open) = self.open.get_mut(&id) {
                    open.is_closing = true;
                    open.task.abort();
                }
            }
        }
    }
}
