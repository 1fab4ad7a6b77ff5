//! larder: a caching pull-through proxy for OCI registries, first of all Azure Container Registry.
//!
//! The rooms, and who may use whom (a test reads the `use crate::…` lines and holds the code to it):
//!
//! | room | is for | may use |
//! |---|---|---|
//! | [`oci`] | values of the specifications; pure | – |
//! | [`config`] | the operator's file, overrides, validated settings | `oci` |
//! | [`telemetry`] | logs, metrics, the words for cache status | `oci` |
//! | [`store`] | verified bytes on disk, ingests, links, lists, index | `oci config telemetry` |
//! | [`upstream`] | speaking to a registry: connections, tokens, redirects | `oci config telemetry` |
//! | [`cache`] | the heart: freshness, fills, answers | `oci config telemetry store upstream` |
//! | [`access`] | who is asking and what they may do | `oci config telemetry` |
//! | [`bundle`] | moving content by disk: plans, archives, inventories, fetching ahead | `oci config telemetry store cache upstream` |
//! | [`server`] | sockets, URL to request, answer to HTTP | `oci config telemetry access cache store upstream` |
//! | [`admin`] | health, readiness, metrics; what the commands ask | `oci config telemetry access store cache bundle server` |
//! | [`daemon`] | puts every room together once; signals, drain | all but `cli` |
//! | [`cli`] | one file per subcommand | all |
//!
//! A request flows one way: `server → access → cache → store`, and on a miss `cache → upstream`. `store` and `upstream` never
//! know each other: they meet in a fill.

pub mod access;
pub mod admin;
pub mod bundle;
pub mod cache;
pub mod cli;
pub mod config;
pub mod daemon;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod oci;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod upstream;
