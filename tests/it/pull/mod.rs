//! Pulls and the door, end to end: a client, larder, and a registry that behaves like ACR.
//!
//! Tests named `trap_NN_…` hold the numbered traps that lie between registries and their clients; `clients` has what single
//! clients insist on.

#![expect(clippy::unwrap_used, reason = "every function here is a test's")]

use crate::harness;

mod attacks;
mod bounds;
mod catalogue;
mod clients;
mod content;
mod credentials;
mod door;
mod errors;
mod explain;
mod large;
mod lists;
mod membership;
mod naming;
mod pages;
mod registries;
mod replayed;
mod strange;
mod traps;

use bytes::Bytes;
use harness::Acr;
use harness::simulator::{Artifact, samples};

/// The repository that most tests pull from.
const REPOSITORY: &str = "samples/config";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCTETS: &str = "application/octet-stream";

fn manifest(repository: &str, reference: &str) -> String {
    format!("/v2/{repository}/manifests/{reference}")
}

fn blob(repository: &str, digest: &str) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

/// `samples/config:v1`, one small file.
fn seed(acr: &Acr) -> (Artifact, Bytes) {
    let content = Bytes::from_static(b"{\"environment\":\"production\"}");
    (acr.push_artifact(REPOSITORY, "v1", &[("config.json", "application/json", content.clone())]), content)
}

/// A blob of so many incompressible bytes.
fn large(acr: &Acr, repository: &str, size: usize) -> (String, Bytes) {
    let content = samples::incompressible(size as u64, size);
    (acr.push_blob(repository, content.clone()), content)
}

/// A digest that nothing has.
fn unknown_digest() -> String {
    format!("sha256:{}", "0".repeat(64))
}
