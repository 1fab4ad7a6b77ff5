use crate::telemetry::CacheStatus;
use crate::upstream::Relayed;
use std::sync::Arc;

/// Why an answer came from where it came, for the client, the log line and the metric.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// The word.
    pub status: CacheStatus,
    /// Whether the answer is being kept.
    pub stored: bool,
    /// Seconds for which it may be served without asking; negative if they are over. Absent for what never expires.
    pub ttl: Option<i64>,
    /// What kept upstream from answering, for a stale answer.
    pub outage: Option<Arc<str>>,
    /// What the caches behind this one say of it (their `Cache-Status`), for an answer that came through them.
    pub behind: Option<Arc<str>>,
    /// Whether bytes go out that are not verified yet: a range of a blob that is still on its way.
    pub unverified: bool,
}

impl Provenance {
    /// An answer of this kind, and nothing more to say of it.
    #[must_use]
    pub fn new(status: CacheStatus) -> Self {
        let stored = matches!(status, CacheStatus::Miss | CacheStatus::Coalesced);
        Self { status, stored, ttl: None, outage: None, behind: None, unverified: false }
    }

    pub(super) fn with_ttl(mut self, ttl: impl Into<Option<i64>>) -> Self {
        self.ttl = ttl.into();
        self
    }

    pub(super) fn with_outage(mut self, why: Arc<str>) -> Self {
        self.outage = Some(why);
        self
    }

    /// An answer that has come through other caches: one that they could not confirm is stale here too.
    pub(super) fn relayed(mut self, relayed: &Relayed) -> Self {
        if let Some(unconfirmed) = &relayed.stale {
            self.status = CacheStatus::Stale;
            self.outage = Some(Arc::clone(&unconfirmed.why));
        }
        self.behind.clone_from(&relayed.status);
        self
    }

    pub(super) fn unverified(mut self) -> Self {
        self.unverified = true;
        self
    }
}
