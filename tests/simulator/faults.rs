//! Things that go wrong on purpose: blob bodies that are not what was asked for, and answers instead of the real one.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// What is wrong with a blob body.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Damage {
    pub kind: DamageKind,
    /// A position; see the kind.
    pub at: u64,
    /// How often; none: always.
    #[serde(default)]
    pub times: Option<u32>,
    /// Only this blob.
    #[serde(default)]
    pub digest: Option<String>,
}

/// `at` counts bytes of this answer's body, except for `Flip`, where it is an offset in the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DamageKind {
    /// The connection is closed after `at` bytes; `Content-Length` promised all.
    Cut,
    /// The connection is reset after `at` bytes.
    Reset,
    /// Nothing comes after `at` bytes; the connection stays open.
    Stall,
    /// One bit of the byte at offset `at` is wrong.
    Flip,
    /// `Content-Length` and body end at `at`: too few bytes, cleanly.
    Short,
    /// `at` zero bytes follow the blob, and `Content-Length` counts them.
    Long,
}

impl DamageKind {
    /// The name under which it is counted.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Reset => "reset",
            Self::Stall => "stall",
            Self::Flip => "flip",
            Self::Short => "short",
            Self::Long => "long",
        }
    }
}

impl Damage {
    pub fn always(kind: DamageKind, at: u64) -> Self {
        Self { kind, at, times: None, digest: None }
    }

    pub fn once(kind: DamageKind, at: u64) -> Self {
        Self::times(kind, at, 1)
    }

    pub fn times(kind: DamageKind, at: u64, times: u32) -> Self {
        Self { kind, at, times: Some(times), digest: None }
    }

    /// The same, for this blob only.
    #[must_use]
    pub fn of(self, digest: &str) -> Self {
        Self { digest: Some(digest.to_owned()), ..self }
    }

    pub(super) fn take(&mut self, digest: &str) -> Option<Self> {
        let applies = self.digest.as_deref().is_none_or(|d| d == digest) && count_down(&mut self.times);
        applies.then(|| self.clone())
    }
}

/// An answer given instead of the real one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub on: PathClass,
    pub answer: FaultAnswer,
    /// How often; none: always.
    #[serde(default)]
    pub times: Option<u32>,
    /// Only requests with this method.
    #[serde(default)]
    pub method: Option<String>,
    #[serde(skip)]
    pub(super) began: Option<Instant>,
}

impl Fault {
    pub fn always(on: PathClass, answer: FaultAnswer) -> Self {
        Self { on, answer, times: None, method: None, began: None }
    }

    pub fn times(on: PathClass, answer: FaultAnswer, times: u32) -> Self {
        Self { times: Some(times), ..Self::always(on, answer) }
    }

    /// The same, for this method only.
    #[must_use]
    pub fn of(self, method: &str) -> Self {
        Self { method: Some(method.to_owned()), ..self }
    }

    pub(super) fn matches(&self, class: PathClass, method: &str) -> bool {
        if self.method.as_ref().is_some_and(|only| only != method) {
            return false;
        }
        match self.on {
            PathClass::All => true,
            PathClass::Login => class != PathClass::Storage,
            on => on == class,
        }
    }

    pub(super) fn take(&mut self, now: Instant) -> Option<(FaultAnswer, Option<u64>)> {
        let mut left = None;
        if let FaultAnswer::TooManyRequests { retry_after_s: Some(seconds), counts_down: true, .. } = self.answer {
            let gone = now.duration_since(*self.began.get_or_insert(now)).as_secs();
            left = Some(seconds.checked_sub(gone).filter(|left| *left > 0)?);
        }
        count_down(&mut self.times).then(|| (self.answer.clone(), left))
    }
}

fn count_down(times: &mut Option<u32>) -> bool {
    match times {
        None => true,
        Some(0) => false,
        Some(left) => {
            *left -= 1;
            true
        }
    }
}

/// Which requests a fault answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathClass {
    All,
    /// Everything but the storage listener.
    Login,
    Ping,
    Manifests,
    Blobs,
    /// Upload sessions.
    Uploads,
    Tags,
    Catalog,
    Referrers,
    Exchange,
    Token,
    /// `/acr/v1`.
    Acr,
    Storage,
    /// A path that the registry does not know.
    Unknown,
}

impl PathClass {
    /// As it is written in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Login => "login",
            Self::Ping => "ping",
            Self::Manifests => "manifests",
            Self::Blobs => "blobs",
            Self::Uploads => "uploads",
            Self::Tags => "tags",
            Self::Catalog => "catalog",
            Self::Referrers => "referrers",
            Self::Exchange => "exchange",
            Self::Token => "token",
            Self::Acr => "acr",
            Self::Storage => "storage",
            Self::Unknown => "unknown",
        }
    }
}

/// What such a request gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultAnswer {
    /// A status with this body (empty: none, `Content-Length: 0`), as text/html.
    Status { status: u16, body: String },
    /// A status with an error in the OCI form.
    Oci { status: u16, code: String, message: String },
    /// 429.
    TooManyRequests {
        retry_after_s: Option<u64>,
        /// The seconds left count down from the first such answer, and the fault ends with them.
        #[serde(default)]
        counts_down: bool,
        /// The registry's front door: a body that is not JSON.
        #[serde(default)]
        front_door: bool,
    },
    /// 403 of the registry's firewall.
    Firewall,
    /// A captive portal's page, with this status (200 or 404).
    Portal { status: u16 },
    /// 302 to somebody else.
    ForeignRedirect { location: String },
}

impl FaultAnswer {
    /// The name under which it is counted.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Status { status, .. } | Self::Oci { status, .. } => format!("status {status}"),
            Self::TooManyRequests { retry_after_s: Some(_), .. } => "429 with Retry-After".into(),
            Self::TooManyRequests { .. } => "429".into(),
            Self::Firewall => "firewall".into(),
            Self::Portal { status } => format!("portal {status}"),
            Self::ForeignRedirect { .. } => "foreign redirect".into(),
        }
    }
    /// A bare status without a body.
    pub fn empty(status: u16) -> Self {
        Self::Status { status, body: String::new() }
    }

    /// 429 whose `Retry-After` counts down, after which the fault is over.
    pub fn throttled(seconds: u64) -> Self {
        Self::TooManyRequests { retry_after_s: Some(seconds), counts_down: true, front_door: false }
    }
}
