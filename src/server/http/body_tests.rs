//! What holds for every body, whatever carries it.

use crate::server::{Body, BodyEnd, BodyError, BodyOutcome, Chunks, Extent, Extents, FileBytes, ReadFuture};
use bytes::Bytes;
use http_body_util::BodyExt;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// A file in memory that only gives some bytes at a time.
struct Memory {
    bytes: Bytes,
    most: usize,
    reads: AtomicUsize,
}

impl Memory {
    fn new(length: usize, most: usize) -> Arc<Self> {
        let bytes = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect::<Vec<_>>().into();
        Arc::new(Self { bytes, most, reads: AtomicUsize::new(0) })
    }
}

impl FileBytes for Memory {
    fn std_file(&self) -> Option<&std::fs::File> {
        None
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let from = usize::try_from(offset).unwrap().min(self.bytes.len());
        let to = (from + len.min(self.most)).min(self.bytes.len());
        let bytes = self.bytes.slice(from..to);
        Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(bytes)
        })
    }
}

struct List(VecDeque<Result<Extent, BodyError>>);

impl Extents for List {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Extent, BodyError>>> {
        Poll::Ready(self.0.pop_front())
    }
}

fn list(extents: impl IntoIterator<Item = Range<u64>>) -> List {
    List(extents.into_iter().map(|part| Ok(Extent::Part(part))).collect())
}

struct Pieces(VecDeque<Result<Bytes, BodyError>>);

impl Chunks for Pieces {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        Poll::Ready(self.0.pop_front())
    }
}

