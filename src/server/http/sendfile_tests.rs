//! That sendfile really carries the bytes, that they are right, and that nothing is left behind.

use super::connection_tests::{Running, answer, start};
use super::sendfile::{Residency, residency};
use crate::config::Limits;
use crate::server::{Body, BodyEnd, BodyError, BodyOutcome, Extent, Extents, FileBytes, ReadFuture};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Up to here files are read, not mapped.
const SMALL: u64 = 32 << 10;

struct OnDisk(Arc<File>, AtomicUsize);

impl FileBytes for OnDisk {
    fn std_file(&self) -> Option<&File> {
        Some(&self.0)
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture {
        self.1.fetch_add(1, Ordering::Relaxed);
        let file = Arc::clone(&self.0);
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || {
                let mut bytes = vec![0; len];
                let read = file.read_at(&mut bytes, offset)?;
                bytes.truncate(read);
                Ok(bytes.into())
            });
            read.await.unwrap()
        })
    }
}

fn content(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(next).collect()
}

fn on_disk(bytes: &[u8]) -> Arc<OnDisk> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Arc::new(OnDisk(Arc::new(file), AtomicUsize::new(0)))
}

/// A large file of zeros that takes no time to write.
fn zeros(length: u64) -> Arc<OnDisk> {
    let file = on_disk(&[]);
    file.0.set_len(length).unwrap();
    file
}

/// The range is in the path: `/from-to`.
fn range(request: &Request<hyper::body::Incoming>) -> Range<u64> {
    let (from, to) = request.uri().path()[1..].split_once('-').unwrap();
    from.parse().unwrap()..to.parse().unwrap()
}

async fn serving(file: Arc<OnDisk>) -> Running {
    start(Limits::default(), move |request| answer(Body::file(file.clone(), range(&request)))).await
}

/// Reads one answer, and gives its body.
async fn read_answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    body
}

fn get(range: &Range<u64>) -> String {
    format!("GET /{}-{} HTTP/1.1\r\nHost: x\r\n\r\n", range.start, range.end)
}

fn slice<'a>(bytes: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    &bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
}

#[tokio::test]
async fn bytes_are_right_and_sendfile_carried_them() {
    let bytes = content(64 << 20);
    let server = serving(on_disk(&bytes)).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let end = bytes.len() as u64;
    let ranges = [
        0..1,
        0..1024,
        0..1 << 20,
        0..end,
        4097..4099,
        1..SMALL + 2,
        4095..(1 << 20) + 1,
        end - 100_003..end,
        end - 1..end,
    ];
    for range in ranges {
        let before = server.stats.bytes();
        stream.write_all(get(&range).as_bytes()).await.unwrap();
        let body = read_answer(&mut stream).await;
        assert_eq!(Sha256::digest(&body), Sha256::digest(slice(&bytes, &range)), "{range:?}");
        let length = range.end - range.start;
        let expected = if length > SMALL { length } else { 0 };
        assert_eq!(server.stats.bytes() - before, expected, "sent by sendfile for {range:?}");
    }
}

#[tokio::test]
async fn pipelined_answers_come_in_order() {
    let bytes = content(3 << 20);
    let server = serving(on_disk(&bytes)).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let ranges = [0..3 << 20, 100..200, 5..1_000_005, 0..1, 7..(3 << 20)];
    let requests: String = ranges.iter().map(get).collect();
    stream.write_all(requests.as_bytes()).await.unwrap();
    for range in &ranges {
        assert!(read_answer(&mut stream).await == slice(&bytes, range), "{range:?}");
    }
}

#[tokio::test]
async fn http2_reads_instead() {
    let bytes = content(3 << 20);
    let server = serving(on_disk(&bytes)).await;
    let io = hyper_util::rt::TokioIo::new(TcpStream::connect(server.address).await.unwrap());
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("http://x/1-3145728").body(Empty::<Bytes>::new()).unwrap();
    let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert!(body == bytes[1..]);
    assert_eq!(server.stats.calls(), 0);
    connection.abort();
}

