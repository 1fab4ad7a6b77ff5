//! Networks, names and rules. Pure.

use super::Guest;
use super::refusal::Refusal;
use crate::config::{AccessRule, Right};
use crate::oci::Repository;
use http::HeaderValue;
use ipnet::IpNet;
use std::net::IpAddr;

/// Where a request came from and to, and who says to have sent it.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The caller's address; `None` on a Unix socket, whose file permissions have let the caller in.
    pub address: Option<IpAddr>,
    /// The address that was connected to; `None` on a Unix socket.
    pub local: Option<IpAddr>,
    /// The `Host` header without its port.
    pub host: Option<&'a str>,
    /// `Authorization`, as it came.
    pub authorization: Option<&'a HeaderValue>,
}

/// `[[access.rules]]`: they add up; there is no order and no deny.
pub(super) struct Rules(Vec<AccessRule>);

impl Rules {
    pub(super) fn new(rules: Vec<AccessRule>) -> Self {
        Self(rules)
    }

    /// Pushing and deleting need a rule; pulling needs one only where some rule names the repository for pull.
    pub(super) fn allow(&self, guest: &Guest, right: Right, repository: &Repository) -> bool {
        let mut restricted = right != Right::Pull;
        for rule in self.about(right, repository) {
            if is_from(guest, rule.networks.as_deref()) && is_one_of(guest, rule.users.as_deref()) {
                return true;
            }
            restricted = true;
        }
        !restricted
    }

    /// Whether a rule lets some user do this, wherever they are.
    pub(super) fn allow_some_user(&self, right: Right, repository: &Repository) -> bool {
        self.about(right, repository).any(|rule| rule.users.is_some())
    }

    pub(super) fn restrict_pulls(&self) -> bool {
        self.0.iter().any(|rule| rule.allow.contains(&Right::Pull))
    }

    fn about(&self, right: Right, repository: &Repository) -> impl Iterator<Item = &AccessRule> {
        let matches = |rule: &&AccessRule| rule.repositories.iter().any(|pattern| pattern.matches(repository));
        self.0.iter().filter(move |rule| rule.allow.contains(&right)).filter(matches)
    }
}

/// Whether the guest is in one of the networks; one on a Unix socket is in none, and anywhere all the same.
fn is_from(guest: &Guest, networks: Option<&[IpNet]>) -> bool {
    let Some(networks) = networks else { return true };
    guest.address.is_some_and(|address| is_in(networks, address))
}

fn is_one_of(guest: &Guest, users: Option<&[String]>) -> bool {
    let Some(users) = users else { return true };
    guest.user.as_deref().is_some_and(|user| users.iter().any(|known| known == user))
}

pub(super) fn is_in(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// A loopback listener answers to its own names alone.
pub(super) fn check_host(caller: &Caller<'_>, names: &[String]) -> Result<(), Refusal> {
    match (caller.local, caller.host) {
        (Some(local), Some(host)) if local.to_canonical().is_loopback() && !is_own_name(host, names) => {
            Err(Refusal::Host(host.chars().take(255).collect()))
        }
        _ => Ok(()),
    }
}

fn is_own_name(host: &str, names: &[String]) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.is_ok_and(|address| address.to_canonical().is_loopback())
        || host == "localhost"
        || host.ends_with(".localhost")
        || names.iter().any(|name| *name == host || name.split(':').next() == Some(&host))
}
