//! What an outage costs those who need nothing from upstream: nothing. Measured beside the same load with the upstream well, in
//! turns, so that both meet the same machine. `LARDER_OUTAGE_HITS=10000` asks for more in each of the rounds, and `--nocapture` shows
//! the figures.

use super::blackhole::Blackhole;
use crate::harness::simulator::{FaultAnswer, Options, PathClass};
use crate::harness::{Acr, Larder, OTHER_ALIAS, PATIENCE, Setup, until_async};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const REVALIDATE_WAIT: Duration = Duration::from_millis(400);
/// Workers that go on asking for tags whose time is over, and for what is not stored.
const EXPIRED: usize = 2;
const COLD: usize = 2;
const ROUNDS: usize = 3;
const HITS: usize = 100;
/// What the machine may add to a 99th percentile by itself.
const SLACK: Duration = Duration::from_millis(20);

/// How an outage begins.
type Begin = fn(&Acr);

fn outages() -> Vec<(&'static str, Begin)> {
    vec![
        ("connection refused", |acr| acr.stop_listening()),
        ("accepts and never answers", |acr| acr.knobs().turn(|k| k.login.hang = true)),
        ("packets vanish", |acr| acr.stop_listening()),
        ("503", |acr| acr.knobs().fail(PathClass::Login, FaultAnswer::empty(503))),
        ("429", |acr| acr.knobs().fail(PathClass::Manifests, FaultAnswer::throttled(2))),
        ("the firewall's 403", |acr| acr.knobs().turn(|k| k.firewall = true)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hits_are_as_fast_in_an_outage_as_without_one_from_the_first_on() {
    for (name, begin) in outages() {
        measure(name, begin).await;
    }
}

async fn measure(name: &'static str, begin: Begin) {
    let acr = Acr::start(Options::public()).await;
    acr.forgive();
    let artifact = acr.push_artifact("a/b", "v1", &[("x", "text/plain", Bytes::from(vec![7; 100_000]))]);
    let targets = ["/v2/a/b/manifests/v1".to_owned(), format!("/v2/a/b/blobs/{}", artifact.layers[0])];
    let larder = Arc::new(start(&acr).await);
    for target in &targets {
        assert_eq!(larder.get(target).await.status, 200);
    }
    let expired = format!("/v2/{OTHER_ALIAS}/a/b/manifests/v1");
    assert_eq!(larder.get(&expired).await.status, 200);
    let (mut well, mut away) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        well.push(round(&larder, &targets, &expired, None).await);
        begin(&acr);
        let hole = if name == "packets vanish" { Some(Blackhole::at(&acr.host()).await) } else { None };
        away.push(round(&larder, &targets, &expired, Some(name)).await);
        drop(hole);
        acr.knobs().reset();
        acr.resume_listening();
        until_async("it is well again", async || larder.get(&expired).await.header("warning").is_none()).await;
    }
    let (well, away) = (median(well), median(away));
    eprintln!("{name}: p99 of hits {away:?}, with the upstream well {well:?}");
    assert!(away <= well * 2 + SLACK, "{name}: p99 of hits {away:?}, with the upstream well {well:?}");
}

/// Tags of the first upstream are good for an hour, those of the second, at the same registry, never.
async fn start(acr: &Acr) -> Larder {
    let setup = Setup::of(acr).and(acr).tag_ttl(Duration::from_secs(3600)).with(|settings| {
        settings.upstreams[1].freshness.tag_ttl = Duration::ZERO;
        for upstream in &mut settings.upstreams {
            upstream.freshness.revalidate_wait = REVALIDATE_WAIT;
            upstream.freshness.negative_ttl = Duration::ZERO;
            upstream.connect_timeout = Duration::from_secs(1);
            upstream.first_byte_timeout = Duration::from_secs(1);
        }
    });
    setup.start().await
}

/// The 99th percentile of hits beside clients that need the upstream; with `outage`, none of those for a stored tag waits twice.
async fn round(larder: &Arc<Larder>, targets: &[String; 2], expired: &str, outage: Option<&str>) -> Duration {
    let (over, waited) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut beside = JoinSet::new();
    for worker in 0..EXPIRED + COLD {
        let (larder, over, waited) = (Arc::clone(larder), Arc::clone(&over), Arc::clone(&waited));
        let cold = worker >= EXPIRED;
        let target = if cold { format!("/v2/{OTHER_ALIAS}/a/b/manifests/cold{worker}") } else { expired.to_owned() };
        beside.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let answer = larder.get(&target).await;
                if !cold {
                    assert_eq!(answer.status, 200);
                    waited.fetch_add(usize::from(begun.elapsed() >= REVALIDATE_WAIT), Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
    let hits = std::env::var("LARDER_OUTAGE_HITS").map_or(HITS, |hits| hits.parse().unwrap());
    let mut times = Vec::with_capacity(hits);
    for number in 0..hits {
        let begun = Instant::now();
        let answer = larder.get(&targets[number % 2]).await;
        times.push(begun.elapsed());
        assert!(answer.cache_status().starts_with("larder; hit"), "{}", answer.cache_status());
    }
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = tokio::time::timeout(PATIENCE, beside.join_next()).await.unwrap() {
        ended.unwrap();
    }
    if let Some(name) = outage {
        let waited = waited.load(Ordering::Relaxed);
        assert!(waited <= EXPIRED, "{name}: {waited} requests for a stored tag waited");
    }
    times.sort_unstable();
    if let Some(name) = outage {
        let slow = times.iter().filter(|time| **time >= REVALIDATE_WAIT).count();
        assert!(slow <= 1 + hits / 100, "{name}: {slow} hits took as long as those who wait for upstream");
    }
    times[hits * 99 / 100]
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
