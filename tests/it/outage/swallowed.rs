//! Connections that are accepted and never answered, while new ones would be: what was asked on them is asked again.

use crate::harness::simulator::Options;
use crate::harness::{Acr, Larder, Setup, until_async};
use bytes::Bytes;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// A line to `target`. Connections that are there, or come, while it is told to swallow never carry a byte again and never end.
async fn line(target: String) -> (String, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (swallows, seen) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (target, mut seen) = (target.clone(), seen.clone());
            tokio::spawn(async move {
                let swallowed = async { drop(seen.wait_for(|now| *now).await) };
                let carried = async {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
                };
                tokio::select! {
                    biased;
                    () = swallowed => {}
                    () = carried => return,
                }
                sleep(Duration::from_secs(600)).await;
                drop(near);
            });
        }
    });
    (url, swallows)
}

fn push(acr: &Acr, repository: &str, tag: &str, content: &str) -> (String, String) {
    let content = Bytes::from(content.to_owned());
    let pushed = acr.push_artifact(repository, tag, &[("x", "text/plain", content)]);
    (pushed.digest.clone(), pushed.layers[0].clone())
}

async fn start(acr: &Acr) -> (Larder, watch::Sender<bool>) {
    let (url, swallows) = line(acr.host()).await;
    // Of a long first_byte_timeout nothing is noticed.
    let larder = Setup::at(&url).password("ci", "pw").tag_ttl(Duration::from_secs(1)).start().await;
    (larder, swallows)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_that_moved_while_upstream_hung_is_seen_soon_after() {
    let acr = Acr::start(Options::private("ci", "pw")).await;
    push(&acr, "a/b", "v1", "old");
    let (larder, swallows) = start(&acr).await;
    let get = || larder.get("/v2/a/b/manifests/v1");
    assert_eq!(get().await.status, 200);
    sleep(Duration::from_millis(1100)).await;
    swallows.send_replace(true);
    let (moved, _) = push(&acr, "a/b", "v1", "new");
    let stale = get().await;
    assert!(stale.cache_status().ends_with("detail=stale"), "{}", stale.cache_status());
    sleep(Duration::from_millis(900)).await;
    swallows.send_replace(false);
    let recovered = Instant::now();
    until_async("the moved tag is seen", async || get().await.header("docker-content-digest") == Some(moved.as_str()))
        .await;
    assert!(recovered.elapsed() < Duration::from_secs(3), "{:?}", recovered.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_waits_while_upstream_hangs_is_answered_soon_after() {
    let acr = Acr::start(Options::private("ci", "pw")).await;
    let (_, blob) = push(&acr, "a/b", "v1", "content");
    push(&acr, "c/d", "v1", "other content");
    let (larder, swallows) = start(&acr).await;
    // A token, so that the questions themselves are swallowed; `c/d` has to get one first.
    assert_eq!(larder.get("/v2/a/b/manifests/v1").await.status, 200);
    swallows.send_replace(true);
    let asked = Instant::now();
    let questions = [
        ("GET", "/v2/c/d/manifests/v1".to_owned()),
        ("GET", "/v2/a/b/tags/list".to_owned()),
        ("HEAD", format!("/v2/a/b/blobs/{blob}")),
        ("GET", format!("/v2/a/b/blobs/{blob}")),
    ];
    let calls: Vec<_> =
        questions.iter().map(|(method, target)| tokio::spawn(larder.call(method, target).send())).collect();
    sleep(Duration::from_secs(2)).await;
    swallows.send_replace(false);
    for (call, (method, target)) in calls.into_iter().zip(&questions) {
        assert_eq!(call.await.unwrap().status, 200, "{method} {target}");
        // Asked again at 1 s, in vain, and at 3 s; with a token that came first, a little later.
        assert!(asked.elapsed() < Duration::from_secs(5), "{method} {target} took {:?}", asked.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_connections_that_a_firewall_forgot_cost_a_second() {
    let acr = Acr::start(Options::private("ci", "pw")).await;
    for tag in ["v1", "v2", "v3"] {
        push(&acr, "a/b", tag, tag);
    }
    let (larder, swallows) = start(&acr).await;
    assert_eq!(larder.get("/v2/a/b/manifests/v1").await.status, 200);
    swallows.send_replace(true);
    // All connections learn it before the line carries again.
    sleep(Duration::from_millis(200)).await;
    swallows.send_replace(false);
    for (tag, limit) in [("v2", 2500), ("v3", 700)] {
        let asked = Instant::now();
        assert_eq!(larder.get(&format!("/v2/a/b/manifests/{tag}")).await.status, 200);
        assert!(asked.elapsed() < Duration::from_millis(limit), "{tag} took {:?}", asked.elapsed());
    }
}
