//! Listeners: every place that was asked for, or an error that says what stands in the way and what to type instead.
//!
//! IPv6 loopback on a machine without IPv6 is left out with a warning as long as something else is bound; everything else that
//! cannot be bound is an error. Running out of file descriptors pauses accepting, it never ends it.

use super::connection_io::Stream;
use super::handed;
use super::listen_holder::{free_port, holder};
use super::peer::Peer;
use crate::config::Listen;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

/// Connections that the kernel keeps for us while we are busy.
const BACKLOG: u32 = 1024;
/// How long the removal of a socket's file may take.
const REMOVAL: Duration = Duration::from_secs(1);
/// How long accepting rests when the system refuses (no file descriptors, no memory).
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// A place that could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody listens there already.
    #[error("cannot listen on {address}: already in use{holder}; {remedy}")]
    InUse {
        /// The place.
        address: String,
        /// ` by docker-registry (pid 812)`, or nothing where that is not to be known.
        holder: String,
        /// What to do.
        remedy: String,
    },
    /// The machine does not have that address.
    #[error("cannot listen on {0}: no interface of this machine has that address; choose one that `ip address` shows")]
    NotHere(SocketAddr),
    /// The system does not allow it.
    #[error("cannot listen on {address}: permission denied; {remedy}")]
    Denied {
        /// The place.
        address: String,
        /// What to do.
        remedy: String,
    },
    /// The path of a Unix socket is something else.
    #[error("cannot listen on unix:{0}: the path exists and is not a socket; remove it or choose another path")]
    NotASocket(PathBuf),
    /// Unix sockets are not to be had.
    #[error("cannot listen on unix:{0}: this system has no Unix sockets; use an address and port")]
    NoUnixSockets(PathBuf),
    /// TLS without a certificate.
    #[error(
        "cannot listen on tls://{0}: there is no certificate; write [server.tls] into the configuration, or remove tls://"
    )]
    NoCertificate(SocketAddr),
    /// No place was given, or none is left.
    #[error("there is nowhere to listen; give at least one address, such as `--listen 127.0.0.1:5000`")]
    Nowhere,
    /// Something else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// The place.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Every bound listener.
pub(in crate::server) struct Listeners {
    bound: Vec<Bound>,
    next: usize,
    refused: bool,
}

struct Bound {
    place: Arc<Listen>,
    socket: Socket,
    /// Whether it is systemd's, which keeps it.
    is_handed: bool,
}

enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

impl Listeners {
    /// Binds what is not among the sockets that were handed over.
    pub(in crate::server) async fn bind(places: &[Listen], mut handed: Vec<handed::Socket>) -> Result<Self, BindError> {
        let mut bound = Vec::new();
        let mut left_out = None;
        for place in places {
            if let Some(at) = handed.iter().position(|socket| socket.place.is_same_socket(place)) {
                bound.push(Bound::handed(place, handed.swap_remove(at))?);
                continue;
            }
            match place {
                Listen::Tcp(address) | Listen::Tls(address) => match bind_tcp(*address, place, places) {
                    Ok(listener) => bound.push(listener),
                    Err(error) if no_ipv6(*address, &error) => left_out = Some(*address),
                    Err(error) => return Err(tcp_error(*address, error)),
                },
                Listen::Unix(path) => bound.push(bind_unix(path).await?),
            }
        }
        match left_out {
            Some(address) if bound.is_empty() => return Err(BindError::NotHere(address)),
            Some(address) => tracing::warn!(%address, "not listening there: this machine has no IPv6 loopback"),
            None => (),
        }
        if bound.is_empty() { Err(BindError::Nowhere) } else { Ok(Self { bound, next: 0, refused: false }) }
    }

    pub(in crate::server) fn addresses(&self) -> Vec<Listen> {
        self.bound.iter().map(|bound| Listen::clone(&bound.place)).collect()
    }

