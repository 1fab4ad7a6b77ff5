//! Who is at the other end of a connection, as far as that is known when it begins.

use crate::config::{ClientName, Listen};
use std::net::SocketAddr;
use std::sync::Arc;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address; none on a Unix socket.
    pub address: Option<SocketAddr>,
    /// The address that the client reached.
    pub local: Option<SocketAddr>,
    /// The listener that took the connection.
    pub listener: Arc<Listen>,
    /// The name that the client asked for in its TLS handshake, in lower case.
    pub server_name: Option<Arc<str>>,
    /// Whom the certificate names that the client presented, and that `client_ca_file` vouches for.
    pub client: Option<ClientName>,
}

impl Peer {
    /// A client of which nothing else is known.
    pub(in crate::server) fn new(address: Option<SocketAddr>, listener: Arc<Listen>) -> Self {
        Self { address, local: None, listener, server_name: None, client: None }
    }
}
