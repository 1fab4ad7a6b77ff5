//! The wire: [`Server`](connection::Server) binds every listener or says why not, bounds the number of open connections and the time
//! each of them may take by [`Limits`](crate::config::Limits), hands requests to a [`Handler`](connection::Handler), and ends with a
//! [`Drain`](drain::Drain) that never hangs. A [`Body`](body::Body) is what an answer is made of; bytes of a file go from the page
//! cache to the socket without a copy where the system and the protocol allow it.

pub(crate) mod body;
pub(in crate::server) mod body_file;
pub(crate) mod body_parts;
pub(in crate::server) mod connection;
pub(in crate::server) mod connection_io;
pub(in crate::server) mod connection_places;
pub(in crate::server) mod connection_watch;
pub(in crate::server) mod drain;
pub(in crate::server) mod handed;
pub(in crate::server) mod listen;
pub(in crate::server) mod listen_holder;
pub(in crate::server) mod peer;
#[cfg_attr(not(target_os = "linux"), path = "sendfile_portable.rs")]
pub(in crate::server) mod sendfile;

#[cfg(test)]
mod body_tests;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod connection_places_tests;
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