    /// The next connection. Safe to drop while it waits.
    pub(in crate::server) async fn accept(&mut self) -> (Stream, Arc<Peer>) {
        loop {
            match std::future::poll_fn(|cx| self.poll_accept(cx)).await {
                Ok(accepted) => {
                    self.refused = false;
                    return accepted;
                }
                Err(error) if is_of_one_connection(&error) => (),
                Err(error) => {
                    if !std::mem::replace(&mut self.refused, true) {
                        tracing::error!(%error, "cannot accept connections, trying again until it works (raise the limit on open files?)");
                    }
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
            }
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Arc<Peer>)>> {
        // Begins behind the one that had its turn, so that a busy listener does not hide the others.
        for _ in 0..self.bound.len() {
            let bound = &self.bound[self.next % self.bound.len()];
            self.next = self.next.wrapping_add(1);
            if let Poll::Ready(accepted) = bound.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }
}

impl Bound {
    fn handed(place: &Listen, given: handed::Socket) -> Result<Self, BindError> {
        let socket = match given.listener {
            handed::Listener::Tcp(listener) => TcpListener::from_std(listener).map(Socket::Tcp),
            #[cfg(unix)]
            handed::Listener::Unix(listener) => UnixListener::from_std(listener).map(Socket::Unix),
        };
        let failed = |source| BindError::Other { address: format!("{place:?}"), source };
        Ok(Self { place: Arc::new(place.clone()), socket: socket.map_err(failed)?, is_handed: true })
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Arc<Peer>)>> {
        let listener = Arc::clone(&self.place);
        match &self.socket {
            Socket::Tcp(socket) => socket.poll_accept(cx).map_ok(|(stream, address)| {
                // Heads and ends of answers must not wait for an acknowledgement; a socket that refuses is already broken.
                let _ = stream.set_nodelay(true);
                let local = stream.local_addr().ok();
                (Stream::Tcp(stream), Arc::new(Peer { local, ..Peer::new(Some(address), listener) }))
            }),
            #[cfg(unix)]
            Socket::Unix(socket) => {
                socket.poll_accept(cx).map_ok(|(stream, _)| (Stream::Unix(stream), Arc::new(Peer::new(None, listener))))
            }
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let (Listen::Unix(path), false) = (&*self.place, self.is_handed) {
            // Nobody else can have bound it while we listened; a file that is left over is removed at the next start.
            // Its disk may not answer: that must not delay other listeners.
            let (path, (done, wait)) = (path.clone(), std::sync::mpsc::channel());
            std::thread::spawn(move || {
                let _ = std::fs::remove_file(path);
                let _ = done.send(());
            });
            let _ = wait.recv_timeout(REMOVAL);
        }
    }
}

/// A client that left before it was accepted says nothing about the next one.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn bind_tcp(address: SocketAddr, place: &Listen, places: &[Listen]) -> io::Result<Bound> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    // On Windows the option would let two processes share the port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    // Where IPv4 on the same port was asked for as well, `[::]` must not take it.
    #[cfg(unix)]
    if address.is_ipv6() && places.iter().any(|place| is_ipv4(place, address.port())) {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    #[cfg(not(unix))]
    let _ = places;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let local = listener.local_addr()?;
    let place = if let Listen::Tls(_) = place { Listen::Tls(local) } else { Listen::Tcp(local) };
    Ok(Bound { place: Arc::new(place), socket: Socket::Tcp(listener), is_handed: false })
}

#[cfg(unix)]
fn is_ipv4(place: &Listen, port: u16) -> bool {
    place.address().is_some_and(|address| address.is_ipv4() && address.port() == port)
}

/// Whether the machine just has no IPv6.
fn no_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    #[cfg(unix)]
    let no_family = error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    #[cfg(not(unix))]
    let no_family = false;
    address.ip() == IpAddr::V6(Ipv6Addr::LOCALHOST) && (no_family || error.kind() == io::ErrorKind::AddrNotAvailable)
}

fn tcp_error(address: SocketAddr, error: io::Error) -> BindError {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let mut remedy = match free_port(address) {
                Some(free) => format!("stop that one, or listen elsewhere: `--listen {free}`"),
                None => "stop that one, or listen on another port: `--listen ADDRESS:PORT`".to_owned(),
            };
            if cfg!(target_os = "macos") && address.port() == 5000 {
                remedy.push_str(
                    "; on macOS this is usually AirPlay Receiver (System Settings, General, AirDrop & Handoff)",
                );
            }
            let holder = holder(address).map(|holder| format!(" by {holder}")).unwrap_or_default();
            BindError::InUse { address: address.to_string(), holder, remedy }
        }
        io::ErrorKind::AddrNotAvailable => BindError::NotHere(address),
        io::ErrorKind::PermissionDenied => BindError::Denied {
            address: address.to_string(),
            remedy: "choose a port above 1023, or give the process CAP_NET_BIND_SERVICE".to_owned(),
        },
        _ => BindError::Other { address: address.to_string(), source: error },
    }
}

#[cfg(not(unix))]
async fn bind_unix(path: &std::path::Path) -> Result<Bound, BindError> {
    Err(BindError::NoUnixSockets(path.to_owned()))
}

#[cfg(unix)]
async fn bind_unix(path: &std::path::Path) -> Result<Bound, BindError> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let address = format!("unix:{}", path.display());
    let fail = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => BindError::Denied {
            address: address.clone(),
            remedy: "make its folder writable for the user that larder runs as".to_owned(),
        },
        _ => BindError::Other { address: address.clone(), source: error },
    };
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) if UnixStream::connect(path).await.is_ok() => {
            return Err(BindError::InUse {
                address,
                holder: String::new(),
                remedy: "stop the process that answers there, or choose another path".to_owned(),
            });
        }
        Ok(_) => std::fs::remove_file(path).map_err(fail)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => (),
        Err(error) => return Err(fail(error)),
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(fail)?;
    Ok(Bound { place: Arc::new(Listen::Unix(path.to_owned())), socket: Socket::Unix(listener), is_handed: false })
}
