//! The body of an upload on its way: handed on as it comes, and copied to the store beside that.
//!
//! The copy never holds the push up for long and never fails it: a store that refuses, fails or lags is left out.

use super::kept::Kept;
use crate::cache::batch::next_batch;
use crate::cache::upload_body::{BodyLost, UploadBody};
use crate::store::BlobFile;
use crate::upstream::UploadSource;
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Chunks (of up to 64 KiB, as hyper reads them) that may have arrived and not be written.
const CHUNKS: usize = 64;
/// How long the store may hold the push up before it is left out.
const COPY_STALL: Duration = Duration::from_secs(5);
/// Bytes read at once when a body goes a second time.
const REPLAY: u64 = 512 << 10;

pub(super) struct Tee<B> {
    body: B,
    copy: LocalCopy,
    /// Where this body begins in the upload.
    start: u64,
    /// Bytes that the client has sent.
    taken: u64,
    ended: bool,
    replay: Option<Replay>,
    /// How long the client may send nothing.
    stall: Duration,
}

/// What becomes of the copy.
enum LocalCopy {
    /// There is none, or it was given up.
    None,
    /// One that is not being written at the moment.
    Idle(Box<Kept>),
    Writing(Writer),
}

struct Writer {
    chunks: mpsc::Sender<Bytes>,
    task: JoinHandle<Option<Box<Kept>>>,
}

/// What has been sent before and goes once more, from the copy.
struct Replay {
    file: BlobFile,
    next: u64,
    end: u64,
}

impl<B: UploadBody> Tee<B> {
    /// `kept`: what the store has of the upload, all of it up to this body's beginning.
    pub(super) async fn new(body: B, kept: Option<Kept>, stall: Duration) -> Self {
        let mut copy = LocalCopy::None;
        let mut start = 0;
        if let Some(mut kept) = kept {
            start = kept.upload.received();
            let expected = match body.length() {
                Some(length) if length > 0 => kept.upload.expect(length).await,
                _ => Ok(()),
            };
            match expected {
                Ok(()) => copy = LocalCopy::Idle(Box::new(kept)),
                Err(error) => tracing::warn!(%error, "the store takes no copy of an upload: it is pushed and not kept"),
            }
        }
        Self { body, copy, start, taken: 0, ended: false, replay: None, stall }
    }

    /// Bytes that the client has sent.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether all of the client's body has come.
    pub(super) fn is_whole(&self) -> bool {
        self.ended || self.body.length() == Some(self.taken)
    }

    /// The copy, all of it written, if there still is one.
    pub(super) async fn finish(mut self) -> Option<Kept> {
        self.end_writing().await.map(|kept| *kept).filter(|kept| kept.upload.received() == self.start + self.taken)
    }

    /// Ends the writing.
    async fn end_writing(&mut self) -> Option<Box<Kept>> {
        match std::mem::replace(&mut self.copy, LocalCopy::None) {
            LocalCopy::None => None,
            LocalCopy::Idle(kept) => Some(kept),
            LocalCopy::Writing(Writer { chunks, task }) => {
                drop(chunks);
                let Ok(written) = timeout(COPY_STALL, task).await else {
                    lagging();
                    return None;
                };
                written.ok().flatten()
            }
        }
    }

    /// Has the store write a chunk.
    async fn keep(&mut self, chunk: Bytes) {
        if let LocalCopy::Idle(_) = &self.copy
            && let LocalCopy::Idle(kept) = std::mem::replace(&mut self.copy, LocalCopy::None)
        {
            self.copy = LocalCopy::Writing(Writer::start(kept));
        }
        let LocalCopy::Writing(writer) = &self.copy else { return };
        let taken = match writer.chunks.try_send(chunk) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(chunk)) => {
                let sent = timeout(COPY_STALL, writer.chunks.send(chunk)).await;
                if sent.is_err() {
                    lagging();
                }
                matches!(sent, Ok(Ok(())))
            }
        };
        if !taken {
            self.copy = LocalCopy::None;
        }
    }
}

impl Writer {
    fn start(kept: Box<Kept>) -> Self {
        let (chunks, mut arriving) = mpsc::channel(CHUNKS);
        let task = tokio::spawn(async move {
            let mut kept = kept;
            while let Some(batch) = next_batch(&mut arriving).await {
                if let Err(error) = kept.upload.write(batch).await {
                    tracing::warn!(%error, "the store failed in the middle of an upload: it is pushed and not kept");
                    kept.upload.discard().await;
                    return None;
                }
            }
            Some(kept)
        });
        Self { chunks, task }
    }
}

impl<B: UploadBody> UploadSource for Tee<B> {
    type Error = BodyLost;

