//! Sockets that systemd made and hands over (`larder.socket`): they outlive the process, so that a restart refuses no connection.
//!
//! Which listener a socket is for is told by its name, `FileDescriptorName=` of the socket unit.

use crate::config::{Handed, Listen};
use std::io;

/// Why what was handed over cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HandedError {
    /// A name that means nothing here.
    #[error(
        "systemd hands over a socket by the name '{0}': write FileDescriptorName=registry into the socket unit, or FileDescriptorName=admin for the admin listener"
    )]
    Name(String),
    /// Not what is listened on.
    #[error("systemd hands over a '{0}' that is no listening stream socket: write ListenStream= in the socket unit")]
    Kind(String),
    /// A second socket for the admin listener, or one that is no TCP socket.
    #[error(
        "the admin listener takes one TCP socket from systemd: leave one ListenStream=ADDRESS:PORT in the unit with FileDescriptorName=admin"
    )]
    Admin,
    /// The variables that announce the sockets, or the sockets themselves, are broken.
    #[error("the sockets that systemd hands over cannot be used: {0}")]
    Other(#[from] io::Error),
}

/// A listening socket, and where it listens.
#[derive(Debug)]
pub(in crate::server) struct Socket {
    pub(super) place: Listen,
    pub(super) listener: Listener,
}

#[derive(Debug)]
pub(in crate::server) enum Listener {
    Tcp(std::net::TcpListener),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener),
}

/// The sockets that this process was given.
#[derive(Debug, Default)]
pub struct Sockets {
    registry: Vec<Socket>,
    admin: Vec<Socket>,
}

impl Sockets {
    /// Takes what was handed to this process. Once: a second call finds the same sockets, which are taken.
    ///
    /// # Errors
    /// If there is something that larder has no use for.
    #[cfg(unix)]
    pub fn of_process() -> Result<Self, HandedError> {
        let names: Vec<String> = sd_notify::listen_fds_with_names()?.map(|(_, name)| name).collect();
        let mut sockets = Self::default();
        if names.is_empty() {
            return Ok(sockets);
        }
        let mut given = listenfd::ListenFd::from_env();
        for (at, name) in names.into_iter().enumerate() {
            let to = match &*name {
                "registry" => &mut sockets.registry,
                "admin" => &mut sockets.admin,
                _ => return Err(HandedError::Name(name)),
            };
            to.push(take(&mut given, at)?.ok_or(HandedError::Kind(name))?);
        }
        match &sockets.admin[..] {
            [] | [Socket { place: Listen::Tcp(_), .. }] => Ok(sockets),
            _ => Err(HandedError::Admin),
        }
    }

    /// Elsewhere nobody hands over sockets.
    #[cfg(not(unix))]
    pub fn of_process() -> Result<Self, HandedError> {
        Ok(Self::default())
    }

    /// Where they listen, for the configuration to agree with.
    #[must_use]
    pub fn places(&self) -> Handed {
        let places = |sockets: &[Socket]| sockets.iter().map(|socket| socket.place.clone()).collect();
        Handed { registry: places(&self.registry), admin: self.admin.iter().find_map(|it| it.place.address()) }
    }

    /// Those of the registry API.
    pub(in crate::server) fn take_registry(&mut self) -> Vec<Socket> {
        std::mem::take(&mut self.registry)
    }

    /// Those of the admin listener.
    pub(in crate::server) fn take_admin(&mut self) -> Vec<Socket> {
        std::mem::take(&mut self.admin)
    }
}

#[cfg(unix)]
fn take(given: &mut listenfd::ListenFd, at: usize) -> io::Result<Option<Socket>> {
    if let Ok(Some(listener)) = given.take_tcp_listener(at) {
        listener.set_nonblocking(true)?;
        let place = Listen::Tcp(listener.local_addr()?);
        return Ok(Some(Socket { place, listener: Listener::Tcp(listener) }));
    }
    let Ok(Some(listener)) = given.take_unix_listener(at) else { return Ok(None) };
    listener.set_nonblocking(true)?;
    let path = listener.local_addr()?.as_pathname().map(std::path::Path::to_owned);
    Ok(path.map(|path| Socket { place: Listen::Unix(path), listener: Listener::Unix(listener) }))
}
