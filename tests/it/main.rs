//! Everything that is tested end to end in one program, a module per behaviour, so that the harness is compiled and linked once.

#[path = "../harness/mod.rs"]
mod harness;

mod access;
mod attacks;
mod bundle;
mod client_config;
mod commands;
mod config;
mod conformance;
mod dependencies;
mod differential;
mod disk;
mod docs;
mod drain;
mod fill;
mod freshness;
mod identity;
mod law;
mod outage;
mod pull;
mod simulator_evidence;
mod store;
mod tiers;
mod tls;
mod writes;
