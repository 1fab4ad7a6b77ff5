//! What clients meet at the socket: patience, bounds, the drain.

use crate::config::{Limits, Listen};
use crate::server::{Body, BodyError, BodyOutcome, Chunks, Drain, DrainTrigger, Handler, Peer, SendfileStats, Server};
use ::http::{Request, Response};
use bytes::Bytes;
use hyper::body::Incoming;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, interval, sleep, timeout};

pub(in crate::server) type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A handler from a closure.
#[derive(Clone)]
pub(in crate::server) struct Fun<F>(pub(in crate::server) F);

impl<F: Fn(Request<Incoming>) -> Answer + Clone + Send + Sync + 'static> Handler for Fun<F> {
    fn handle(&self, request: Request<Incoming>, _: Arc<Peer>) -> impl Future<Output = Response<Body>> + Send {
        (self.0)(request)
    }
}

pub(in crate::server) struct Running {
    pub(in crate::server) address: SocketAddr,
    pub(in crate::server) trigger: DrainTrigger,
    pub(in crate::server) stats: Arc<SendfileStats>,
    pub(in crate::server) served: JoinHandle<()>,
}

pub(in crate::server) async fn start(
    limits: Limits,
    handler: impl Fn(Request<Incoming>) -> Answer + Clone + Send + Sync + 'static,
) -> Running {
    let server = Server::bind(&[Listen::Tcp("127.0.0.1:0".parse().unwrap())], &limits).await.unwrap();
    let Listen::Tcp(address) = server.addresses()[0].clone() else { panic!("a TCP address was bound") };
    let stats = server.sendfile_stats();
    let (trigger, drain) = Drain::new();
    let task = tokio::spawn(server.serve(Fun(handler), drain));
    Running { address, trigger, stats, served: task }
}

pub(in crate::server) fn answer(body: Body) -> Answer {
    Box::pin(async move { Response::new(body) })
}

fn hello(_: Request<Incoming>) -> Answer {
    answer(Body::full(Bytes::from_static(b"hello")))
}

pub(in crate::server) fn quick() -> Limits {
    let short = Duration::from_millis(400);
    Limits { header_timeout: short, stall_timeout: short, ..Limits::default() }
}

/// Endless bytes, or one piece of a kilobyte per tick.
pub(in crate::server) struct Drip(pub(in crate::server) Option<Interval>, pub(in crate::server) usize);

impl Chunks for Drip {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if let Some(interval) = &mut self.0 {
            std::task::ready!(interval.poll_tick(cx));
        }
        if self.1 == 0 {
            return Poll::Ready(None);
        }
        self.1 -= 1;
        Poll::Ready(Some(Ok(Bytes::from_static(&[b'x'; 1024]))))
    }
}

fn drip(count: usize) -> Drip {
    Drip(Some(interval(Duration::from_millis(50))), count)
}

pub(in crate::server) async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Everything until the connection ends.
async fn rest(stream: &mut TcpStream) -> (Vec<u8>, std::io::Result<()>) {
    let mut bytes = Vec::new();
    let result = timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await.expect("the connection ends");
    (bytes, result.map(drop))
}

async fn ask(stream: &mut TcpStream, request: &str) {
    stream.write_all(request.as_bytes()).await.unwrap();
}

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn a_tls_hello_on_the_plain_port_gets_a_plain_400_at_once() {
    let server = start(Limits::default(), hello).await;
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    assert_eq!(hello[0], 0x16, "a handshake record");
    let mut stream = connect(server.address).await;
    stream.write_all(&hello).await.unwrap();
    let began = Instant::now();
    let (bytes, end) = rest(&mut stream).await;
    assert!(began.elapsed() < Duration::from_millis(300));
    assert!(bytes.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&bytes));
    end.unwrap();
}

