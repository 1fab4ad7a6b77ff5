//! HTTP/2 with prior knowledge at the socket: its streams, its windows, its pings.

use super::body::BodyOutcome;
use super::connection::MAX_STREAMS;
use super::connection_tests::{Drip, answer, connect, quick, start};
use crate::config::Limits;
use crate::server::Body;
use ::http::{Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

#[tokio::test]
async fn http2_is_spoken_with_prior_knowledge() {
    let server = start(Limits::default(), |_| answer(Body::stream(Some(2048), Drip(None, 2)))).await;
    let io = hyper_util::rt::TokioIo::new(connect(server.address).await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("http://x/").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.version(), ::http::Version::HTTP_2);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 2048);
    server.trigger.begin(Duration::from_secs(20));
    timeout(Duration::from_secs(3), server.served).await.expect("an idle connection does not keep it").unwrap();
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_http2_client_that_opens_no_window_is_closed() {
    for window in [0, 100_000] {
        let (sender, mut ends) = mpsc::unbounded_channel();
        let server = start(quick(), move |_| {
            let sender = sender.clone();
            answer(Body::stream(None, Drip(None, usize::MAX)).on_end(move |end| sender.send(end).unwrap()))
        })
        .await;
        let io = hyper_util::rt::TokioIo::new(connect(server.address).await);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut client, connection) = hyper::client::conn::http2::Builder::new(executor)
            .initial_stream_window_size(window)
            .handshake(io)
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::get("http://x/").body(Empty::<Bytes>::new()).unwrap();
        let response = client.send_request(request).await.unwrap();
        let end = timeout(Duration::from_secs(5), ends.recv()).await.expect("closed").unwrap();
        assert_eq!(end.outcome, BodyOutcome::Aborted);
        drop(response);
        connection.abort();
    }
}

#[tokio::test]
async fn an_http2_connection_has_a_bound_on_streams_and_the_next_one_waits() {
    const STREAMS: usize = MAX_STREAMS as usize;
    let (sender, mut asked) = mpsc::unbounded_channel();
    let server = start(Limits::default(), move |_| {
        let (answer, wait) = tokio::sync::oneshot::channel::<()>();
        sender.send(answer).unwrap();
        Box::pin(async move {
            let _ = wait.await;
            Response::new(Body::full(Bytes::from_static(b"hello")))
        })
    })
    .await;
    let io = hyper_util::rt::TokioIo::new(connect(server.address).await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut client, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut answers = tokio::task::JoinSet::new();
    let mut waiting = Vec::new();
    for number in 0..=STREAMS {
        client.ready().await.unwrap();
        answers.spawn(client.send_request(Request::get("http://x/").body(Empty::<Bytes>::new()).unwrap()));
        if number < STREAMS {
            waiting.push(timeout(Duration::from_secs(5), asked.recv()).await.unwrap().unwrap());
        }
    }
    assert!(timeout(Duration::from_millis(300), asked.recv()).await.is_err(), "one more than there may be");
    waiting.pop().unwrap().send(()).unwrap();
    waiting.push(timeout(Duration::from_secs(5), asked.recv()).await.expect("its turn has come").unwrap());
    drop(waiting);
    while let Some(answer) = answers.join_next().await {
        assert_eq!(answer.unwrap().unwrap().status(), 200);
    }
    connection.abort();
}

#[tokio::test]
async fn an_http2_client_that_answers_no_ping_is_gone_after_fifty_seconds() {
    // A preface, empty settings, and the head of `GET http://x/`.
    const HEAD: &[u8] =
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01x";
    let (sender, mut asked) = mpsc::unbounded_channel();
    let server = start(Limits::default(), move |_| {
        sender.send(()).unwrap();
        Box::pin(std::future::pending())
    })
    .await;
    // The connection's time begins before the clock stands still.
    let begun = Instant::now();
    let mut stream = connect(server.address).await;
    stream.write_all(HEAD).await.unwrap();
    timeout(Duration::from_secs(5), asked.recv()).await.expect("the request has arrived").unwrap();
    tokio::time::pause();
    // Settings and the ping, and then the end.
    let _ = stream.read_to_end(&mut Vec::new()).await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(50) && took < Duration::from_secs(55), "{took:?}");
}
