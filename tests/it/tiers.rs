//! Larders behind larders: one of a node asks one of a site, which asks the registry.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::harness::simulator::{Options, samples};
use crate::harness::{Acr, Answer, Larder, Setup, until, until_async};
use bytes::Bytes;
use larder::config::{AccessRule, Listen, Right};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const MIB: usize = 1 << 20;
const TAG: &str = "/v2/app/manifests/v1";
const HOUR: Duration = Duration::from_secs(3600);

/// A larder whose upstream is this one.
fn behind(parent: &Larder) -> Setup {
    Setup::at(&format!("http://{}", parent.address))
}

fn push(acr: &Acr, content: &'static str) -> String {
    let pushed = acr.push_artifact("app", "v1", &[("x", "text/plain", Bytes::from_static(content.as_bytes()))]);
    pushed.digest
}

fn digest(answer: &Answer) -> &str {
    answer.header("docker-content-digest").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_of_three_tiers_cost_the_registry_one_download() {
    let acr = Acr::start(Options::public()).await;
    let content = samples::incompressible(3, 4 * MIB);
    let blob = acr.push_blob("app", content.clone());
    acr.push_artifact("app", "v1", &[("x", "text/plain", Bytes::from_static(b"x"))]);
    let site = Setup::of(&acr).start().await;
    let room = behind(&site).start().await;
    let nodes = [Arc::new(behind(&room).start().await), Arc::new(behind(&room).start().await)];
    let target = format!("/v2/app/blobs/{blob}");
    let clients: Vec<_> = (0..200)
        .map(|number: usize| {
            let (node, target) = (Arc::clone(&nodes[number % 2]), target.clone());
            tokio::spawn(async move {
                let manifest = node.get(TAG).await;
                let (length, digest, end) = node.call("GET", &target).open().await.hashed().await;
                (manifest.status.as_u16(), length, digest, end)
            })
        })
        .collect();
    for client in clients {
        assert_eq!(client.await.unwrap(), (200, content.len() as u64, blob.clone(), Ok(())));
    }
    assert_eq!(acr.downloads(), 1);
    assert_eq!(acr.manifest_requests("GET"), 1);
}

/// An address that nobody listens on at this moment.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Larders at these addresses, each of which asks the next one, and the last one the first.
async fn circle(addresses: &[SocketAddr]) -> Vec<Larder> {
    let mut larders = Vec::new();
    for (place, address) in addresses.iter().enumerate() {
        let next = addresses[(place + 1) % addresses.len()];
        let setup = Setup::at(&format!("http://{next}"));
        larders.push(setup.with(|settings| settings.server.listen = vec![Listen::Tcp(*address)]).start().await);
    }
    larders
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circle_is_said_to_be_one_at_once() {
    // One that leads to itself does not even start.
    for count in [2, 3] {
        let addresses: Vec<_> = (0..count).map(|_| free_address()).collect();
        let larders = circle(&addresses).await;
        let blob = format!("/v2/app/blobs/sha256:{}", "a".repeat(64));
        let targets = [TAG, &blob, "/v2/app/tags/list", "/v2/_catalog", "/v2/myacr.azurecr.io/_catalog"];
        let begun = Instant::now();
        // All at once, and everywhere: what is asked twice is one question, whoever has begun it.
        let calls: Vec<_> = (0..60)
            .map(|number: usize| {
                let target = targets[number % targets.len()];
                (target, tokio::spawn(larders[number / targets.len() % larders.len()].call("GET", target).send()))
            })
            .collect();
        for (target, call) in calls {
            let answer = call.await.unwrap();
            let (status, _, message) = answer.error();
            assert!((400..600).contains(&status), "{target}: {status}");
            assert!(message.contains("in a circle"), "{target}: {message}");
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "{count} larders took {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_parent_could_not_confirm_is_not_fresh_and_says_why() {
    let acr = Acr::start(Options::public()).await;
    let old = push(&acr, "old");
    let parent = Setup::of(&acr).tag_ttl(Duration::from_secs(1)).start().await;
    let warm = behind(&parent).tag_ttl(Duration::from_secs(1)).start().await;
    let list = "/v2/app/tags/list";
    for target in [TAG, list] {
        assert_eq!(warm.get(target).await.status, 200);
    }
    acr.stop_listening();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let cold = behind(&parent).tag_ttl(HOUR).start().await;
    for larder in [&cold, &warm] {
        for target in [TAG, list] {
            for _ in 0..3 {
                let answer = larder.get(target).await;
                assert_eq!(answer.status, 200, "{target}");
                assert!(answer.cache_status().ends_with("detail=stale"), "{target}: {}", answer.cache_status());
                let warning = answer.header("warning").unwrap();
                assert!(warning.contains(&acr.host()), "the cause is named, not only the parent: {warning}");
                assert_eq!(warning.matches("not confirmed by upstream").count(), 1, "{warning}");
            }
        }
    }
    acr.resume_listening();
    let new = push(&acr, "new");
    for larder in [&cold, &warm] {
        until_async("the moved tag is seen", async || digest(&larder.get(TAG).await) == new).await;
    }
    assert_ne!(old, new);
    until_async("it is fresh again", async || cold.get(TAG).await.cache_status().starts_with("larder; hit")).await;
}

#[tokio::test]
async fn the_parents_word_comes_before_ours() {
    let acr = Acr::start(Options::public()).await;
    push(&acr, "content");
    let blob = acr.push_blob("app", samples::incompressible(5, MIB));
    let parent = Setup::of(&acr).tag_ttl(HOUR).start().await;
    let child = behind(&parent).tag_ttl(Duration::ZERO).start().await;
    let blob = format!("/v2/app/blobs/{blob}");
    let said = async |target: &str| child.get(target).await.cache_status().to_owned();
    assert_eq!(said(TAG).await, "larder; fwd=miss; stored; ttl=3600, larder; fwd=miss; stored; ttl=0");
    assert!(said(TAG).await.starts_with("larder; hit; ttl=3"), "revalidated at the parent");
    assert!(said(TAG).await.ends_with(", larder; fwd=stale; ttl=0; detail=revalidated"));
    assert_eq!(said("/v2/app/tags/list").await, "larder; fwd=miss; stored; ttl=3600, larder; fwd=miss; stored; ttl=0");
    assert_eq!(said(&blob).await, "larder; fwd=miss; stored, larder; fwd=miss; stored");
    until_async("it is stored here", async || said(&blob).await == "larder; hit").await;
    // Of all that the child asked, the registry has heard the first question only.
    assert_eq!((acr.manifest_requests("HEAD"), acr.manifest_requests("GET"), acr.downloads()), (0, 1, 1));
}

#[tokio::test]
async fn a_range_of_what_nobody_has_passes_as_a_range() {
    let acr = Acr::start(Options::public()).await;
    let content = samples::incompressible(7, 16 * MIB);
    let blob = acr.push_blob("app", content.clone());
    acr.knobs().turn(|knobs| knobs.connection_rate = Some(4 * MIB as u64));
    let parent = Setup::of(&acr).start().await;
    let child = behind(&parent).start().await;
    let begun = Instant::now();
    let target = format!("/v2/app/blobs/{blob}");
    let part = child.call("GET", &target).range("bytes=15000000-15000999").send().await;
    assert_eq!(part.status, 206);
    assert!(part.body == content[15_000_000..15_001_000]);
    assert!(begun.elapsed() < Duration::from_secs(2), "all of it takes four: {:?}", begun.elapsed());
    let ranges = acr.count(|seen| seen.range.as_deref() == Some("bytes=15000000-15000999") && seen.is_blob_body());
    assert_eq!(ranges, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_dies_is_an_outage_and_a_second_one_takes_over_in_the_middle() {
    let acr = Acr::start(Options::public()).await;
    push(&acr, "content");
    let content = samples::incompressible(9, 16 * MIB);
    let blob = acr.push_blob("app", content.clone());
    acr.knobs().turn(|knobs| knobs.connection_rate = Some(8 * MIB as u64));
    let (first, second) = (Setup::of(&acr).start().await, Setup::of(&acr).start().await);
    let url = format!("http://{}", second.address).parse().unwrap();
    let child = behind(&first).tag_ttl(Duration::ZERO).upstream(|upstream| upstream.mirrors = vec![url]).start().await;
    let lonely = behind(&first).tag_ttl(Duration::ZERO).start().await;
    assert_eq!(lonely.get(TAG).await.status, 200);
    let mut download = child.call("GET", &format!("/v2/app/blobs/{blob}")).open().await;
    download.at_least(2 * MIB).await;
    drop(first.stop().await);
    assert_eq!(download.hashed().await.1, blob, "the second parent has the rest");
    until("it is stored", || child.stores(&blob)).await;
    let fresh = child.get(TAG).await;
    assert_eq!((fresh.status.as_u16(), fresh.header("warning")), (200, None), "{}", fresh.cache_status());
    let stale = lonely.get(TAG).await;
    assert!(stale.status == 200 && stale.header("warning").is_some(), "{}", stale.cache_status());
}

#[tokio::test]
async fn what_the_parent_refuses_is_refused_and_a_namespace_is_the_childs_own() {
    let acr = Acr::start(Options::public()).await;
    push(&acr, "content");
    acr.push_artifact("secret/app", "v1", &[("x", "text/plain", Bytes::from_static(b"x"))]);
    let rule = |repositories: &str, networks: Option<&str>| AccessRule {
        users: None,
        networks: networks.map(|network| vec![network.parse().unwrap()]),
        repositories: vec![larder::oci::RepositoryPattern::new(repositories)],
        allow: vec![Right::Pull],
    };
    let parent = Setup::of(&acr).with(|settings| {
        settings.access.rules = vec![rule("myacr.azurecr.io/secret/**", Some("10.0.0.0/8"))];
    });
    let parent = parent.start().await;
    let child = behind(&parent).start().await;
    let (status, code, message) = child.get("/v2/secret/app/manifests/v1").await.error();
    assert_eq!((status, code.as_str()), (403, "DENIED"), "{message}");
    let scoped = child.get(&format!("{TAG}?ns=myacr.azurecr.io")).await;
    assert_eq!((scoped.status.as_u16(), scoped.header("oci-namespace")), (200, Some("myacr.azurecr.io")));
}
