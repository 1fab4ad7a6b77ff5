//! How bytes reach a registry and come back: names, connections, TLS, the pool, bodies.

pub(in crate::upstream) mod body;
mod complaint;
pub(in crate::upstream) mod connect;
pub(in crate::upstream) mod dns;
pub(in crate::upstream) mod inside;
pub(in crate::upstream) mod location;
pub(in crate::upstream) mod network;
pub(in crate::upstream) mod origin;
mod pace;
pub(in crate::upstream) mod payload;
pub(in crate::upstream) mod pool;
pub(in crate::upstream) mod process;
mod queue;
pub(in crate::upstream) mod read_after_write_error;
pub(in crate::upstream) mod resolve;
pub(in crate::upstream) mod tls;
