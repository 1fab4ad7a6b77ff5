//! Who is asking, and what they may do. Decided in this one place, before the cache is asked, for every route to content.
//!
//! Today that is: networks that are let in without a credential, the defence of a loopback listener against pages in a local
//! browser (DNS rebinding), and rules for what a caller who is let in may do with a repository. Callers with users, certificates or
//! credentials of their own add their ways in here.

use crate::config::{AccessRule, AccessSettings, Right};
use crate::oci::{DOCKER_HUB, Repository};
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
    /// No rule lets this caller do this with this repository.
    #[error("{}", forbidden(*right, repository))]
    Right {
        /// What was to be done.
        right: Right,
        /// With what.
        repository: Repository,
    },
}

fn forbidden(right: Right, repository: &Repository) -> String {
    let path = format!("{}/{}", repository.registry, repository.name);
    let flag = match right {
        Right::Pull => String::new(),
        Right::Push | Right::Delete => format!("`--allow {}`, or ", right.as_str()),
    };
    format!(
        "larder does not let this caller {right} {path}: its operator allows it by {flag}a rule in the file, [[access.rules]] \
         with repositories = [\"{path}\"], allow = [\"{right}\"]",
        right = right.as_str()
    )
}

/// The rules.
#[derive(Clone, Debug)]
pub struct Access {
    open_to: Vec<IpNet>,
    rules: Vec<AccessRule>,
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
        let mut names: Vec<String> = names.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        if names.iter().any(|name| DOCKER_HUB.contains(&name.as_str())) {
            names.extend(DOCKER_HUB.map(str::to_owned));
        }
        Self { open_to: settings.open_to.clone(), rules: settings.rules.clone(), names }
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

    /// Whether a caller who is let in may do this with this repository.
    ///
    /// Rules add up. Pushing and deleting need one; pulling needs one only where some rule names the repository for pull.
    pub fn permit(&self, caller: &Caller<'_>, right: Right, repository: &Repository) -> Result<(), Refusal> {
        let mut restricted = right != Right::Pull;
        for rule in &self.rules {
            if !rule.allow.contains(&right) || !rule.repositories.iter().any(|pattern| pattern.matches(repository)) {
                continue;
            }
            if is_from(caller, rule.networks.as_deref()) {
                return Ok(());
            }
            restricted = true;
        }
        if restricted { Err(Refusal::Right { right, repository: repository.clone() }) } else { Ok(()) }
    }

    /// Whether some repositories are not for everybody to pull, so that lists of repositories have to be cut.
    #[must_use]
    pub fn restricts_pulls(&self) -> bool {
        self.rules.iter().any(|rule| rule.allow.contains(&Right::Pull))
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

/// Whether the caller is in one of the networks; one on a Unix socket is in none, and anywhere all the same.
fn is_from(caller: &Caller<'_>, networks: Option<&[IpNet]>) -> bool {
    let Some(networks) = networks else { return true };
    let address = caller.address.map(|address| address.to_canonical());
    address.is_some_and(|address| networks.iter().any(|network| network.contains(&address)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Registry, RepositoryPattern};

    fn access() -> Access {
        let open_to = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        Access::new(
            &AccessSettings { open_to, rules: Vec::new() },
            ["build.example".to_owned(), "myacr.azurecr.io".to_owned()],
        )
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

    fn rule(networks: Option<&[&str]>, pattern: &str, allow: &[Right]) -> AccessRule {
        let networks = networks.map(|networks| networks.iter().map(|network| network.parse().unwrap()).collect());
        AccessRule { networks, repositories: vec![RepositoryPattern::new(pattern)], allow: allow.to_vec() }
    }

    fn permit(rules: &[AccessRule], address: Option<&str>, right: Right, name: &str) -> bool {
        let access = Access::new(&AccessSettings { open_to: Vec::new(), rules: rules.to_vec() }, []);
        let address = address.map(|address| address.parse().unwrap());
        let repository = Repository { registry: Registry::new("a.io"), name: name.parse().unwrap() };
        access.permit(&Caller { address, local: None, host: None }, right, &repository).is_ok()
    }

    #[test]
    fn pushes_and_deletes_need_a_rule_and_pulls_only_where_one_names_the_repository() {
        use Right::{Delete, Pull, Push};
        let here = Some("10.0.0.1");
        assert!(permit(&[], here, Pull, "x"));
        assert!(!permit(&[], here, Push, "x") && !permit(&[], here, Delete, "x"));
        let all = [rule(None, "**", &[Push])];
        assert!(permit(&all, here, Push, "x") && permit(&all, None, Push, "x"), "a Unix socket is anywhere");
        assert!(!permit(&all, here, Delete, "x"));
        assert!(permit(&all, here, Pull, "x"), "a rule that allows more restricts no pull");
        let some =
            [rule(Some(&["10.0.0.0/8"]), "a.io/secret/**", &[Pull, Push]), rule(None, "a.io/secret/open", &[Pull])];
        let elsewhere = Some("192.168.0.1");
        assert!(permit(&some, here, Pull, "secret/x") && permit(&some, Some("::ffff:10.9.9.9"), Push, "secret/x"));
        assert!(!permit(&some, elsewhere, Pull, "secret/x") && !permit(&some, None, Pull, "secret/x"));
        assert!(permit(&some, elsewhere, Pull, "secret/open"), "rules add up");
        assert!(permit(&some, elsewhere, Pull, "public"), "no rule names it");
        assert!(!permit(&some, here, Push, "public"));
    }

    #[test]
    fn a_refusal_says_how_to_allow_it() {
        let repository = Repository { registry: Registry::new("a.io"), name: "x/y".parse().unwrap() };
        let push = Refusal::Right { right: Right::Push, repository: repository.clone() }.to_string();
        assert!(push.contains("--allow push") && push.contains("repositories = [\"a.io/x/y\"]"), "{push}");
        let pull = Refusal::Right { right: Right::Pull, repository }.to_string();
        assert!(!pull.contains("--allow") && pull.contains("allow = [\"pull\"]"), "{pull}");
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
