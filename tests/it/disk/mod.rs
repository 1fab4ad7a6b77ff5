//! Disks that fail under a running larder: pulls go on, wrong bytes never leave, and it is over when the disk is well again.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
#![allow(clippy::cast_possible_truncation, reason = "sizes here are small")]

use crate::harness;

#[cfg(unix)]
mod damage;
mod failing;
#[cfg(target_os = "linux")]
mod mounts;

use bytes::Bytes;
use harness::simulator::samples;
use harness::{Acr, Answer, Client, sha256};
use std::time::Duration;
use tokio::time::Instant;

pub const MIB: usize = 1 << 20;

/// A registry with something that was pulled before the trouble, something that was not, and something large.
pub struct Registry {
    pub acr: Acr,
    warm: Item,
    cold: Item,
    pub large: Bytes,
    pub large_target: String,
}

struct Item {
    tag: &'static str,
    layer: Bytes,
    manifest: String,
    digest: String,
}

impl Item {
    fn push(acr: &Acr, tag: &'static str, seed: u64) -> Self {
        let layer = samples::incompressible(seed, 3 * MIB);
        let pushed = acr.push_artifact("app", tag, &[("layer", "application/octet-stream", layer.clone())]);
        Self { tag, layer, manifest: pushed.digest.clone(), digest: pushed.layers[0].clone() }
    }

    /// All that a client wants of it; the longest time to the head of an answer.
    async fn pull(&self, larder: Client) -> Duration {
        let mut slowest = Duration::ZERO;
        let mut get = async |target: &str, range: Option<&str>| -> Answer {
            let began = Instant::now();
            let call = larder.call("GET", target);
            let open = match range {
                Some(range) => call.range(range).open().await,
                None => call.open().await,
            };
            slowest = slowest.max(began.elapsed());
            let answer = open.rest().await.unwrap();
            assert!(answer.status.is_success(), "{target}: {} {}", answer.status, answer.text());
            answer
        };
        let by_tag = get(&format!("/v2/app/manifests/{}", self.tag), None).await;
        assert_eq!(sha256(&by_tag.body), self.manifest);
        get(&format!("/v2/app/manifests/{}", self.manifest), None).await;
        let target = format!("/v2/app/blobs/{}", self.digest);
        assert!(get(&target, None).await.body == self.layer);
        assert!(get(&target, Some("bytes=1048570-1048590")).await.body == self.layer[1_048_570..=1_048_590]);
        assert_eq!(get(&format!("/v2/app/blobs/{}", sha256(b"{}")), None).await.body, &b"{}"[..]);
        assert!(get("/v2/app/tags/list", None).await.text().contains(self.tag));
        slowest
    }
}

impl Registry {
    pub async fn start() -> Self {
        let acr = Acr::start(harness::simulator::Options::public()).await;
        let warm = Item::push(&acr, "warm", 1);
        let cold = Item::push(&acr, "cold", 2);
        let large = samples::incompressible(3, 12 * MIB);
        let large_target = format!("/v2/app/blobs/{}", acr.push_blob("app", large.clone()));
        Self { acr, warm, cold, large, large_target }
    }

    /// What was pulled before is served although upstream is away. Gives the longest time to a head.
    pub async fn serves_what_it_has(&self, larder: Client) -> Duration {
        self.acr.stop_listening();
        let slowest = self.warm.pull(larder).await;
        self.acr.resume_listening();
        slowest
    }

    pub async fn warm_up(&self, larder: Client) {
        self.warm.pull(larder).await;
    }

    /// What was not pulled before is got from upstream.
    pub async fn passes_through(&self, larder: Client) -> Duration {
        self.cold.pull(larder).await
    }

    pub fn warm_layer(&self) -> &str {
        &self.warm.digest
    }

    pub fn cold_layer(&self) -> &str {
        &self.cold.digest
    }

    /// Runs `trouble` in the middle of a download of the large blob by several readers, all of whom get all of it.
    pub async fn in_the_middle(&self, larder: Client, trouble: impl AsyncFnOnce()) {
        self.acr.knobs().turn(|knobs| knobs.total_rate = Some(4 * MIB as u64));
        let mut first = larder.call("GET", &self.large_target).open().await;
        first.at_least(MIB).await;
        let mut second = larder.call("GET", &self.large_target).range("bytes=1000-").open().await;
        second.at_least(1).await;
        trouble().await;
        let (first, second) = tokio::join!(first.rest(), second.rest());
        assert!(first.unwrap().body == self.large);
        assert!(second.unwrap().body == self.large[1000..]);
        self.acr.knobs().turn(|knobs| knobs.total_rate = None);
    }
}
