//! The kinds of faults, and how many of each took effect.

use super::harness::Dice;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What can be done to larder from outside. The text says what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    ServerError,
    ThrottledWithTime,
    ThrottledWithout,
    RequestReset,
    BodyReset,
    BodyCut,
    BodyStall,
    SlowHeaders,
    WrongByte,
    TooShort,
    TooLong,
    Portal,
    ForeignNotFound,
    ForeignRedirect,
    Firewall,
    ExpiredSignature,
    TokenRefused,
    RangeIgnored,
    StorageDown,
    Refused,
    Blackhole,
    Killed,
    Terminated,
    DiskFull,
    FlippedBlob,
    DamagedPieces,
    DamagedLink,
    DamagedIndex,
    DeletedFile,
    ClientLeft,
    SlowClient,
    TagMoved,
}

use Kind::{
    Blackhole, BodyCut, BodyReset, BodyStall, ClientLeft, DamagedIndex, DamagedLink, DamagedPieces, DeletedFile,
    DiskFull, ExpiredSignature, Firewall, FlippedBlob, ForeignNotFound, ForeignRedirect, Killed, Portal, RangeIgnored,
    Refused, RequestReset, ServerError, SlowClient, SlowHeaders, StorageDown, TagMoved, Terminated, ThrottledWithTime,
    ThrottledWithout, TokenRefused, TooLong, TooShort, WrongByte,
};

/// Each kind with what is counted of it.
const ALL: &[(Kind, &str)] = &[
    (ServerError, "answers 500, 502 or 503, of registry, token service or storage"),
    (ThrottledWithTime, "answers 429 with Retry-After"),
    (ThrottledWithout, "answers 429 of the front door, without Retry-After"),
    (RequestReset, "connections reset instead of an answer"),
    (BodyReset, "bodies reset before their end"),
    (BodyCut, "bodies closed before their end"),
    (BodyStall, "bodies that stood still before their end"),
    (SlowHeaders, "heads of answers later than first_byte_timeout"),
    (WrongByte, "wrong bits sent in a body of the right length"),
    (TooShort, "bodies too short, cleanly"),
    (TooLong, "bodies too long, cleanly"),
    (Portal, "web pages with status 200"),
    (ForeignNotFound, "404s of something that is no registry"),
    (ForeignRedirect, "redirects to a stranger"),
    (Firewall, "403s of the registry's firewall"),
    (ExpiredSignature, "signed URLs refused by storage"),
    (TokenRefused, "logins refused by the token service"),
    (RangeIgnored, "answers 200 to a range"),
    (StorageDown, "connections reset by storage while the registry was well"),
    (Refused, "answers to clients that say the upstream refused the connection"),
    (Blackhole, "connections and requests that were never answered"),
    (Killed, "kill -9 with requests under way"),
    (Terminated, "SIGTERM with requests under way"),
    (DiskFull, "downloads that the full disk did not take"),
    (FlippedBlob, "stored blobs altered, then served rightly"),
    (DamagedPieces, "checksum files altered or gone, their blob then served rightly"),
    (DamagedLink, "links altered, their content then served rightly"),
    (DamagedIndex, "indexes altered or gone, then served rightly"),
    (DeletedFile, "blobs, manifests and links deleted, then served rightly"),
    (ClientLeft, "clients that left in mid-body"),
    (SlowClient, "bodies taken a few KiB at a time"),
    (TagMoved, "tags that a client saw move"),
];

impl Kind {
    /// The kind that one of the simulator's own counts belongs to.
    fn of_effect(name: &str) -> Option<Self> {
        Some(match name {
            "cut" => BodyCut,
            "reset" => BodyReset,
            "stall" => BodyStall,
            "flip" => WrongByte,
            "short" => TooShort,
            "long" => TooLong,
            "firewall" => Firewall,
            "expired signature" => ExpiredSignature,
            "range ignored" => RangeIgnored,
            "reset login" => RequestReset,
            "reset storage" => StorageDown,
            "token status 401" => TokenRefused,
            _ if name.starts_with("hang ") => Blackhole,
            _ if name.starts_with("delay ") => SlowHeaders,
            _ if name.ends_with("429 with Retry-After") => ThrottledWithTime,
            _ if name.ends_with(" 429") => ThrottledWithout,
            _ if name.contains(" status 5") => ServerError,
            _ if name.ends_with(" portal 200") => Portal,
            _ if name.ends_with(" portal 404") => ForeignNotFound,
            _ if name.ends_with(" foreign redirect") => ForeignRedirect,
            _ => return None,
        })
    }
}

/// What took effect so far.
#[derive(Default)]
pub struct Tally {
    /// Of the rounds that are over, and of what the campaign counts itself.
    done: Mutex<BTreeMap<Kind, u64>>,
}

impl Tally {
    fn done(&self) -> MutexGuard<'_, BTreeMap<Kind, u64>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, kind: Kind, count: u64) {
        *self.done().entry(kind).or_default() += count;
    }

    /// Adds what a simulator has counted since `before`.
    pub fn absorb(&self, before: &mut BTreeMap<String, u64>, now: BTreeMap<String, u64>) {
        for (name, count) in &now {
            let new = count - before.get(name).copied().unwrap_or(0);
            if let Some(kind) = Kind::of_effect(name).filter(|_| new > 0) {
                self.add(kind, new);
            }
        }
        *before = now;
    }

    pub fn of(&self, kind: Kind) -> u64 {
        self.done().get(&kind).copied().unwrap_or(0)
    }

    pub fn total(&self) -> u64 {
        self.done().values().sum()
    }

    /// The kinds of which there are fewer than `each`.
    pub fn lacking(&self, each: u64) -> Vec<Kind> {
        ALL.iter().map(|(kind, _)| *kind).filter(|kind| self.of(*kind) < each).collect()
    }

    /// One of the rarest of these.
    pub fn rare(&self, among: &[Kind], dice: &mut Dice) -> Kind {
        let mut sorted = among.to_vec();
        // Others go on counting meanwhile.
        sorted.sort_by_cached_key(|kind| self.of(*kind));
        let half = sorted.len().div_ceil(2);
        *dice.pick(&sorted[..half])
    }

    pub fn table(&self) -> String {
        let mut table = String::from("| fault | counted where it took effect | times |\n|---|---|---|\n");
        for (kind, counted) in ALL {
            let _ = writeln!(table, "| {kind:?} | {counted} | {} |", self.of(*kind));
        }
        let _ = writeln!(table, "| all | | {} |", self.total());
        table
    }
}
