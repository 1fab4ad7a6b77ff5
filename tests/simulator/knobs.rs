//! Everything about a running simulator that can be turned: pace, damage, outages, limits, protocol variants.
//!
//! `Settings::default()` is a healthy ACR as the recordings show it. Tests turn with `knobs().turn(|k| …)`; scripts send the
//! same field names as JSON to the control port. A knob holds for requests (and, for pace, for bytes) from then on.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::faults::{Damage, Fault, FaultAnswer, PathClass};
use super::replicas::Replication;
use super::throttle::Limits;

/// The positions of all knobs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own; no two form a state")]
pub struct Settings {
    /// How a blob GET is answered.
    pub redirect: Redirect,
    /// How long a redirect's URL is good.
    pub sas_life_s: u64,

    /// Bytes per second of each blob body.
    pub connection_rate: Option<u64>,
    /// Bytes per second of all blob bodies together.
    pub total_rate: Option<u64>,
    pub login: Side,
    pub storage: Side,
    /// What is wrong with blob bodies; the first entry that applies does.
    pub damage: Vec<Damage>,
    /// Answers given instead of the real one; the first entry that applies does.
    pub faults: Vec<Fault>,
    /// 403 on every path of the login server, the token endpoints included.
    pub firewall: bool,
    /// Requests per minute by category; none: unlimited.
    pub throttle: Option<Limits>,

    pub refresh_life_s: u64,
    pub access_life_s: u64,
    pub anonymous_life_s: u64,

    /// Off: the referrers API does not exist (registries with customer-managed keys).
    pub referrers: bool,
    /// Descriptors per page of referrers; none: all.
    pub referrers_page: Option<usize>,
    /// Whether `artifactType=` is applied (and said so in `OCI-Filters-Applied`).
    pub referrers_filter: bool,
    /// Entries per page of a list when the request has no `n`.
    pub list_page: usize,
    /// The most that `n` may ask for; more is cut silently.
    pub list_cap: usize,
    /// The action that `/v2/NAME/tags/list` asks for; not captured from ACR, so clients must read it from the
    /// challenge.
    pub tags_action: String,
    /// Whether `If-None-Match` is honoured on manifests.
    pub not_modified: bool,
    /// Whether ranges are honoured where blob bodies come from; off: always 200.
    pub ranges: bool,
    /// Whether manifests carry `Docker-Content-Digest`.
    pub manifest_digest: bool,
    /// Whether manifests carry `ETag`.
    pub manifest_etag: bool,
    /// Appends `; charset=utf-8` to a manifest's type.
    pub manifest_charset: bool,
    /// Blob bodies without `Content-Length`.
    pub chunked: bool,

    /// Bytes per second at which each request body is read.
    pub upload_rate: Option<u64>,
    /// The next request body that is longer is cut off after so many bytes: the connection is reset.
    pub upload_cut_at: Option<u64>,
    /// Refuses a request before its body has been read, and closes the connection.
    pub refuse_early: bool,
    /// Whether `POST …/uploads/?digest=` takes a whole blob (201); off: it begins a session (202).
    pub single_post: bool,
    /// Which mounts succeed (201); the others begin a session (202).
    pub mount: Mount,
    /// `OCI-Chunk-Min-Length`; said, not enforced.
    pub chunk_min_length: Option<u64>,
    /// Whether a manifest's subject is confirmed with `OCI-Subject`.
    pub oci_subject: bool,
    /// Whether a manifest may name blobs and manifests that are not there.
    pub sparse: bool,
    /// Whether `DELETE /v2/NAME/manifests/TAG` removes the tag; off: 405.
    pub delete_by_tag: bool,
    /// Answers to GET and HEAD under `/v2` and `/acr/v1` are made, and go out once this is turned off.
    pub hold_reads: bool,
    /// Two replicas; none: one registry.
    pub replication: Option<Replication>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            redirect: Redirect::Sas,
            sas_life_s: 20 * 60,
            connection_rate: None,
            total_rate: None,
            login: Side::default(),
            storage: Side::default(),
            damage: Vec::new(),
            faults: Vec::new(),
            firewall: false,
            throttle: None,
            refresh_life_s: 3 * 3600,
            access_life_s: 3600,
            anonymous_life_s: 300,
            referrers: true,
            referrers_page: None,
            referrers_filter: false,
            list_page: 100,
            list_cap: 1000,
            tags_action: "metadata_read".into(),
            not_modified: true,
            ranges: true,
            manifest_digest: true,
            manifest_etag: true,
            manifest_charset: false,
            chunked: false,
            upload_rate: None,
            upload_cut_at: None,
            refuse_early: false,
            single_post: true,
            mount: Mount::Anywhere,
            chunk_min_length: None,
            oci_subject: true,
            sparse: false,
            delete_by_tag: true,
            hold_reads: false,
            replication: None,
        }
    }
}

