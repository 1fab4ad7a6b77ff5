//! The cache's content as bodies: what is a file goes out as a file, what grows is followed, what passes through is streamed.

use super::multipart;
use crate::cache::{CacheError, Content, Follower, Step, Transfer};
use crate::server::http::body::Body;
use crate::server::http::body_parts::{BodyError, Chunks, Extent, Extents, FileBytes, ReadFuture};
use crate::store::{BlobFile, StoreError};
use bytes::Bytes;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The body of `content`.
pub(in crate::server) fn body(content: Content) -> Body {
    match content {
        Content::Nothing | Content::Unmeasured => Body::empty(),
        Content::Memory(bytes) => Body::full(bytes),
        Content::Ranges(parts) => multipart::body(parts),
        Content::File(file, range) => {
            let range = range.start..range.end;
            if file.is_checked(&range) {
                Body::file(Arc::new(file), range)
            } else {
                Body::extents(Arc::new(file.clone()), range.clone(), Checking::new(file, range))
            }
        }
        Content::Follow(follower) => {
            let (file, range) = (follower.file().clone(), follower.range());
            Body::extents(Arc::new(file), range.start..range.end, Following::new(follower))
        }
        Content::Transfer(transfer) => Body::stream(Some(transfer.length()), Passing::new(transfer)),
    }
}

impl FileBytes for BlobFile {
    fn std_file(&self) -> Option<&std::fs::File> {
        self.std_file()
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture {
        let file = self.clone();
        Box::pin(async move { file.read(offset, len).await.inspect_err(|_| file.distrust()) })
    }

    fn distrust(&self) {
        self.distrust();
    }
}

/// A source, and the next that it gave.
type Answered<S, T> = (S, Result<Option<T>, CacheError>);

/// A source that is asked by polling, over one that is asked by awaiting: it lives in the future while one is under way.
pub(in crate::server) enum PollAdapter<S, T> {
    Idle(Option<S>),
    Waiting(Pin<Box<dyn Future<Output = Answered<S, T>> + Send>>),
}

impl<S, T> PollAdapter<S, T> {
    pub(in crate::server) fn of(source: S) -> Self {
        Self::Idle(Some(source))
    }

    pub(in crate::server) fn poll<F>(
        &mut self,
        cx: &mut Context<'_>,
        ask: impl FnOnce(S) -> F,
    ) -> Poll<Option<Result<T, BodyError>>>
    where
        F: Future<Output = Answered<S, T>> + Send + 'static,
    {
        if let Self::Idle(source) = self {
            let Some(source) = source.take() else { return Poll::Ready(None) };
            *self = Self::Waiting(Box::pin(ask(source)));
        }
        let Self::Waiting(future) = self else { return Poll::Ready(None) };
        let (source, result) = ready!(future.as_mut().poll(cx));
        *self = Self::Idle(Some(source));
        Poll::Ready(result.map_err(|error| BodyError::Source(Box::new(error))).transpose())
    }
}

/// Bytes checked at a time: the first ones go out soon, and the next are read while they do.
const CHECKED_AT_ONCE: u64 = 2 << 20;

type Part = Result<Range<u64>, StoreError>;

/// A stored file that is checked on its way out, because this process has neither written nor checked all of it.
struct Checking {
    file: BlobFile,
    left: Range<u64>,
    next: Option<Pin<Box<dyn Future<Output = Part> + Send>>>,
}

impl Checking {
    fn new(file: BlobFile, range: Range<u64>) -> Self {
        Self { file, left: range, next: None }
    }

