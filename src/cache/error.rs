use super::upload_body::BodyLost;
use crate::oci::{Code, Digest, Registry};
use crate::store::StoreError;
use crate::upstream::{NoRoom, UpstreamError};
use std::sync::Arc;
use std::time::Duration;

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CacheError {
    /// Upstream was asked and this is how it ended.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// Upstream was asked in the course of an upload, and perhaps said how far that has come.
    #[error("{error}")]
    Upload {
        /// How it ended.
        error: UpstreamError,
        /// Upstream's `Range`.
        range: Option<String>,
    },
    /// The session that a client continues is none that this larder, for this repository, could know.
    #[error("no such upload for this repository: begin it anew")]
    NoSession,
    /// The rest of what a client uploads does not come.
    #[error(transparent)]
    BodyLost(#[from] BodyLost),
    /// Upstream said moments ago that it does not have it.
    #[error("{message}")]
    Absent {
        /// Upstream's error code.
        code: String,
        /// Upstream's words.
        message: String,
    },
    /// It is not stored, and its upstream is never asked.
    #[error(
        "{what} is not stored, and {registry} is sealed here: it is never asked ([[upstream]] sealed, or --sealed)"
    )]
    Sealed {
        /// What was asked for.
        what: String,
        /// The sealed upstream.
        registry: Registry,
        /// The error code for something that is not there.
        code: Code,
    },
    /// Something was to be changed at an upstream that is never asked.
    #[error(
        "{registry} is sealed here: it is never asked ([[upstream]] sealed, or --sealed), so nothing can be pushed to it or \
         deleted from it"
    )]
    ReadOnly {
        /// The sealed upstream.
        registry: Registry,
    },
    /// The stored tag is older than it may be to stand in for upstream.
    #[error(
        "the stored tag was last confirmed {age}, longer ago than max_stale ({}) allows, and upstream cannot be asked: {outage}",
        humantime::format_duration(*limit)
    )]
    TooOld {
        /// When that was, in words.
        age: String,
        /// What is allowed.
        limit: Duration,
        /// What keeps upstream from answering.
        outage: Arc<str>,
    },
    /// The request has been here before.
    #[error(
        "the request goes in a circle: larder asks {registry} for it, which asks this larder again; correct the url of one of them"
    )]
    Circle {
        /// The upstream that it would be asked of once more.
        registry: Registry,
    },
    /// The range lies outside the blob.
    #[error("the range lies outside the blob's {length} bytes")]
    Unsatisfiable {
        /// The blob's length.
        length: u64,
    },
    /// The bytes that upstream sent are not what the digest names.
    #[error("{upstream} sent content for {digest} that does not match it ({problem}); nothing was kept")]
    Mismatch {
        /// The upstream to blame.
        upstream: String,
        /// What was asked for.
        digest: Digest,
        /// What is wrong with it.
        problem: String,
    },
    /// Upstream's list is not what the specification says a list is.
    #[error("{upstream} answered with something that is no {what}: {problem}")]
    Unreadable {
        /// The upstream.
        upstream: String,
        /// What it should have been.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A list that is longer than is kept cannot be joined with others.
    #[error("{registry} has more repositories than list_entries allows: ask for /v2/{registry}/_catalog")]
    TooMany {
        /// The upstream.
        registry: Registry,
    },
    /// An upstream keeps others' answers waiting for longer than they should.
    #[error("{what} did not come within {} s", waited.as_secs())]
    Slow {
        /// What was asked for.
        what: &'static str,
        /// How long was waited.
        waited: Duration,
    },
    /// Too much is under way.
    #[error("{what} are under way already, as many as the limit allows: try again in {} s", retry.as_secs())]
    Busy {
        /// What there is too much of.
        what: &'static str,
        /// When to try again.
        retry: Duration,
    },
    /// No upstream of this name is configured.
    #[error("no upstream is called {registry}: name one that is configured ([[upstream]] name)")]
    UnknownUpstream {
        /// The name.
        registry: Registry,
    },
    /// Downloads that others began have failed, one after the other, for reasons of the others.
    #[error("{digest} could not be had: the downloads that others began failed, one after the other: try again")]
    OthersFailed {
        /// What was asked for.
        digest: Digest,
    },
    /// An upload needs random numbers: for its key, or its number.
    #[error("the operating system gives no random numbers, which an upload needs: try again")]
    NoRandomness,
    /// The store failed and the answer does not exist elsewhere.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The work ended without a result: larder is stopping, or has met an error that it logged.
    #[error("larder gave up on this request: it is stopping, or met an error that its log names")]
    Aborted,
}

impl From<NoRoom> for CacheError {
    fn from(no: NoRoom) -> Self {
        Self::Busy { what: "large documents (document_memory)", retry: no.retry }
    }
}

impl From<StoreError> for CacheError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}
