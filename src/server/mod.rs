//! The room `server`: sockets, connections, bodies; URL to request, answer or error to HTTP.
//!
//! A request is read and resolved (`request`), admitted, answered by the cache, and turned into a response that explains itself
//! (`registry.rs`; `reads.rs`, `uploads.rs`, `writes.rs`; `explain.rs`, `lists.rs`); only `error.rs` knows which error is which
//! status code.
//!
//! The wire half: [`Server`] binds every listener or says why not, keeps the number of open connections and the patience
//! with each of them within [`Limits`](crate::config::Limits), hands requests to a [`Handler`], and ends with a [`Drain`] that never
//! hangs. A [`Body`] is what an answer is made of; bytes of a file go from the page cache to the socket without being copied where
//! the system and the protocol allow.

mod acr;
mod body;
mod body_file;
mod catalogue;
mod connection;
mod connection_io;
mod connection_watch;
mod content;
mod drain;
mod error;
mod explain;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod intake;
mod listen;
mod listen_holder;
mod lists;
mod multipart;
mod reads;
mod record;
mod registry;
mod reply;
mod request;
#[cfg_attr(not(target_os = "linux"), path = "sendfile_portable.rs")]
mod sendfile;
mod uploads;
mod writes;

#[cfg(test)]
mod body_tests;
#[cfg(test)]
mod connection_tests;
#[cfg(test)]
mod http2_tests;
#[cfg(test)]
#[cfg(unix)]
mod listen_tests;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod sendfile_tests;

pub use body::{Body, BodyEnd, BodyError, BodyOutcome, Chunks, Extent, Extents, FileBytes, ReadFuture};
pub use connection::{Handler, Peer, Server};
pub use drain::{Drain, DrainTrigger};
pub use listen::BindError;
pub use registry::Registry;
pub use request::{AcrResource, Naming, RequestError, Resolved, Routes, Target};
pub use sendfile::SendfileStats;
