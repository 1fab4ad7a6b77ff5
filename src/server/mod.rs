//! The room `server`: sockets, connections, bodies; URL to request, answer or error to HTTP.
//!
//! * [`http`] is the wire: listeners, connections, bodies, drain. It hands requests to a [`Handler`] and knows nothing of registries.
//! * `tls` is the certificate and the handshakes of listeners that speak TLS.
//! * `api` is the registry on top of it: URL to request, admission, the cache's answer or error to an HTTP response.

mod api;
pub mod http;
mod tls;

#[cfg(any(test, fuzzing))]
pub use api::fuzzing;
pub use api::request::{AcrResource, Naming, RequestError, Resolved, Routes, Target};
pub use api::service::{RegistryService, named_host};
pub use api::stored::stored;
pub use http::body::{Body, BodyEnd, BodyOutcome};
pub use http::body_parts::{BodyError, Chunks, Extent, Extents, FileBytes, ReadFuture};
pub use http::connection::{Handler, Server};
pub use http::drain::{Drain, DrainTrigger};
pub use http::handed::{HandedError, Sockets};
pub use http::listen::BindError;
pub use http::peer::Peer;
pub use http::sendfile::SendfileStats;
pub use tls::{Authority, AuthorityError, Tls, TlsState, server_key};
