//! Networks, names and rules. Pure.

use super::refusal::Refusal;
use crate::config::{AccessRule, Right};
use crate::oci::{Deed, Registry, Repository};
use http::HeaderValue;
use ipnet::IpNet;
use std::net::IpAddr;

/// Where a request came from and to, and who says to have sent it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller<'a> {
    /// The caller's address; `None` on a Unix socket, whose file permissions have let the caller in.
    pub address: Option<IpAddr>,
    /// The address that was connected to; `None` on a Unix socket.
    pub local: Option<IpAddr>,
    /// The `Host` header without its port.
    pub host: Option<&'a str>,
    /// The `Host` header as it came, where it is an upstream's own name.
    pub authority: Option<&'a str>,
    /// The upstream whose own name that is.
    pub own_name: Option<&'a Registry>,
    /// Whether the connection is encrypted.
    pub encrypted: bool,
    /// Whom the caller's verified certificate names.
    pub certificate: Option<&'a str>,
    /// `Authorization`, as it came.
    pub authorization: Option<&'a HeaderValue>,
    /// Whether there is more than one line of it: who reads another one than larder would be somebody else.
    pub shows_several: bool,
}

/// What a caller wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Act<'a> {
    /// The right that rules know for it.
    pub right: Right,
    /// The upstream.
    pub registry: &'a Registry,
    pub repository: Option<&'a Repository>,
    /// What it is to upstream.
    pub deed: &'a Deed,
}

impl Act<'_> {
    /// What is asked for, in words.
    pub(super) fn is_about(&self) -> &'static str {
        match self.deed {
            Deed::Blob(..) => "such a blob",
            Deed::Manifest(..) => "such a manifest",
            _ => "such a repository",
        }
    }

    /// What is done, in words.
    pub(super) fn words(&self) -> &'static str {
        match self.deed {
            Deed::Login => "log in",
            Deed::Catalogue => "list its repositories",
            Deed::Manifest(..) | Deed::Blob(..) => "pull from this repository",
            Deed::Tags(_) | Deed::Referrers(..) => "list what is in this repository",
            Deed::Push(_) => "push to this repository",
            Deed::Delete(_) => "delete from this repository",
            Deed::Metadata(_) => "read the attributes of this repository",
            Deed::Locks(_) => "change the attributes of this repository",
        }
    }
}

/// `[[access.rules]]`: they add up; there is no order and no deny.
pub(super) struct Rules(Vec<AccessRule>);

impl Rules {
    pub(super) fn new(rules: Vec<AccessRule>) -> Self {
        Self(rules)
    }

    /// Pushing and deleting need a rule; pulling needs one only where some rule names the repository for pull.
    pub(super) fn allow(
        &self,
        address: Option<IpAddr>,
        user: Option<&str>,
        right: Right,
        repository: &Repository,
    ) -> bool {
        let mut restricted = right != Right::Pull;
        for rule in self.about(right, repository) {
            if is_from(address, rule.networks.as_deref()) && is_one_of(user, rule.users.as_deref()) {
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

/// Whether the caller is in one of the networks; one on a Unix socket is in none, and anywhere all the same.
fn is_from(address: Option<IpAddr>, networks: Option<&[IpNet]>) -> bool {
    let Some(networks) = networks else { return true };
    address.is_some_and(|address| is_in(networks, address))
}

fn is_one_of(user: Option<&str>, users: Option<&[String]>) -> bool {
    let Some(users) = users else { return true };
    user.is_some_and(|user| users.iter().any(|known| known == user))
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
