//! TLS towards clients, end to end: who gets an answer, in which protocol, and what the settings refuse.

#![expect(clippy::unwrap_used, reason = "every function here is a test's")]

use crate::harness;

mod clients;
mod files;
mod init;
mod listeners;
mod own_address;
mod settings;
mod slow;

use bytes::Bytes;
use harness::Acr;
use harness::simulator::{Artifact, samples};

const REPOSITORY: &str = "samples/config";
const TAG: &str = "/v2/samples/config/manifests/v1";

/// `samples/config:v1`, a layer of some size.
fn seed(acr: &Acr, size: usize) -> (Artifact, Bytes) {
    let content = samples::incompressible(size as u64, size);
    (acr.push_artifact(REPOSITORY, "v1", &[("layer", "application/octet-stream", content.clone())]), content)
}

fn blob(digest: &str) -> String {
    format!("/v2/{REPOSITORY}/blobs/{digest}")
}
