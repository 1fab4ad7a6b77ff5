//! A working set twice the limit, pulled by many for a while (`LARDER_TEST_PRESSURE` seconds): the store never holds more than it
//! may, and nobody's pull breaks.

use super::MIB;
use super::harness::simulator::{Options, samples};
use super::harness::{Acr, Process, Setup, config_of, footprint, sha256};
use rustix::process::Pid;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const LIMIT: u64 = 16 * MIB as u64;
const BLOBS: usize = 64;
const SIZE: usize = MIB / 2;
const CLIENTS: usize = 6;

/// The most that the store has held, looked at again and again.
fn watch(larder: &Process, store: PathBuf, done: &Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    let (process, done) = (Pid::from_child(&larder.child), Arc::clone(done));
    std::thread::spawn(move || {
        let mut most = 0;
        while !done.load(Ordering::Relaxed) {
            most = most.max(footprint(process, &store).values().sum());
            std::thread::sleep(Duration::from_millis(50));
        }
        most
    })
}

#[tokio::test]
async fn a_working_set_twice_the_limit_never_exceeds_it_and_breaks_no_pull() {
    let seconds = std::env::var("LARDER_TEST_PRESSURE").map_or(4, |seconds| seconds.parse().unwrap());
    let acr = Acr::start(Options::public()).await;
    let blobs: Vec<String> =
        (0..BLOBS).map(|seed| acr.push_blob("app", samples::incompressible(2 * seed as u64, SIZE))).collect();
    let setup = Setup::of(&acr);
    let config = setup.file("larder.toml", &config_of(&acr.url()));
    let larder =
        Process::start(&setup, &["--config", config.to_str().unwrap(), "--max-size", &format!("{LIMIT}B")]).await;
    let (blobs, pulls, done) = (Arc::new(blobs), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let most = watch(&larder, setup.store().to_owned(), &done);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let (caller, blobs, pulls) = (larder.client(), Arc::clone(&blobs), Arc::clone(&pulls));
        clients.spawn(async move {
            // Each goes its own way through all of them, and through half of them more often.
            for step in 0.. {
                let number =
                    (step * (2 * client + 1) * 7 + client * 11) % if step % 3 == 0 { BLOBS } else { BLOBS / 2 };
                let answer = caller.call("GET", &format!("/v2/app/blobs/{}", blobs[number])).send().await;
                assert_eq!((answer.status.as_u16(), answer.body.len()), (200, SIZE), "{answer:?}");
                assert_eq!(sha256(&answer.body), blobs[number]);
                pulls.fetch_add(1, Ordering::Relaxed);
                if Instant::now() >= end {
                    break;
                }
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let most = most.join().unwrap();
    let pulls = pulls.load(Ordering::Relaxed);
    let evictions = larder.metric("larder_store_evictions_total{reason=\"space\"}").await;
    println!("{pulls} pulls, {evictions} evictions, {most} of {LIMIT} bytes at most");
    assert!(most <= LIMIT, "{most} of {LIMIT}");
    assert!(evictions > 10 && pulls > BLOBS, "{evictions} evictions in {pulls} pulls");
}
