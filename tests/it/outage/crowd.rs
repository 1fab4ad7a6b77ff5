//! Many at once: within the bounds of connections, within the budgets of a registry, after an outage.

use crate::harness::simulator::{Limits, OCI_MANIFEST, Options};
use crate::harness::{Acr, Larder, Setup, UPSTREAM, sha256};
use bytes::Bytes;
use larder::config::Tier;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Asks for all targets, `abreast` at a time; how often each status came.
async fn ask_all(larder: &Arc<Larder>, targets: Vec<String>, abreast: usize) -> Vec<(u16, usize)> {
    let targets = Arc::new(std::sync::Mutex::new(targets));
    let mut workers = JoinSet::new();
    for _ in 0..abreast {
        let (larder, targets) = (Arc::clone(larder), Arc::clone(&targets));
        workers.spawn(async move {
            let mut seen = Vec::new();
            loop {
                let next = targets.lock().unwrap().pop();
                let Some(target) = next else { return seen };
                let answer = larder.get(&target).await;
                if answer.status == 429 {
                    let after: u64 = answer.header("retry-after").expect("the seconds left").parse().unwrap();
                    assert!((1..=60).contains(&after), "{after}");
                }
                seen.push(answer.status.as_u16());
            }
        });
    }
    let mut counts = std::collections::BTreeMap::new();
    while let Some(seen) = workers.join_next().await {
        for status in seen.unwrap() {
            *counts.entry(status).or_insert(0) += 1;
        }
    }
    counts.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_farm_that_wants_200_blobs_at_once_gets_them_all_and_keeps_no_tag_waiting() {
    let acr = Acr::start(Options::public()).await;
    let blobs: Vec<String> = (0..200_u32)
        .map(|number| {
            let content: Bytes = number.to_be_bytes().iter().copied().cycle().take(128 << 10).collect();
            format!("/v2/a/b/blobs/{}", acr.push_blob("a/b", content))
        })
        .collect();
    for number in 0..10 {
        acr.push_artifact("a/b", &format!("v{number}"), &[("x", "text/plain", Bytes::from_static(b"x"))]);
    }
    // 25 MiB through a line of 3 MiB/s, over 14 connections for blobs: the last ones wait for eight seconds.
    acr.knobs().turn(|knobs| knobs.total_rate = Some(3 << 20));
    let larder =
        Arc::new(Setup::of(&acr).with(|settings| settings.server.limits.upstream_connections = 16).start().await);
    let farm = tokio::spawn({
        let larder = Arc::clone(&larder);
        async move { ask_all(&larder, blobs, 200).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut slowest = Duration::ZERO;
    for number in 0..10 {
        assert!(number > 0 || !farm.is_finished(), "the line is full while tags are asked for");
        let begun = Instant::now();
        let method = if number % 2 == 0 { "GET" } else { "HEAD" };
        let answer = larder.call(method, &format!("/v2/a/b/manifests/v{number}")).send().await;
        assert_eq!(answer.status, 200);
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_secs(5), "a tag waited {slowest:?} for blobs");
    assert_eq!(farm.await.unwrap(), [(200, 200)]);
    assert_eq!(acr.downloads(), 200);
}

fn push_tags(acr: &Acr, count: usize) -> Vec<String> {
    let document = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","layers":[]}}"#);
    let push = |number| {
        acr.push_manifest("a/b", Some(&format!("v{number}")), OCI_MANIFEST, document.clone());
        format!("/v2/a/b/manifests/v{number}")
    };
    (0..count).map(push).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tags_that_grew_old_in_an_outage_cost_one_question_each_and_a_refusal_stops_the_rest() {
    let acr = Acr::start(Options::public()).await;
    acr.forgive();
    let tags = push_tags(&acr, 1000);
    let larder = Arc::new(Setup::of(&acr).tag_ttl(Duration::ZERO).start().await);
    assert_eq!(ask_all(&larder, tags.clone(), 50).await, [(200, 1000)]);
    acr.stop_listening();
    assert_eq!(ask_all(&larder, tags.clone(), 50).await, [(200, 1000)]);
    acr.resume_listening();
    crate::harness::until_async("it is noticed", async || larder.get(&tags[0]).await.header("warning").is_none()).await;
    acr.clear_log();
    assert_eq!(ask_all(&larder, tags.clone(), 200).await, [(200, 1000)]);
    // A registry that needs more than a second for an answer, on a busy machine, is asked again.
    let again = format!("larder_upstream_retries_total{{reason=\"silence\",upstream=\"{UPSTREAM}\"}}");
    let (asked, again) = (acr.manifest_requests("HEAD"), usize::try_from(larder.metric(&again).await).unwrap());
    assert!(asked <= 1000 + again && again < 100, "{asked} questions for 1000 tags, {again} of them repeated");
    assert_eq!(acr.manifest_requests("GET"), 0);

    // The same with a registry that bears 300 a minute: what it refuses is not asked again, and nobody sees it.
    let limits = Limits { read: (10_000, 300), ..Limits::STANDARD };
    acr.knobs().turn(|knobs| knobs.throttle = Some(limits));
    acr.clear_log();
    assert_eq!(ask_all(&larder, tags, 200).await, [(200, 1000)]);
    let throttled = acr.count(|seen| seen.status == 429);
    assert!((1..=128).contains(&throttled), "{throttled} requests were refused");
    assert!(acr.log().len() < 500, "{} requests were sent", acr.log().len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tier_keeps_larder_below_what_the_registry_would_refuse() {
    let acr = Acr::start(Options::public()).await;
    acr.knobs().turn(|knobs| knobs.throttle = Some(Limits::STANDARD));
    let larder = Arc::new(Setup::of(&acr).upstream(|upstream| upstream.tier = Tier::Standard).start().await);
    let lists = (0..400).map(|number: u32| format!("/v2/a/b/referrers/{}", sha256(&number.to_be_bytes()))).collect();
    push_tags(&acr, 1);
    let counts = ask_all(&larder, lists, 40).await;
    let of = |status| counts.iter().find(|(seen, _)| *seen == status).map_or(0, |(_, count)| *count);
    assert!(of(200) >= 150 && of(429) >= 50, "{counts:?}");
    assert_eq!(of(200) + of(429), 400, "{counts:?}");
    assert_eq!(acr.count(|seen| seen.status == 429), 0, "the registry had nothing to refuse");
    let withheld = format!("larder_upstream_withheld_total{{reason=\"budget\",upstream=\"{UPSTREAM}\"}}");
    assert!(larder.metric(&withheld).await >= 50);
    assert!(larder.metric(&format!("larder_upstream_paced_total{{upstream=\"{UPSTREAM}\"}}")).await > 0);
    // Reads have a budget of their own.
    assert_eq!(larder.get("/v2/a/b/manifests/v0").await.status, 200);
}
