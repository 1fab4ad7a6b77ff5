//! The cache's content as bodies: what is a file goes out as a file, what grows is followed, what passes through is streamed.

use super::body::{Body, BodyError, Chunks, Extent, Extents, FileBytes, ReadFuture};
use crate::cache::{CacheError, Content, Follower, Step, Transfer};
use crate::store::BlobFile;
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The body of `content`.
pub(super) fn body(content: Content) -> Body {
    match content {
        Content::Nothing => Body::empty(),
        Content::Memory(bytes) => Body::full(bytes),
        Content::File(file, range) => Body::file(Arc::new(file), range.start..range.end),
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
        Box::pin(async move { file.read(offset, len).await })
    }
}

/// A source, and the next that it gave.
type Answered<S, T> = (S, Result<Option<T>, CacheError>);

/// A source that is asked by polling, over one that is asked by awaiting: it lives in the future while one is under way.
enum Asked<S, T> {
    Idle(Option<S>),
    Waiting(Pin<Box<dyn Future<Output = Answered<S, T>> + Send>>),
}

impl<S, T> Asked<S, T> {
    fn poll<F>(&mut self, cx: &mut Context<'_>, ask: impl FnOnce(S) -> F) -> Poll<Option<Result<T, BodyError>>>
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

struct Following(Asked<Box<Follower>, Step>);

impl Following {
    fn new(follower: Box<Follower>) -> Self {
        Self(Asked::Idle(Some(follower)))
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

struct Passing(Asked<Box<Transfer>, Bytes>);

impl Passing {
    fn new(transfer: Box<Transfer>) -> Self {
        Self(Asked::Idle(Some(transfer)))
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