fn pieces(pieces: &[&'static str]) -> Pieces {
    Pieces(pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect())
}

/// Collects a body, and every report of its end.
async fn collect(body: Body) -> (Result<Bytes, BodyError>, Vec<BodyEnd>) {
    let (sender, mut ends) = mpsc::unbounded_channel();
    let body = body.on_end(move |end| sender.send(end).unwrap());
    let collected = body.collect().await.map(http_body_util::Collected::to_bytes);
    let mut seen = Vec::new();
    while let Some(end) = ends.recv().await {
        seen.push(end);
    }
    (collected, seen)
}

#[tokio::test]
async fn a_file_is_read_to_its_end_even_in_short_reads() {
    for most in [1 << 20, 100_000, 7_777] {
        let file = Memory::new(1_000_003, most);
        let (bytes, ends) = collect(Body::file(file.clone(), 5..1_000_001)).await;
        assert!(bytes.unwrap() == file.bytes.slice(5..1_000_001));
        assert_eq!(ends, [BodyEnd { bytes: 999_996, outcome: BodyOutcome::Complete }]);
    }
}

#[tokio::test]
async fn the_next_piece_is_read_while_the_connection_sends() {
    let file = Memory::new(1 << 20, 1 << 20);
    let mut body = Body::file(file.clone(), 0..1 << 20);
    body.frame().await.unwrap().unwrap();
    assert_eq!(file.reads.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_file_that_is_shorter_than_announced_breaks_the_body() {
    let (bytes, ends) = collect(Body::file(Memory::new(300_000, 1 << 20), 0..300_001)).await;
    assert!(matches!(bytes, Err(BodyError::Short { missing: 1 })), "{bytes:?}");
    assert_eq!(ends, [BodyEnd { bytes: 300_000, outcome: BodyOutcome::Failed }]);
}

#[tokio::test]
async fn extents_are_followed_and_never_overtaken() {
    let file = Memory::new(900_000, 1 << 20);
    let (bytes, ends) =
        collect(Body::extents(file.clone(), 10..900_000, list([10..11, 11..600_000, 600_000..900_000]))).await;
    assert!(bytes.unwrap() == file.bytes.slice(10..));
    assert_eq!(ends, [BodyEnd { bytes: 899_990, outcome: BodyOutcome::Complete }]);
}

#[tokio::test]
async fn what_the_file_will_not_have_comes_from_elsewhere() {
    let file = Memory::new(900_000, 1 << 20);
    let mut extents = list([0..300_000, 300_000..700_000]);
    extents.0.push_back(Ok(Extent::Rest(Box::new(Pieces(VecDeque::from([Ok(file.bytes.slice(700_000..))]))))));
    let (bytes, ends) = collect(Body::extents(file.clone(), 0..900_000, extents)).await;
    assert_eq!(bytes.unwrap(), file.bytes);
    assert_eq!(ends, [BodyEnd { bytes: 900_000, outcome: BodyOutcome::Complete }]);
    let mut extents = list(std::iter::once(0..10));
    extents.0.push_back(Ok(Extent::Rest(Box::new(pieces(&["too short"])))));
    let (bytes, _) = collect(Body::extents(file, 0..900_000, extents)).await;
    assert!(bytes.is_err());
}

#[tokio::test]
async fn extents_that_jump_overshoot_or_end_early_break_the_body() {
    let file = Memory::new(900, 900);
    let (bytes, _) = collect(Body::extents(file.clone(), 0..900, list([0..10, 11..900]))).await;
    assert!(matches!(bytes, Err(BodyError::OutOfOrder { expected: 10, .. })), "{bytes:?}");
    let (bytes, _) = collect(Body::extents(file.clone(), 0..800, list(std::iter::once(0..801)))).await;
    assert!(matches!(bytes, Err(BodyError::OutOfOrder { expected: 0, .. })), "{bytes:?}");
    let (bytes, ends) = collect(Body::extents(file.clone(), 0..900, list(std::iter::once(0..899)))).await;
    assert!(matches!(bytes, Err(BodyError::Short { missing: 1 })), "{bytes:?}");
    assert_eq!(ends, [BodyEnd { bytes: 899, outcome: BodyOutcome::Failed }]);
    let failing = List(VecDeque::from([Ok(Extent::Part(0..5)), Err(BodyError::Source("the fill failed".into()))]));
    let (bytes, _) = collect(Body::extents(file, 0..900, failing)).await;
    assert_eq!(bytes.unwrap_err().to_string(), "the fill failed");
}

#[tokio::test]
async fn a_stream_keeps_to_its_length() {
    let (bytes, ends) = collect(Body::stream(Some(6), pieces(&["abc", "def"]))).await;
    assert_eq!(bytes.unwrap(), "abcdef");
    assert_eq!(ends, [BodyEnd { bytes: 6, outcome: BodyOutcome::Complete }]);
    let (bytes, ends) = collect(Body::stream(Some(7), pieces(&["abc", "def"]))).await;
    assert!(matches!(bytes, Err(BodyError::Short { missing: 1 })), "{bytes:?}");
    assert_eq!(ends, [BodyEnd { bytes: 6, outcome: BodyOutcome::Failed }]);
    let (bytes, ends) = collect(Body::stream(Some(5), pieces(&["abc", "def"]))).await;
    assert!(matches!(bytes, Err(BodyError::Long)), "{bytes:?}");
    assert_eq!(ends, [BodyEnd { bytes: 3, outcome: BodyOutcome::Failed }]);
    let (bytes, ends) = collect(Body::stream(None, pieces(&["abc", "def"]))).await;
    assert_eq!(bytes.unwrap(), "abcdef");
    assert_eq!(ends, [BodyEnd { bytes: 6, outcome: BodyOutcome::Complete }]);
}

#[tokio::test]
async fn memory_and_nothing_say_their_length_and_end() {
    use http_body::Body as _;
    assert!(Body::empty().is_end_stream());
    assert!(Body::full(Bytes::new()).is_end_stream());
    assert_eq!(Body::full(Bytes::from_static(b"{}")).size_hint().exact(), Some(2));
    let (bytes, ends) = collect(Body::full(Bytes::from_static(b"{}"))).await;
    assert_eq!(bytes.unwrap(), "{}");
    assert_eq!(ends, [BodyEnd { bytes: 2, outcome: BodyOutcome::Complete }]);
    let (_, ends) = collect(Body::empty()).await;
    assert_eq!(ends, [BodyEnd { bytes: 0, outcome: BodyOutcome::Complete }]);
}

#[tokio::test]
async fn a_dropped_body_was_aborted_unless_it_was_over() {
    let (sender, mut ends) = mpsc::unbounded_channel();
    let report = move |end: BodyEnd| sender.send(end.outcome).unwrap();
    drop(Body::full(Bytes::from_static(b"{}")).on_end(report.clone()));
    assert_eq!(ends.recv().await, Some(BodyOutcome::Aborted));
    let mut head = Body::full(Bytes::from_static(b"{}")).on_end(report);
    head.head_only();
    drop(head);
    assert_eq!(ends.recv().await, Some(BodyOutcome::Complete));
    assert_eq!(ends.recv().await, None);
}
