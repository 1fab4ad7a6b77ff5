//! Who is asking, and what they may do. Decided in this one place, before the cache is asked, for every route to content.
//!
//! Today that is: networks that are let in without a credential, and the defence of a loopback listener against pages in a local
//! browser (DNS rebinding). Callers with users, certificates or credentials of their own add their ways in here.

use crate::config::AccessSettings;
use ipnet::IpNet;
use std::net::IpAddr;

/// Why a caller is turned away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The address is in no network that is let in.
    #[error("{0} may not use this larder: it is in none of the networks of `[access] open_to` (or `--open-to`)")]
    Network(IpAddr),
    /// A loopback listener was reached under a name that is not its own.
    #[error(
        "'{0}' is no name of this host: add it to `[server] names` if clients are to use it (a loopback listener answers only to \
         loopback names, so that a web page cannot reach it through DNS)"
    )]
    Host(String),
    /// Pushes and deletes are not let through.
    #[error("this larder lets nobody push or delete: it serves pulls only; push to the upstream registry itself")]
    Write,
}

/// The rules.
#[derive(Clone, Debug)]
pub struct Access {
    open_to: Vec<IpNet>,
    names: Vec<String>,
}

/// Where a request came from and to.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The caller's address; `None` on a Unix socket, whose file permissions have let the caller in.
    pub address: Option<IpAddr>,
    /// The address that was connected to; `None` on a Unix socket.
    pub local: Option<IpAddr>,
    /// The `Host` header without its port.
    pub host: Option<&'a str>,
}

impl Access {
    /// `names` are those, besides loopback's, under which a loopback listener may be reached: the operator's and the upstreams'.
    #[must_use]
    pub fn new(settings: &AccessSettings, names: impl IntoIterator<Item = String>) -> Self {
        let names = names.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { open_to: settings.open_to.clone(), names }
    }

    /// Whether the caller is let in.
    pub fn admit(&self, caller: &Caller<'_>) -> Result<(), Refusal> {
        if let Some(address) = caller.address {
            let address = address.to_canonical();
            if !self.open_to.iter().any(|network| network.contains(&address)) {
                return Err(Refusal::Network(address));
            }
        }
        match (caller.local, caller.host) {
            (Some(local), Some(host)) if local.to_canonical().is_loopback() && !self.is_own_name(host) => {
                Err(Refusal::Host(host.chars().take(255).collect()))
            }
            _ => Ok(()),
        }
    }

    fn is_own_name(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        address.is_ok_and(|address| address.to_canonical().is_loopback())
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.names.iter().any(|name| *name == host || name.split(':').next() == Some(&host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        let open_to = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        Access::new(&AccessSettings { open_to }, ["build.example".to_owned(), "myacr.azurecr.io".to_owned()])
    }

    fn admit(address: &str, local: &str, host: Option<&str>) -> Result<(), Refusal> {
        access().admit(&Caller { address: address.parse().ok(), local: local.parse().ok(), host })
    }

    #[test]
    fn only_open_networks_are_let_in() {
        assert_eq!(admit("10.1.2.3", "10.0.0.1", Some("whatever")), Ok(()));
        assert_eq!(admit("::ffff:10.1.2.3", "::ffff:10.0.0.1", None), Ok(()));
        assert!(matches!(admit("192.168.0.1", "10.0.0.1", None), Err(Refusal::Network(_))));
        assert_eq!(access().admit(&Caller { address: None, local: None, host: Some("x") }), Ok(()), "a Unix socket");
    }

    #[test]
    fn a_page_in_a_browser_cannot_reach_a_loopback_listener() {
        for own in [
            "localhost",
            "LOCALHOST",
            "127.0.0.1",
            "[::1]",
            "127.9.9.9",
            "a.localhost",
            "build.example",
            "myacr.azurecr.io",
        ] {
            assert_eq!(admit("127.0.0.1", "127.0.0.1", Some(own)), Ok(()), "{own}");
        }
        assert_eq!(admit("127.0.0.1", "127.0.0.1", None), Ok(()), "HTTP/1.0 has no Host");
        for foreign in ["evil.example", "localhost.evil.example", "10.0.0.1", "notlocalhost"] {
            assert!(matches!(admit("127.0.0.1", "127.0.0.1", Some(foreign)), Err(Refusal::Host(_))), "{foreign}");
        }
    }
}