    fn begin_next(&mut self) {
        if self.left.is_empty() {
            return;
        }
        // Cut where the steps end, so that no piece is in two parts.
        let end = (self.left.start / CHECKED_AT_ONCE + 1).saturating_mul(CHECKED_AT_ONCE).min(self.left.end);
        let (file, part) = (self.file.clone(), self.left.start..end);
        self.left.start = end;
        self.next = Some(Box::pin(async move { file.check(part.clone()).await.map(|()| part) }));
    }
}

impl Extents for Checking {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Extent, BodyError>>> {
        if self.next.is_none() {
            self.begin_next();
        }
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let part = ready!(next.as_mut().poll(cx));
        self.next = None;
        if part.is_ok() {
            self.begin_next();
            // Started now, it runs while the part goes out. Its result is asked for when it is wanted.
            if let Some(next) = &mut self.next
                && let Poll::Ready(part) = next.as_mut().poll(cx)
            {
                self.next = Some(Box::pin(std::future::ready(part)));
            }
        }
        Poll::Ready(Some(part.map(Extent::Part).map_err(|error| BodyError::Source(Box::new(error)))))
    }
}

struct Following(PollAdapter<Box<Follower>, Step>);

impl Following {
    fn new(follower: Box<Follower>) -> Self {
        Self(PollAdapter::of(follower))
    }
}

impl Extents for Following {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Extent, BodyError>>> {
        let step = ready!(self.0.poll(cx, |mut follower| async move {
            let next = follower.next().await;
            (follower, next)
        }));
        Poll::Ready(step.map(|step| {
            step.map(|step| match step {
                Step::Part(part) => Extent::Part(part),
                Step::Rest(transfer) => Extent::Rest(Box::new(Passing::new(transfer))),
            })
        }))
    }
}

struct Passing(PollAdapter<Box<Transfer>, Bytes>);

impl Passing {
    fn new(transfer: Box<Transfer>) -> Self {
        Self(PollAdapter::of(transfer))
    }
}

impl Chunks for Passing {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.0.poll(cx, |mut transfer| async move {
            let next = transfer.next().await;
            (transfer, next)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreSettings;
    use crate::oci::{Algorithm, ByteRange, Digest};
    use crate::store::{RealDisk, Store};
    use crate::telemetry::Metrics;
    use http_body_util::BodyExt as _;

    const MIB: usize = 1 << 20;

    /// A store that has just been started on a blob of 8 MiB whose piece 5 has a flipped bit.
    async fn damaged(folder: &std::path::Path) -> (Store, BlobFile, Bytes) {
        let settings = StoreSettings::small(folder, 1 << 30);
        let open =
            async || Store::open(&settings, Arc::new(RealDisk::new(folder)), Arc::new(Metrics::new())).await.unwrap();
        let bytes: Bytes = (0..8 * MIB).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let store = open().await;
        let mut ingest = store.ingest(&digest, Some(bytes.len() as u64)).await.unwrap();
        ingest.write(bytes.clone()).await.unwrap();
        ingest.verify().await.unwrap().commit().await.unwrap();
        store.close().await;
        let path = folder.join("blobs/sha256").join(digest.hex());
        let mut altered = bytes.to_vec();
        altered[5 * MIB + 100] ^= 1;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &altered).unwrap();
        let store = open().await;
        let file = store.blob(&digest).await.unwrap().unwrap().file().clone();
        (store, file, bytes)
    }

    /// What a client gets, and whether the answer ended cleanly.
    async fn get(file: &BlobFile, range: Range<usize>) -> (Vec<u8>, bool) {
        let range = ByteRange { start: range.start as u64, end: range.end as u64 };
        let mut body = body(Content::File(file.clone(), range));
        let mut got = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return (got, false) };
            got.extend_from_slice(&frame.into_data().unwrap());
        }
        (got, true)
    }

    #[tokio::test]
    async fn a_damaged_piece_breaks_the_answer_before_its_first_byte() {
        let folder = tempfile::tempdir().unwrap();
        let (store, file, bytes) = damaged(folder.path()).await;
        for good in [0..10, MIB + 3..4 * MIB, 6 * MIB..8 * MIB, 5 * MIB - 7..5 * MIB] {
            assert_eq!(get(&file, good.clone()).await, (bytes[good].to_vec(), true));
        }
        for bad in [0..8 * MIB, 4 * MIB + 5..8 * MIB, 5 * MIB + 100..5 * MIB + 101] {
            let (got, clean) = get(&file, bad.clone()).await;
            assert!(!clean && got.len() <= (5 * MIB).saturating_sub(bad.start), "{bad:?}: {} bytes", got.len());
            assert_eq!(got, bytes[bad.start..bad.start + got.len()]);
        }
        store.close().await;
    }

    #[tokio::test]
    async fn the_check_of_what_follows_runs_while_a_part_goes_out_and_in_the_right_steps() {
        let folder = tempfile::tempdir().unwrap();
        let (store, file, _) = damaged(folder.path()).await;
        let mut checking = Checking::new(file.clone(), 3 * MIB as u64..5 * MIB as u64);
        let mut parts = Vec::new();
        while let Some(extent) = std::future::poll_fn(|cx| checking.poll_next(cx)).await {
            let Ok(Extent::Part(part)) = extent else { panic!("no part") };
            parts.push(part);
            if parts.len() == 1 {
                while !file.is_checked(&(4 * MIB as u64..5 * MIB as u64)) {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            }
        }
        assert_eq!(parts, [3 * MIB as u64..4 * MIB as u64, 4 * MIB as u64..5 * MIB as u64]);
        store.close().await;
    }
}
