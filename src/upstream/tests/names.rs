use super::*;
use crate::config::{CredentialSettings, Limits};
use crate::telemetry::Metrics;
use crate::upstream::testing::{Server, environment, reply, settings};
use crate::upstream::transport::network::Network;
use crate::upstream::transport::resolve::Resolver;
use parking_lot::Mutex;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::time::Instant;

const WELL: u8 = 0;
const GONE: u8 = 1;
const HANGS: u8 = 2;

/// A registry under a name, and the state of the name servers that know it.
async fn named() -> (Server, Upstream, Arc<AtomicU8>, mpsc::Sender<()>) {
    // Each connection carries one answer, so that the name is looked up for every request.
    let server = Server::start(|_| reply(200, &[("content-type", OCI), ("connection", "close")], MANIFEST)).await;
    let state = Arc::new(AtomicU8::new(WELL));
    let (now, (release, released)) = (Arc::clone(&state), mpsc::channel::<()>());
    let released = Mutex::new(released);
    let resolver = Resolver::with(move |_| match now.load(Ordering::SeqCst) {
        GONE => Err(io::Error::other("Temporary failure in name resolution")),
        HANGS => {
            // Until the test ends: its sender is gone then.
            let _ = released.lock().recv();
            Err(io::Error::other("timed out"))
        }
        _ => Ok(vec![([127, 0, 0, 1], 0).into()]),
    });
    let mut settings =
        settings(&format!("http://registry.invalid:{}", server.address.port()), CredentialSettings::Anonymous);
    settings.connect_timeout = Duration::from_millis(300);
    let metrics = Arc::new(Metrics::new());
    let made = Upstream::in_network(&settings, &Limits::default(), metrics, &environment(), &Network::of(resolver));
    (server, made.unwrap(), state, release)
}

#[tokio::test]
async fn a_name_that_is_gone_is_unreachable_and_found_again_without_a_restart() {
    let (_server, upstream, state, _release) = named().await;
    manifest(&upstream, "a").await.unwrap();
    state.store(GONE, Ordering::SeqCst);
    for _ in 0..5 {
        let error = manifest(&upstream, "a").await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Unreachable);
        let text = error.to_string();
        assert!(text.contains("registry.invalid") && text.contains("name resolution"), "{text}");
    }
    state.store(WELL, Ordering::SeqCst);
    let deadline = Instant::now() + Duration::from_secs(10);
    while manifest(&upstream, "a").await.is_err() {
        assert!(Instant::now() < deadline, "it is not found again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_servers_that_hang_cost_connect_timeout_and_hold_one_thread() {
    let (_server, upstream, state, release) = named().await;
    state.store(HANGS, Ordering::SeqCst);
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let upstream = upstream.clone();
            tokio::spawn(async move { manifest(&upstream, "a").await.map(drop) })
        })
        .collect();
    for one in asking {
        let error = one.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Timeout);
        assert!(error.to_string().contains("check name"), "{error}");
    }
    // Whoever needs a thread that may block gets one, and nobody waits for that host any more.
    let begun = Instant::now();
    tokio::task::spawn_blocking(|| ()).await.unwrap();
    manifest(&upstream, "a").await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_millis(250), "{:?}", begun.elapsed());
    drop(release);
}
