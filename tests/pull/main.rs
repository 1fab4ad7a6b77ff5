//! Pulls and the door, end to end: a client, larder, and a registry that behaves like ACR.

#[path = "../harness/mod.rs"]
mod harness;

mod naming;
