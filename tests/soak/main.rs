//! A soak: larder's own program in front of the simulator, asked as a build farm asks, for as many requests as
//! `LARDER_SOAK_REQUESTS` says, with every answer checked. Memory and descriptors stay where they were.
//!
//! `scripts/soak` runs ten million; `docs/testing.md` has the figures. In CI it is a short one: that shows that the soak works, and that
//! nothing grows by much with every request.

#![cfg(target_os = "linux")]
#![allow(unreachable_pub, reason = "a test target")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "whoever runs a long one wants to see how it goes")]

#[path = "../harness/mod.rs"]
mod harness;
mod load;
mod site;
mod wire;

use harness::{Dice, Process};
use load::{KINDS, Load};
use site::Site;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const REQUESTS: u64 = 4000;
/// Connections at once.
const WORKERS: usize = 8;
/// Looks at the process, in even steps. The first fifth of the run is its warm-up: what is bounded fills up.
const LOOKS: usize = 100;
const WARM: usize = LOOKS / 5;
/// What the mean of the last tenth's looks may be above that of the first tenth after the warm-up, in KiB.
const GROWTH: u64 = 16 << 10;
/// Likewise of descriptors, at most: connections come and go.
const MORE_DESCRIPTORS: u64 = 64;

/// What the process holds.
#[derive(Clone, Copy, Debug)]
struct Look {
    resident_kib: u64,
    descriptors: u64,
}

impl Look {
    fn at(process: &Process) -> Self {
        let folder = format!("/proc/{}", process.child.id());
        let status = std::fs::read_to_string(format!("{folder}/status")).unwrap();
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        let descriptors = std::fs::read_dir(format!("{folder}/fd")).unwrap().count() as u64;
        Self { resident_kib: resident.expect("VmRSS"), descriptors }
    }
}

fn mean(looks: &[Look]) -> u64 {
    looks.iter().map(|look| look.resident_kib).sum::<u64>() / looks.len() as u64
}

/// The sum of all series of a metric whose labels contain `label`.
fn sum(metrics: &str, name: &str, label: &str) -> u64 {
    let series = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
    series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_where_it_is_however_many_requests_come() {
    let requests = std::env::var("LARDER_SOAK_REQUESTS").ok().map_or(REQUESTS, |text| text.parse().unwrap());
    let mut dice = Dice::new(Dice::seed("LARDER_SOAK_SEED"));
    let site = Arc::new(Site::new(requests, &mut dice).await);
    let process = site.start().await;
    let load = Arc::new(Load::new(process.address, requests));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (load, site, dice) = (Arc::clone(&load), Arc::clone(&site), dice.fork());
            std::thread::spawn(move || load.work(&site, dice))
        })
        .collect();

    let began = Instant::now();
    let mut looks = Vec::new();
    while looks.len() < LOOKS {
        let next = requests * (looks.len() as u64 + 1) / LOOKS as u64;
        while load.done.load(Ordering::Relaxed) < next && !workers.iter().any(std::thread::JoinHandle::is_finished) {
            sleep(Duration::from_millis(5)).await;
            site.forget_log();
        }
        looks.push(Look::at(&process));
        site.move_a_tag(&mut dice);
        if looks.len() % (LOOKS / 20) == 0 {
            let done = load.done.load(Ordering::Relaxed);
            println!("{:7.1?} {done:9} requests, {:?}", began.elapsed(), looks[looks.len() - 1]);
        }
    }
    for worker in workers {
        worker.join().unwrap();
    }
    println!("{requests} requests in {:?}", began.elapsed());
    for (kind, count) in KINDS.iter().zip(&load.counts) {
        println!("{:>9} {kind:?}", count.load(Ordering::Relaxed));
    }

    let metrics = process.metrics().await;
    for (name, label) in [
        ("larder_cache_requests_total", "result=\"hit\""),
        ("larder_cache_requests_total", "result=\"negative\""),
        ("larder_cache_requests_total", "result=\"revalidated\""),
        ("larder_fills_total", "stored"),
        ("larder_uploads_total", "stored"),
        ("larder_token_requests_total", "ok"),
        ("larder_store_evictions_total", "space"),
    ] {
        let count = sum(&metrics, name, label);
        println!("{count:>9} {name} {label}");
        assert!(count > 0, "{name} {label}: the soak did not meet that:\n{metrics}");
    }

    let (early, late) = (&looks[WARM..WARM + LOOKS / 10], &looks[LOOKS - LOOKS / 10..]);
    let (before, after) = (mean(early), mean(late));
    println!("resident: {before} KiB after the warm-up, {after} KiB at the end");
    assert!(after <= before + GROWTH, "memory grows: from {before} KiB to {after} KiB");
    let most = |looks: &[Look]| looks.iter().map(|look| look.descriptors).max().unwrap_or(0);
    assert!(most(late) <= most(early) + MORE_DESCRIPTORS, "descriptors grow: {early:?}, then {late:?}");
}
