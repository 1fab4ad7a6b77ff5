use crate::oci::{ByteRange, Digest, MediaType};
use crate::store::BlobFile;
use crate::telemetry::CacheStatus;
use crate::upstream::{AcrAnswer, Relayed, Room};
use bytes::Bytes;
use std::sync::Arc;

use crate::cache::blob::multi_range::MultiRange;
use crate::cache::documents::lists::List;
use crate::cache::fill::Follower;
use crate::cache::fill::transfer::Transfer;

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
    /// Whether bytes go out that nobody has verified yet: a range of a blob that is still on its way.
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

    /// An answer that has come through other caches: as they say, one that nobody could confirm is not as good as `self` says.
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

/// A manifest, byte for byte as upstream has it.
#[derive(Clone, Debug)]
pub struct StoredManifest {
    /// The document.
    pub content: Bytes,
    /// Its digest, in the algorithm that it is known by here.
    pub digest: Digest,
    /// The type that upstream gave it in this repository.
    pub media_type: MediaType,
}

/// The answer to a request for a manifest.
#[derive(Clone, Debug)]
pub struct ManifestAnswer {
    /// The manifest.
    pub manifest: Arc<StoredManifest>,
    /// Where it came from.
    pub provenance: Provenance,
}

/// The answer to a request for a blob.
#[derive(Debug)]
pub struct BlobAnswer {
    /// Length of the whole blob in bytes; 0 for [`Content::Unmeasured`].
    pub length: u64,
    /// The one part that `content` is; `None`: all of it, or the several parts that it names.
    pub range: Option<ByteRange>,
    /// The bytes.
    pub content: Content,
    /// Where they came from.
    pub provenance: Provenance,
}

/// The bytes of an answer, by how they come to be there.
#[derive(Debug)]
pub enum Content {
    /// None were asked for.
    Nothing,
    /// None were asked for, and upstream does not say how long the blob is.
    Unmeasured,
    /// All of them, verified, in memory.
    Memory(Bytes),
    /// A part of a complete, verified file.
    File(BlobFile, ByteRange),
    /// Several parts, one after another.
    Ranges(Box<MultiRange>),
    /// A part of a file that is being written.
    Follow(Box<Follower>),
    /// A download of this request's own, which nothing keeps.
    Transfer(Box<Transfer>),
}

/// The answer to a request for a list.
#[derive(Clone, Debug)]
pub struct ListAnswer {
    /// The list.
    pub list: List,
    /// Where it came from.
    pub provenance: Provenance,
    /// What it has of the memory for large documents, if it was read for this answer.
    pub room: Option<Room>,
}

/// The answer to a question to ACR's own API.
#[derive(Clone, Debug)]
pub struct MetadataAnswer {
    /// What upstream said.
    pub answer: Arc<AcrAnswer>,
    /// Where it came from.
    pub provenance: Provenance,
}