    fn length(&self) -> Option<u64> {
        self.body.length()
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyLost> {
        if let Some(chunk) = self.replayed().await? {
            return Ok(Some(chunk));
        }
        if self.ended {
            return Ok(None);
        }
        let chunk = timeout(self.stall, self.body.chunk()).await;
        let Some(chunk) = chunk.unwrap_or(Err(BodyLost::Stalled(self.stall)))? else {
            self.ended = true;
            return Ok(None);
        };
        self.taken += chunk.len() as u64;
        self.keep(chunk.clone()).await;
        Ok(Some(chunk))
    }

    async fn rewind(&mut self) -> bool {
        if self.taken == 0 {
            return true;
        }
        let Some(kept) = self.end_writing().await else { return false };
        let (start, end) = (self.start, self.start + self.taken);
        if kept.upload.received() != end {
            return false;
        }
        self.replay = Some(Replay { file: kept.upload.file(), next: start, end });
        self.copy = LocalCopy::Idle(kept);
        true
    }
}

impl<B> Tee<B> {
    async fn replayed(&mut self) -> Result<Option<Bytes>, BodyLost> {
        let Some(replay) = &mut self.replay else { return Ok(None) };
        let length = (replay.end - replay.next).min(REPLAY);
        if length == 0 {
            self.replay = None;
            return Ok(None);
        }
        let read = replay.file.read(replay.next, usize::try_from(length).unwrap_or_default()).await;
        let chunk = read.map_err(|error| BodyLost::Copy(error.to_string()))?;
        replay.next += length;
        Ok(Some(chunk))
    }
}

fn lagging() {
    tracing::warn!(patience_s = COPY_STALL.as_secs(), "the store lags behind an upload: it is pushed and not kept");
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Body(Vec<&'static [u8]>);

    impl UploadBody for Body {
        fn length(&self) -> Option<u64> {
            None
        }

        async fn chunk(&mut self) -> Result<Option<Bytes>, BodyLost> {
            Ok((!self.0.is_empty()).then(|| Bytes::from_static(self.0.remove(0))))
        }
    }

    #[tokio::test]
    async fn a_body_without_a_copy_goes_once() {
        let mut tee = Tee::new(Body(vec![b"ab", b"c"]), None, Duration::from_secs(1)).await;
        assert!(tee.rewind().await, "nothing has been taken yet");
        assert_eq!(tee.chunk().await, Ok(Some(Bytes::from_static(b"ab"))));
        assert!(!tee.rewind().await);
        assert_eq!(tee.chunk().await, Ok(Some(Bytes::from_static(b"c"))));
        assert!(!tee.is_whole());
        assert_eq!(tee.chunk().await, Ok(None));
        assert!(tee.is_whole());
        assert!(tee.finish().await.is_none());
    }

    /// Sends a byte now and then, and in the end none.
    struct Trickle(u32);

    impl UploadBody for Trickle {
        fn length(&self) -> Option<u64> {
            Some(100)
        }

        async fn chunk(&mut self) -> Result<Option<Bytes>, BodyLost> {
            self.0 -= 1;
            let pause = if self.0 > 0 { Duration::from_secs(29) } else { Duration::MAX };
            tokio::time::sleep(pause).await;
            Ok(Some(Bytes::from_static(b"x")))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_may_be_slow_and_may_not_stop() {
        let limit = Duration::from_secs(30);
        let mut tee = Tee::new(Trickle(4), None, limit).await;
        for _ in 0..3 {
            assert!(tee.chunk().await.is_ok_and(|chunk| chunk.is_some()));
        }
        let begun = tokio::time::Instant::now();
        assert_eq!(tee.chunk().await, Err(BodyLost::Stalled(limit)));
        assert_eq!(begun.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_takes_nothing_holds_a_push_up_for_five_seconds() {
        let pieces = vec![&b"x"[..]; CHUNKS + 3];
        let mut tee = Tee::new(Body(pieces), None, Duration::MAX).await;
        let (chunks, _stuck) = mpsc::channel(CHUNKS);
        tee.copy = LocalCopy::Writing(Writer { chunks, task: tokio::spawn(std::future::pending()) });
        let begun = tokio::time::Instant::now();
        for _ in 0..CHUNKS {
            assert!(tee.chunk().await.is_ok_and(|chunk| chunk.is_some()));
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert!(tee.chunk().await.is_ok_and(|chunk| chunk.is_some()));
        assert_eq!(begun.elapsed().as_secs(), COPY_STALL.as_secs());
        assert!(tee.chunk().await.is_ok_and(|chunk| chunk.is_some()));
        assert_eq!(begun.elapsed().as_secs(), COPY_STALL.as_secs(), "it is left out from then on");

        // Nor does the end wait any longer.
        let mut tee = Tee::new(Body(Vec::new()), None, Duration::MAX).await;
        let (chunks, _stuck) = mpsc::channel(CHUNKS);
        tee.copy = LocalCopy::Writing(Writer { chunks, task: tokio::spawn(std::future::pending()) });
        let begun = tokio::time::Instant::now();
        assert!(tee.finish().await.is_none());
        assert_eq!(begun.elapsed().as_secs(), COPY_STALL.as_secs());
    }
}
