use super::harness::simulator::Options;
use super::harness::tls::{Authority, Dialer, get};
use super::harness::{Acr, Setup, raw};
use super::{TAG, blob, seed};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A client that reads nothing costs a bounded number of bytes, and gets the rest when it reads again.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_gets_all_of_it() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, content) = seed(&acr, 30_000_000);
    let authority = Authority::new("test");
    let larder = Setup::of(&acr).tls(&authority.issue(&["localhost"])).start().await;
    let path = blob(&artifact.layers[0]);
    let dialer = Dialer::trusting(&authority);
    for _ in 0..2 {
        let stream = dialer.connect(larder.address, "localhost").await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut body = sender.send_request(get("localhost", &path)).await.unwrap().into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        sleep(Duration::from_millis(500)).await;
        let rest = body.collect().await.unwrap().to_bytes();
        assert!([&first[..], &rest[..]].concat() == content);
    }
}

/// Many who never finish their handshake keep nobody out.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_not_finished_hold_nobody_up() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr, 100);
    let authority = Authority::new("test");
    let larder = Setup::of(&acr).tls(&authority.issue(&["localhost"])).start().await;
    let mut silent = Vec::new();
    for number in 0..200 {
        silent
            .push(raw::send(larder.address, if number % 2 == 0 { &b""[..] } else { &[0x16, 3, 1, 2, 0, 1, 0] }).await);
    }
    let began = Instant::now();
    let answer = Dialer::trusting(&authority).get(larder.address, "localhost", TAG).await.unwrap();
    assert_eq!(answer.body(), &artifact.manifest);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // They are closed when their time is over.
    let mut one = silent.swap_remove(1);
    raw::read_all(&mut one).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(15) && took > Duration::from_secs(5), "{took:?}");
}
