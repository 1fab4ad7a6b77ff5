//! Sockets that systemd hands over, and what the file says of the same listeners: both are to agree.

use super::choices::Listen;
use super::origin::Origin;
use super::reader::{Reader, Setting as _};
use super::values::List;
use std::net::SocketAddr;

/// Where the sockets listen that this process was given at its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// Those of the registry API.
    pub registry: Vec<Listen>,
    /// The one of the admin listener.
    pub admin: Option<SocketAddr>,
}

impl Handed {
    /// `listen` of `[server]`, which has been read: without a key the sockets hold, with one it names the same.
    pub(super) fn registry(&self, reader: &mut Reader, listen: &mut Vec<Listen>) {
        let show = |places: &Vec<Listen>| List::<Listen>::show(places);
        if self.registry.is_empty() {
            return;
        }
        if !reader.was_written("server", "listen") {
            listen.clone_from(&self.registry);
            return reader.show_from("server", "listen", show(listen), Origin::Systemd);
        }
        let is_named = |socket: &Listen| listen.iter().any(|named| named.is_same_socket(socket));
        let is_handed =
            |named: &Listen| named.address().is_none() || self.registry.iter().any(|it| it.is_same_socket(named));
        if !(self.registry.iter().all(is_named) && listen.iter().all(is_handed)) {
            disagree(reader, "server", &format!("listen = {}", show(&self.registry)));
        }
    }

    /// `listen` of `[admin]`, likewise.
    pub(super) fn admin(&self, reader: &mut Reader, listen: &mut SocketAddr) {
        match self.admin {
            Some(socket) if !reader.was_written("admin", "listen") => {
                *listen = socket;
                reader.show_from("admin", "listen", format!("\"{socket}\""), Origin::Systemd);
            }
            Some(socket) if *listen != socket => disagree(reader, "admin", &format!("listen = \"{socket}\"")),
            _ => {}
        }
    }
}

fn disagree(reader: &mut Reader, table: &str, there: &str) {
    let message = format!(
        "systemd hands over other sockets than these: remove the key, write {there}, or change ListenStream= of the socket unit"
    );
    reader.error_at(table, "listen", message);
}