#[tokio::test]
async fn silence_half_a_head_and_half_a_preface_are_closed_in_time() {
    let server = start(quick(), hello).await;
    for sent in
        ["", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\n", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut stream = connect(server.address).await;
        ask(&mut stream, sent).await;
        let began = Instant::now();
        let _ = rest(&mut stream).await;
        assert!(began.elapsed() > Duration::from_millis(300), "{sent:?} has its time");
        assert!(began.elapsed() < Duration::from_secs(3), "{sent:?} is closed");
    }
}

#[tokio::test]
async fn a_head_that_drips_is_closed_in_time() {
    let server = start(quick(), hello).await;
    let mut stream = connect(server.address).await;
    let began = Instant::now();
    while stream.write_all(b"G").await.is_ok() && began.elapsed() < Duration::from_secs(5) {
        sleep(Duration::from_millis(50)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn an_idle_connection_outlives_the_header_timeout() {
    let server = start(quick(), hello).await;
    let mut stream = connect(server.address).await;
    for _ in 0..2 {
        ask(&mut stream, GET).await;
        let mut head = [0; 512];
        let read = stream.read(&mut head).await.unwrap();
        assert!(head[..read].ends_with(b"hello"));
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn heads_are_bounded() {
    let server = start(Limits::default(), hello).await;
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(101));
    let large = format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {}\r\n\r\n", "c".repeat(80 << 10));
    for head in [many, large] {
        let mut stream = connect(server.address).await;
        ask(&mut stream, &head).await;
        let (bytes, _) = rest(&mut stream).await;
        assert!(bytes.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&bytes));
    }
    let fits = format!("GET / HTTP/1.1\r\nHost: x\r\nRange: {}\r\nConnection: close\r\n\r\n", "r".repeat(20 << 10));
    let mut stream = connect(server.address).await;
    ask(&mut stream, &fits).await;
    assert!(rest(&mut stream).await.0.starts_with(b"HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_closed_and_its_answer_reported_aborted() {
    for version in ["1.1", "1.0"] {
        let (sender, mut ends) = mpsc::unbounded_channel();
        let server = start(quick(), move |_| {
            let sender = sender.clone();
            answer(Body::stream(None, Drip(None, usize::MAX)).on_end(move |end| sender.send(end).unwrap()))
        })
        .await;
        let mut stream = connect(server.address).await;
        ask(&mut stream, &format!("GET / HTTP/{version}\r\nHost: x\r\n\r\n")).await;
        let end = timeout(Duration::from_secs(5), ends.recv()).await.expect("closed").unwrap();
        assert_eq!(end.outcome, BodyOutcome::Aborted);
    }
}

#[tokio::test]
async fn a_slow_client_that_takes_something_is_not_closed() {
    let server = start(quick(), |_| answer(Body::stream(None, Drip(None, 2000)))).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    ask(&mut stream, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let (began, mut total, mut buffer) = (Instant::now(), 0, vec![0; 64 << 10]);
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => break,
            read => total += read,
        }
        if began.elapsed() < Duration::from_millis(1500) {
            sleep(Duration::from_millis(100)).await;
        }
    }
    assert!(began.elapsed() > Duration::from_millis(1200) && total > 2000 * 1024);
}

#[tokio::test]
async fn a_refused_body_is_not_waited_for_and_its_answer_arrives() {
    let server = start(Limits::default(), hello).await;
    let mut stream = connect(server.address).await;
    ask(&mut stream, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n").await;
    stream.write_all(&vec![0; 100_000]).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    // Still sending: a connection that was simply closed would be reset now, and a client that sends before it reads would fail.
    stream.write_all(&vec![0; 100_000]).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    let (bytes, _) = rest(&mut stream).await;
    assert!(bytes.ends_with(b"hello"), "{}", String::from_utf8_lossy(&bytes));
    assert!(stream.write_all(&[0; 1]).await.is_err() || began.elapsed() < Duration::from_secs(2));
    drop(stream);
    server.trigger.begin(Duration::from_secs(20));
    timeout(Duration::from_secs(3), server.served).await.expect("nothing is left").unwrap();
}

#[tokio::test]
async fn connections_are_bounded_and_the_next_one_waits_its_turn() {
    let server = start(Limits { connections: 1, ..Limits::default() }, hello).await;
    let mut first = connect(server.address).await;
    ask(&mut first, GET).await;
    let mut buffer = [0; 512];
    assert!(first.read(&mut buffer).await.unwrap() > 0);
    let mut second = connect(server.address).await;
    ask(&mut second, GET).await;
    assert!(timeout(Duration::from_millis(300), second.read(&mut buffer)).await.is_err());
    drop(first);
    let read = timeout(Duration::from_secs(5), second.read(&mut buffer)).await.expect("has its turn").unwrap();
    assert!(buffer[..read].ends_with(b"hello"));
}

/// Farms keep connections for later. The one that has had no request for longest makes room, and one at work never does.
#[tokio::test]
async fn a_connection_that_is_only_kept_gives_way_to_the_next_one() {
    let server = start(Limits { connections: 3, ..Limits::default() }, |request| match request.uri().path() {
        "/" => hello(request),
        _ => answer(Body::stream(None, drip(40))),
    })
    .await;
    let mut buffer = [0; 512];
    let mut working = connect(server.address).await;
    ask(&mut working, "GET /long HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(server.address).await;
        ask(&mut stream, GET).await;
        assert!(stream.read(&mut buffer).await.unwrap() > 0);
        kept.push(stream);
        sleep(Duration::from_millis(100)).await;
    }
    let mut next = connect(server.address).await;
    ask(&mut next, GET).await;
    let read = timeout(Duration::from_secs(5), next.read(&mut buffer)).await.expect("room was made").unwrap();
    assert!(buffer[..read].ends_with(b"hello"));
    let end = timeout(Duration::from_secs(5), kept[0].read(&mut buffer)).await.expect("the oldest has gone");
    assert!(matches!(end, Ok(0) | Err(_)));
    let (bytes, end) = rest(&mut working).await;
    assert!(end.is_ok() && bytes.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&bytes));
}

#[tokio::test]
async fn a_panic_in_a_handler_costs_its_connection_only() {
    let server = start(Limits::default(), |request| {
        assert!(request.uri().path() == "/", "a defect");
        hello(request)
    })
    .await;
    let mut stream = connect(server.address).await;
    ask(&mut stream, "GET /defect HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(rest(&mut stream).await.0.is_empty());
    let mut stream = connect(server.address).await;
    ask(&mut stream, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(rest(&mut stream).await.0.ends_with(b"hello"));
}

#[tokio::test]
async fn an_answer_without_a_length_that_is_cut_while_its_last_bytes_wait_looks_broken() {
    let whole = Bytes::from(vec![b'x'; 64 << 20]);
    let (sender, mut ends) = mpsc::unbounded_channel();
    let server = start(Limits::default(), move |_| {
        let sender = sender.clone();
        let once = Once(Some(whole.clone()));
        answer(Body::stream(None, once).on_end(move |end| sender.send(end).unwrap()))
    })
    .await;
    let mut stream = connect(server.address).await;
    ask(&mut stream, "GET / HTTP/1.0\r\n\r\n").await;
    sleep(Duration::from_millis(200)).await;
    server.trigger.cut();
    server.served.await.unwrap();
    ends.recv().await.unwrap();
    assert!(rest(&mut stream).await.1.is_err(), "a plain end would pass for the whole answer");
}

/// All bytes in one piece.
struct Once(Option<Bytes>);

impl Chunks for Once {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        Poll::Ready(self.0.take().map(Ok))
    }
}

/// Begins a drain of `within`, and says how long serving went on.
async fn drained(server: Running, within: Duration) -> Duration {
    let began = Instant::now();
    server.trigger.begin(within);
    timeout(within + Duration::from_secs(5), server.served).await.expect("a drain ends").unwrap();
    began.elapsed()
}

#[tokio::test]
async fn a_drain_does_not_wait_for_clients_that_ask_nothing() {
    for sent in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", GET] {
        let server = start(Limits::default(), hello).await;
        let mut stream = connect(server.address).await;
        ask(&mut stream, sent).await;
        sleep(Duration::from_millis(100)).await;
        let took = drained(server, Duration::from_secs(20)).await;
        assert!(took < Duration::from_secs(2), "{sent:?} took {took:?}");
    }
}

#[tokio::test]
async fn a_drain_accepts_nothing_and_lets_a_download_finish() {
    let server = start(Limits::default(), |_| answer(Body::stream(Some(10 * 1024), drip(10)))).await;
    let address = server.address;
    let mut stream = connect(address).await;
    ask(&mut stream, GET).await;
    sleep(Duration::from_millis(100)).await;
    let (took, (bytes, end)) = tokio::join!(drained(server, Duration::from_secs(20)), rest(&mut stream));
    end.unwrap();
    assert!(bytes.ends_with(&[b'x'; 10 * 1024]));
    assert!(took > Duration::from_millis(200) && took < Duration::from_secs(3), "{took:?}");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn an_answer_that_begins_in_a_drain_says_that_the_connection_closes() {
    let server = start(Limits::default(), |_| {
        Box::pin(async {
            sleep(Duration::from_millis(300)).await;
            Response::new(Body::empty())
        })
    })
    .await;
    let mut stream = connect(server.address).await;
    ask(&mut stream, GET).await;
    sleep(Duration::from_millis(100)).await;
    let (_, (bytes, _)) = tokio::join!(drained(server, Duration::from_secs(20)), rest(&mut stream));
    let head = String::from_utf8(bytes).unwrap().to_lowercase();
    assert!(head.contains("connection: close"), "{head}");
}

/// A client that has connected just before has its request on its way: a reset would look like an error of larder's.
#[tokio::test]
async fn a_request_that_follows_its_connection_into_a_drain_is_answered() {
    let server = start(Limits::default(), hello).await;
    let mut stream = connect(server.address).await;
    sleep(Duration::from_millis(100)).await;
    server.trigger.begin(Duration::from_secs(20));
    sleep(Duration::from_millis(100)).await;
    ask(&mut stream, GET).await;
    let (bytes, end) = rest(&mut stream).await;
    end.unwrap();
    let head = String::from_utf8(bytes).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    timeout(Duration::from_secs(5), server.served).await.expect("a drain ends").unwrap();
}

#[tokio::test]
async fn a_download_beyond_the_deadline_is_cut_and_never_looks_complete() {
    for (request, length) in [(GET, Some(1 << 20)), (GET, None), ("GET / HTTP/1.0\r\n\r\n", None)] {
        let server = start(Limits::default(), move |_| answer(Body::stream(length, drip(1024)))).await;
        let mut stream = connect(server.address).await;
        ask(&mut stream, request).await;
        sleep(Duration::from_millis(100)).await;
        let (took, (bytes, end)) = tokio::join!(drained(server, Duration::from_millis(500)), rest(&mut stream));
        assert!(took < Duration::from_secs(2), "{took:?}");
        let text = String::from_utf8(bytes).unwrap();
        let broken = match length {
            Some(length) => text.contains("content-length") && (text.len() as u64) < length,
            None if request == GET => text.contains("chunked") && !text.ends_with("0\r\n\r\n"),
            None => end.is_err(),
        };
        assert!(text.starts_with("HTTP/1.") && broken, "{request:?} {length:?}");
    }
}

#[tokio::test]
async fn a_source_that_fails_breaks_an_answer_without_a_length() {
    struct Failing(bool);
    impl Chunks for Failing {
        fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
            let first = std::mem::replace(&mut self.0, false);
            let failed = Err(BodyError::Source("upstream went away".into()));
            Poll::Ready(Some(if first { Ok(Bytes::from_static(b"begin")) } else { failed }))
        }
    }
    let server = start(Limits::default(), |_| answer(Body::stream(None, Failing(true)))).await;
    let mut stream = connect(server.address).await;
    ask(&mut stream, "GET / HTTP/1.0\r\n\r\n").await;
    let (_, end) = rest(&mut stream).await;
    assert!(end.is_err(), "a plain end would pass for the whole answer");
}
