use crate::config::Right;
use crate::oci::Repository;
use std::net::IpAddr;
use std::time::Duration;

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
    /// The caller has to say who they are, or what they said is wrong.
    #[error("{why}")]
    Login {
        /// How to say it.
        challenge: Challenge,
        /// What was wrong.
        why: &'static str,
    },
    /// More logins than can be checked in time.
    #[error("too many logins are being checked: try again in a moment")]
    Busy {
        /// When.
        retry: Duration,
    },
}

/// How a client is asked to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// With user and password.
    Basic,
}

impl Challenge {
    /// The value of `WWW-Authenticate`. Some clients look for the scheme's name anywhere in it: no other word may hold it.
    #[must_use]
    pub fn to_line(&self) -> String {
        match self {
            Self::Basic => "Basic realm=\"larder\"".to_owned(),
        }
    }
}

impl Refusal {
    /// Nobody has said who they are.
    pub(super) fn login() -> Self {
        Self::Login {
            challenge: Challenge::Basic,
            why: "larder wants a login here: docker login, oras login, or the like, as a user of its users_file",
        }
    }

    /// What was said is wrong. One text for all of it: it does not tell which users there are.
    pub(super) fn wrong() -> Self {
        Self::Login {
            challenge: Challenge::Basic,
            why: "larder refuses this login: there is no such user with this password in its users_file",
        }
    }
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
