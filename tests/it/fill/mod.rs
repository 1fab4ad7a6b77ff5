//! One fill: whoever asks for a blob that is not stored follows the one download of it, and nobody gets a clean end of wrong bytes.

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

mod bypass;
mod damage;
mod disk;
mod kept;
mod multirange;
mod pressure;
mod ranges;
mod resume;
mod sources;
mod stampede;

use bytes::Bytes;
use harness::simulator::{Options, Redirect, Seen, samples};
use harness::{Acr, Larder, Setup};

pub const MIB: usize = 1 << 20;

/// A registry with one blob in `app`, what it is, and larder in front.
pub struct Scene {
    pub acr: Acr,
    pub larder: Larder,
    pub content: Bytes,
    pub digest: String,
    pub target: String,
}

impl Scene {
    pub async fn of(size: usize) -> Self {
        Self::with(size, Redirect::Sas, |setup| setup).await
    }

    pub async fn with(size: usize, redirect: Redirect, change: impl FnOnce(Setup) -> Setup) -> Self {
        let acr = Acr::start(Options::public().redirect(redirect)).await;
        let content = samples::incompressible(size as u64 + 11, size);
        let digest = acr.push_blob("app", content.clone());
        let larder = change(Setup::of(&acr)).start().await;
        let target = format!("/v2/app/blobs/{digest}");
        Self { acr, larder, content, digest, target }
    }

    /// Blob bytes go no faster than this.
    pub fn rate(&self, rate: Option<usize>) {
        self.acr.knobs().turn(|knobs| knobs.total_rate = rate.map(|rate| rate as u64));
    }

    /// Nothing is wrong with the registry any more.
    pub fn heal(&self) {
        self.acr.knobs().turn(|knobs| {
            knobs.damage.clear();
            knobs.faults.clear();
        });
    }

    /// The GETs of blob bytes that were answered, in order.
    pub fn bodies(&self) -> Vec<Seen> {
        self.acr.log().into_iter().filter(Seen::is_blob_body).collect()
    }

    /// The `Range` of each GET of blob bytes.
    pub fn ranges(&self) -> Vec<Option<String>> {
        self.bodies().into_iter().map(|seen| seen.range).collect()
    }

    pub async fn fills(&self, result: &str) -> u64 {
        self.larder.metric(&format!("larder_fills_total{{result=\"{result}\"}}")).await
    }

    /// Waits until no fill runs.
    pub async fn settled(&self) {
        let running = || self.larder.metrics.fills_inflight.with_label_values(&[] as &[&str]).get();
        harness::until("no fill is running", || running() == 0).await;
    }

    pub async fn stored(&self) {
        harness::until("the blob is stored", || self.larder.stores(&self.digest)).await;
    }

    /// A whole, right answer to one more request.
    pub async fn serves(&self) -> harness::Answer {
        let answer = self.larder.get(&self.target).await;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        assert!(answer.body == self.content, "{} bytes", answer.body.len());
        answer
    }
}