/// Follows a watermark.
struct Behind {
    at: u64,
    changes: mpsc::Receiver<u64>,
}

impl Extents for Behind {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Extent, BodyError>>> {
        Poll::Ready(ready!(self.changes.poll_recv(cx)).map(|mark| {
            let extent = self.at..mark;
            self.at = mark;
            Ok(Extent::Part(extent))
        }))
    }
}

#[tokio::test]
async fn a_growing_file_is_followed_by_sendfile() {
    let bytes = content(2_500_000);
    let total = bytes.len() as u64;
    let file = on_disk(&[]);
    let (marks, changes) = mpsc::channel(1);
    let changes = Arc::new(std::sync::Mutex::new(Some(changes)));
    let growing = Arc::clone(&file);
    let server = start(Limits::default(), move |_| {
        let changes = changes.lock().unwrap().take().unwrap();
        answer(Body::extents(growing.clone(), 0..total, Behind { at: 0, changes }))
    })
    .await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let writer = {
        let bytes = bytes.clone();
        async move {
            let mut end = 0;
            for step in [1, 4096, 70_000, 1_000_000, bytes.len()] {
                let next = bytes.len().min(end + step);
                file.0.write_all_at(&bytes[end..next], end as u64).unwrap();
                end = next;
                marks.send(end as u64).await.unwrap();
                sleep(Duration::from_millis(50)).await;
            }
        }
    };
    let ((), body) = tokio::join!(writer, read_answer(&mut stream));
    assert!(body == bytes);
    assert_eq!(server.stats.bytes(), total);
}

#[tokio::test]
async fn an_aborted_download_is_reported_and_leaves_no_mapping() {
    let file = zeros(64 << 20);
    let (sender, mut ends) = mpsc::unbounded_channel::<BodyEnd>();
    let server = start(Limits::default(), move |_| {
        let sender = sender.clone();
        answer(Body::file(file.clone(), 0..64 << 20).on_end(move |end| sender.send(end).unwrap()))
    })
    .await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut some = [0; 10_000];
    stream.read_exact(&mut some).await.unwrap();
    assert_eq!(server.stats.mappings(), 1);
    drop(stream);
    let end = timeout(Duration::from_secs(5), ends.recv()).await.unwrap().unwrap();
    assert_eq!(end.outcome, BodyOutcome::Aborted);
    assert!(end.bytes > 10_000 && end.bytes < 64 << 20, "{end:?}");
    for _ in 0..100 {
        if server.stats.mappings() == 0 {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("a mapping is left");
}

#[tokio::test]
async fn an_idle_connection_holds_no_mapping() {
    let server = serving(on_disk(&content(1 << 20))).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(get(&(0..1 << 20)).as_bytes()).await.unwrap();
    read_answer(&mut stream).await;
    sleep(Duration::from_millis(50)).await;
    assert_eq!(server.stats.mappings(), 0);
}

#[tokio::test]
async fn a_file_that_became_shorter_breaks_the_answer_and_not_the_process() {
    let file = on_disk(&content(1 << 20));
    file.0.set_len(700_000).unwrap();
    let server = serving(file).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(get(&(0..1 << 20)).as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes)).await.expect("the connection ends");
    assert!(bytes.len() < 1 << 20);
}

#[tokio::test]
async fn pages_that_are_not_in_memory_are_read_first() {
    let bytes = content(4 << 20);
    let file = on_disk(&bytes);
    file.0.sync_all().unwrap();
    rustix::fs::fadvise(&*file.0, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let cold = residency(&file.0, &(0..4 << 20)).unwrap() == Residency::Absent;
    let server = serving(file.clone()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(get(&(0..4 << 20)).as_bytes()).await.unwrap();
    assert!(read_answer(&mut stream).await == bytes);
    assert_eq!(server.stats.bytes(), 4 << 20);
    // A file system in memory has nothing to drop.
    assert_eq!(cold, file.1.load(Ordering::Relaxed) > 0);
}
