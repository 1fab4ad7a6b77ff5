//! Clients at several addresses of this machine, and what each has of the connections that may be open.

use super::connection_tests::{Drip, Running, answer, start};
use crate::config::Limits;
use crate::server::Body;
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

const SOON: Duration = Duration::from_millis(500);

/// One that may have 16 connections; what is asked for at `/long` never ends.
async fn sixteen() -> Running {
    start(Limits { connections: 16, ..Limits::default() }, |request| match request.uri().path() {
        "/" => answer(Body::full(Bytes::from_static(b"hello"))),
        _ => answer(Body::stream(None, Drip(Some(tokio::time::interval(Duration::from_millis(50))), usize::MAX))),
    })
    .await
}

async fn connect(server: SocketAddr, from: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, from], 0))).unwrap();
    socket.connect(server).await.unwrap()
}

/// A connection whose request has been sent.
async fn asking(server: SocketAddr, from: u8, path: &str) -> TcpStream {
    let mut stream = connect(server, from).await;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

async fn is_answered_within(stream: &mut TcpStream, within: Duration) -> bool {
    let mut buffer = [0; 512];
    matches!(timeout(within, stream.read(&mut buffer)).await, Ok(Ok(read)) if read > 0)
}

async fn several(server: SocketAddr, from: u8, path: &str, count: usize) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for number in 0..count {
        let mut stream = asking(server, from, path).await;
        assert!(is_answered_within(&mut stream, Duration::from_secs(5)).await, "{number} of 127.0.0.{from}");
        all.push(stream);
    }
    all
}

#[tokio::test]
async fn connections_that_one_client_only_keeps_give_way_at_once_to_each_that_has_none() {
    let server = sixteen().await;
    // None of them has been without a request for a second.
    let kept = several(server.address, 1, "/", 16).await;
    let began = Instant::now();
    let mut others = Vec::new();
    for from in 2..14 {
        let mut other = asking(server.address, from, "/long").await;
        assert!(is_answered_within(&mut other, SOON).await, "127.0.0.{from}");
        others.push(other);
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    drop(kept);
}

#[tokio::test]
async fn one_client_with_connections_that_do_not_end_keeps_no_other_out() {
    let server = sixteen().await;
    let busy = several(server.address, 1, "/long", 16).await;
    let mut more = Vec::new();
    // Far more than may wait: what nobody has a place for is closed.
    for _ in 0..64 {
        more.push(connect(server.address, 1).await);
    }
    for from in [2, 3] {
        assert!(is_answered_within(&mut asking(server.address, from, "/").await, SOON).await, "127.0.0.{from}");
    }
    sleep(SOON).await;
    let mut closed = 0;
    for stream in &mut more {
        closed += usize::from(timeout(Duration::from_millis(1), stream.read(&mut [0; 1])).await.is_ok());
    }
    assert!((40..64).contains(&closed), "{closed} of 64 were closed");
    drop(busy);
}

#[tokio::test]
async fn beside_others_a_client_has_three_quarters_and_its_own_kept_connections_give_way_to_its_next() {
    let server = sixteen().await;
    let mut busy = several(server.address, 1, "/long", 12).await;
    let other = several(server.address, 2, "/", 1).await;
    let mut thirteenth = asking(server.address, 1, "/").await;
    assert!(!is_answered_within(&mut thirteenth, Duration::from_millis(1_500)).await, "it has its share");
    let others = several(server.address, 2, "/", 3).await;
    assert!(!is_answered_within(&mut thirteenth, Duration::from_millis(1)).await, "nor does it take from others");
    busy.pop();
    assert!(is_answered_within(&mut thirteenth, SOON).await, "it was its turn");
    let mut next = asking(server.address, 1, "/").await;
    assert!(is_answered_within(&mut next, Duration::from_secs(3)).await, "its kept connection has made room");
    let gone = timeout(SOON, thirteenth.read(&mut [0; 512])).await;
    assert!(matches!(gone, Ok(Ok(0) | Err(_))), "{gone:?}");
    for mut kept in other.into_iter().chain(others) {
        assert!(!is_answered_within(&mut kept, Duration::from_millis(1)).await);
        kept.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(is_answered_within(&mut kept, SOON).await, "nobody else's was closed");
    }
}
