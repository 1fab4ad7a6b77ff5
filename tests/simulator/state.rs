//! What the requests of one simulator share, and what one request sees of it.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::content::hex;
use super::effects::Effects;
use super::knobs::Knobs;
use super::options::Options;
use super::record::{Listener, Log};
use super::replicas::{Content, Replicas};
use super::serve::Port;
use super::throttle::Throttle;
use super::tokens::Tokens;
use super::uploads::Uploads;

/// What all requests share.
pub(super) struct State {
    pub(super) options: Options,
    pub(super) knobs: Arc<Knobs>,
    pub(super) replicas: Replicas,
    pub(super) uploads: Uploads,
    pub(super) log: Log,
    pub(super) effects: Arc<Effects>,
    pub(super) tokens: Tokens,
    pub(super) throttle: Throttle,
    pub(super) total_pace: Arc<Mutex<Option<Instant>>>,
    pub(super) login: Arc<Port>,
    pub(super) storage: Arc<Port>,
    pub(super) secret: [u8; 32],
    pub(super) started: u64,
    pub(super) issued_ids: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) connections: AtomicU64,
}

/// The registry as one request meets it: what all share, and the content of the replica that answers.
pub(super) struct Region<'a> {
    pub(super) state: &'a State,
    pub(super) content: Content<'a>,
}

impl Deref for Region<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.state
    }
}

impl State {
    pub(super) fn scheme(&self) -> &'static str {
        if self.options.tls { "https" } else { "http" }
    }

    pub(super) fn port(&self, listener: Listener) -> &Arc<Port> {
        match listener {
            Listener::Login => &self.login,
            Listener::Storage => &self.storage,
        }
    }

    pub(super) fn host(&self) -> String {
        self.login.address.to_string()
    }

    /// Never the login server's name, whatever the port.
    pub(super) fn storage_host(&self) -> String {
        if self.storage.address.ip() == self.login.address.ip() {
            return format!("localhost:{}", self.storage.address.port());
        }
        self.storage.address.to_string()
    }

    pub(super) fn registry(&self) -> String {
        self.options.registry.clone().unwrap_or_else(|| self.host())
    }

    /// The 32 hex digits by which storage knows the registry.
    pub(super) fn registry_id(&self) -> String {
        hex(&Sha256::digest(self.registry()))[..32].to_owned()
    }

    /// A number for a connection of the login server; storage has no replicas.
    pub(super) fn count_connection(&self, listener: Listener) -> u64 {
        self.connections.fetch_add(u64::from(listener == Listener::Login), Ordering::Relaxed)
    }

    /// The replica that answers the next request of a connection.
    pub(super) fn region(&self, connection: u64) -> Region<'_> {
        let content = self.knobs.read(|k| k.replication).map_or_else(
            || self.replicas.everywhere(),
            |replication| {
                let replica = replication.replica(self.requests.fetch_add(1, Ordering::Relaxed), connection);
                self.replicas.at(replica, Duration::from_millis(replication.delay_ms))
            },
        );
        Region { state: self, content }
    }

    /// A new id in the form of a GUID.
    pub(super) fn guid(&self) -> String {
        let number = self.issued_ids.fetch_add(1, Ordering::Relaxed);
        let mut hash = Sha256::new();
        hash.update(self.secret);
        hash.update(number.to_le_bytes());
        let text = hex(&hash.finalize());
        format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..32])
    }
}
