//! larder between a client and a simulated registry, all in one process.
//!
//! ```ignore
//! let acr = Acr::start(Options::public()).await;
//! let artifact = acr.push_artifact("samples/config", "v1", &[("config.json", "application/json", bytes)]);
//! let larder = Setup::of(&acr).start().await;
//! let answer = larder.get("/v2/samples/config/manifests/v1").await;
//! ```
//!
//! * [`Acr`] fails the test if larder did anything that ACR would refuse.
//! * [`Setup`] is larder's settings; [`Larder`] joins the rooms as the daemon does, on free ports, over a folder of its own.
//! * [`Answer`]s keep every header line, and a complete body has been held against its `Docker-Content-Digest`.
//! * [`raw`] speaks bytes, for what no client library would send.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "included by several test targets, none of which uses all of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "a harness that cannot do its work is a failed test"
)]

#[path = "../simulator/mod.rs"]
pub mod simulator;

mod acr;
mod client;
mod dice;
mod footprint;
mod larder;
mod logs;
#[cfg(target_os = "linux")]
pub mod namespace;
mod process;
pub mod raw;
pub mod scripted;
mod setup;
pub mod tls;

pub use acr::Acr;
pub use client::{Answer, Broken, Call, Client, Streaming};
pub use dice::Dice;
pub use footprint::{footprint, walk};
pub use larder::Larder;
pub use logs::Logs;
pub use process::{Process, config_of, free_address};
pub use setup::{ALIAS, OTHER, OTHER_ALIAS, Setup, UPSTREAM};

use sha2::Digest as _;
use std::fmt::Write as _;
use std::time::Duration;

/// Long enough for anything that is to happen at all on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "this did not come true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until `condition`, which may take its time, holds.
pub async fn until_async(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "this did not come true: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The value of one metric in the text of `/metrics`, its labels written as there; 0 if it is not there.
pub fn metric_in(metrics: &str, series: &str) -> u64 {
    let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

/// `sha256:…` of some bytes.
pub fn sha256(content: &[u8]) -> String {
    format!("sha256:{}", hex(&sha2::Sha256::digest(content)))
}

/// `sha512:…` of some bytes.
pub fn sha512(content: &[u8]) -> String {
    format!("sha512:{}", hex(&sha2::Sha512::digest(content)))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
