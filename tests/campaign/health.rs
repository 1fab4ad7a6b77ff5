//! What the process holds, and what its store takes.

use super::Round;
use super::harness::{Process, footprint, metric_in};
use rustix::process::Pid;
use std::fs;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Stored blobs that it may keep open (256), and some.
const BLOBS: u64 = 264;
/// Descriptors that may come between two looks at a process at rest: kept connections.
const MORE_DESCRIPTORS: u64 = 64;
/// Memory likewise: caches that fill, and what the allocator keeps.
const MORE_MEMORY: u64 = 48 << 20;

/// A process at rest.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    descriptors: u64,
    blobs: u64,
    memory: u64,
}

impl Rest {
    /// Waits until nothing is under way, and looks.
    pub async fn of(process: &Process) -> Result<Self, String> {
        let deadline = Instant::now() + Duration::from_secs(90);
        let idle = ["larder_http_inflight_requests", "larder_fills_inflight", "larder_http_connections"];
        loop {
            let text = process.metrics().await;
            if idle.iter().all(|name| metric_in(&text, name) == 0) {
                break;
            }
            if Instant::now() > deadline {
                let busy: Vec<_> = idle.iter().map(|name| format!("{name} {}", metric_in(&text, name))).collect();
                return Err(format!("it does not come to rest: {busy:?}"));
            }
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_millis(500)).await;
        let folder = format!("/proc/{}", process.child.id());
        // Stored blobs that are kept open have a bound of their own.
        let mut descriptors = Vec::new();
        for entry in fs::read_dir(format!("{folder}/fd")).into_iter().flatten().flatten() {
            descriptors.extend(fs::read_link(entry.path()));
        }
        let of_a_blob = |path: &&std::path::PathBuf| path.to_string_lossy().contains("/blobs/");
        let blobs = descriptors.iter().filter(of_a_blob).count() as u64;
        let descriptors = descriptors.len() as u64 - blobs;
        let status = fs::read_to_string(format!("{folder}/status")).unwrap_or_default();
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        Ok(Self { descriptors, blobs, memory: resident.unwrap_or(0_u64) << 10 })
    }

    /// Whether `later` holds no more than this, give or take.
    pub fn grown(self, later: Self) -> Option<String> {
        let more = later.blobs > BLOBS
            || later.descriptors > self.descriptors + MORE_DESCRIPTORS
            || later.memory > self.memory + MORE_MEMORY;
        more.then(|| format!("a process at rest holds more than before: {self:?}, then {later:?}"))
    }
}

/// Looks again and again at what the store takes, until the round's faults are over.
pub async fn watch_size(round: Arc<Round>, store: std::path::PathBuf, limit: u64, process: Pid) {
    let mut most = 0;
    while !round.is_over() {
        let store = store.clone();
        let parts = tokio::task::spawn_blocking(move || footprint(process, &store)).await.unwrap_or_default();
        let size = parts.values().sum();
        most = most.max(size);
        if size > limit {
            round.accuse(format!("the store takes {size} bytes, and may take {limit}: {parts:?}"));
        }
        sleep(Duration::from_millis(200)).await;
    }
    round.say(&format!("store: {most} of {limit} bytes at most"));
}
