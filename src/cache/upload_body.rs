use bytes::Bytes;
use std::time::Duration;

/// A client's body as it arrives.
pub trait UploadBody: Send {
    /// Bytes of the whole body, if the client said so.
    fn length(&self) -> Option<u64>;

    /// The next bytes, never empty; `None` at the end.
    fn chunk(&mut self) -> impl Future<Output = Result<Option<Bytes>, BodyLost>> + Send;
}

/// No body at all.
impl UploadBody for () {
    fn length(&self) -> Option<u64> {
        Some(0)
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyLost> {
        Ok(None)
    }
}

/// Why the rest of a client's body does not come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyLost {
    /// The client went away, or what it sent is no HTTP.
    #[error("the body broke off: {0}")]
    Broken(String),
    /// What is kept of it, and was to go a second time, cannot be read.
    #[error("the upload's copy cannot be read, so that it has to be sent again: {0}")]
    Copy(String),
    /// The client stopped sending.
    #[error("no byte of the body came for {} s: it is given up (stall_timeout)", .0.as_secs_f32())]
    Stalled(Duration),
}
