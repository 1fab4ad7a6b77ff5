//! larder's own program between real clients and real registries.
//!
//! Clients: the ORAS CLI that people use now (1.3.3) and the one that guides still install (1.1.0), and skopeo. Upstreams: the ACR
//! simulator, Debian's docker-registry with Basic authentication, and Distribution 3.1.1 with tokens that the simulator issues.
//! Each upstream meets each client cold, warm and after it has been stopped; `guide` is the guide that people follow, from its first
//! line to its last. `docs/testing.md` says where the programs come from;
//! one that is missing is a failure.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test program: stopping and printing are how it reports"
)]

mod artifacts;
mod backend;
mod chunked;
mod containerd;
mod content;
mod docker;
mod fallback;
mod faults;
mod guide;
mod https;
mod images;
mod journey;
mod kit;
mod larder;
mod matrix;
#[allow(dead_code, reason = "it shares its world with another test")]
mod mutated;
mod oras;
mod own_name;
mod package;
mod page;
mod process;
mod pushes;
mod pushing;
mod relay;
mod rust_client;
mod skopeo;
mod stage;
mod systemd;
mod upstream;
mod world;

#[path = "../simulator/mod.rs"]
mod simulator;