/// What a blob GET at the login server is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Redirect {
    /// 307 to a storage account, with a shared access signature.
    Sas,
    /// 307 to a dedicated data endpoint.
    DataEndpoint,
    /// 200 with the bytes (registries with customer-managed keys may do this).
    Direct,
}

/// Which mounts succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mount {
    /// With `from=` or without.
    Anywhere,
    /// Only with `from=`.
    From,
    Never,
}

/// Trouble of one listener.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Side {
    /// Accepts and never answers, until turned off.
    pub hang: bool,
    /// Resets every new connection and every request.
    pub reset: bool,
    /// Waits before each answer's headers.
    pub delay_ms: u64,
}

/// The knobs of one simulator.
pub struct Knobs(watch::Sender<Settings>);

impl Knobs {
    pub(super) fn new(settings: Settings) -> Self {
        Self(watch::Sender::new(settings))
    }

    /// Turns some knobs.
    pub fn turn(&self, change: impl FnOnce(&mut Settings)) {
        self.0.send_modify(change);
    }

    /// Everything back to a healthy ACR.
    pub fn reset(&self) {
        self.0.send_replace(Settings::default());
    }

    /// The positions now.
    pub fn get(&self) -> Settings {
        self.0.borrow().clone()
    }

    /// Turns the knobs named in a JSON object; an unknown name or a wrong value changes nothing.
    pub fn turn_json(&self, patch: &Value) -> Result<(), String> {
        let mut all = serde_json::to_value(self.get()).map_err(|e| e.to_string())?;
        merge(&mut all, patch);
        let settings = serde_json::from_value(all).map_err(|e| format!("cannot turn the knobs: {e}"))?;
        self.0.send_replace(settings);
        Ok(())
    }

    /// Adds an answer that is given instead of the real one, until the knobs are reset or `times` are used up.
    pub fn fail(&self, on: PathClass, answer: FaultAnswer) {
        self.turn(|k| k.faults.push(Fault::always(on, answer)));
    }

    /// Adds damage to blob bodies: always, or the first `times` times.
    pub fn damage(&self, damage: Damage) {
        self.turn(|k| k.damage.push(damage));
    }

    pub(super) fn read<T>(&self, f: impl FnOnce(&Settings) -> T) -> T {
        f(&self.0.borrow())
    }

    pub(super) async fn wait_while(&self, f: impl Fn(&Settings) -> bool) {
        // The sender lives as long as this future's borrow of it, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|s| !f(s)).await;
    }

    /// The fault that answers a request of this class now, counted, with the seconds left of a counting-down one.
    pub(super) fn take_fault(&self, class: PathClass, method: &str) -> Option<(FaultAnswer, Option<u64>)> {
        let mut taken = None;
        self.0.send_if_modified(|settings| {
            let now = Instant::now();
            taken = settings.faults.iter_mut().filter(|f| f.matches(class, method)).find_map(|fault| fault.take(now));
            false
        });
        taken
    }

    /// The damage that a body of this blob suffers now, counted.
    pub(super) fn take_damage(&self, digest: &str, applies: impl Fn(&Damage) -> bool) -> Option<Damage> {
        let mut taken = None;
        self.0.send_if_modified(|settings| {
            taken = settings.damage.iter_mut().filter(|d| applies(d)).find_map(|damage| damage.take(digest));
            false
        });
        taken
    }

    /// Where a body that has come so far breaks off, if it does; the next one does not.
    pub(super) fn take_cut(&self, received: u64) -> Option<u64> {
        let mut cut = None;
        self.0.send_if_modified(|settings| {
            cut = settings.upload_cut_at.take_if(|at| received > *at);
            false
        });
        cut
    }

    pub(super) fn delay(&self, side: impl FnOnce(&Settings) -> Side) -> Duration {
        Duration::from_millis(self.read(|s| side(s).delay_ms))
    }
}

/// JSON merge: objects are merged, anything else replaces.
fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (name, value) in patch {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}
