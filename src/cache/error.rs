use crate::oci::Digest;
use crate::store::StoreError;
use crate::upstream::UpstreamError;
use std::sync::Arc;
use std::time::Duration;

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CacheError {
    /// Upstream was asked and this is how it ended.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// Upstream said moments ago that it does not have it.
    #[error("{message}")]
    Absent {
        /// Upstream's error code.
        code: String,
        /// Upstream's words.
        message: String,
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
    /// Too much is under way.
    #[error("{what} are under way already, as many as the limit allows: try again in {} s", retry.as_secs())]
    Busy {
        /// What there is too much of.
        what: &'static str,
        /// When to try again.
        retry: Duration,
    },
    /// The store failed and the answer does not exist elsewhere.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The work ended without a result: larder is stopping, or a bug was met and logged.
    #[error("larder gave up on this request: it is stopping, or met an error that its log names")]
    Aborted,
}

impl From<StoreError> for CacheError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}
