use super::Guest;
use super::rules::Act;
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
        repository: Repository,
    },
    /// Upstream does not let this caller do this.
    #[error(
        "{upstream} does not let this caller {deed}: its login lacks that right there, or there is no such repository"
    )]
    Upstream {
        upstream: String,
        /// What was to be done.
        deed: &'static str,
    },
    /// Upstream has nothing of the kind for this caller.
    #[error("upstream does not have {about} for this caller")]
    Absent {
        /// What was asked for.
        about: &'static str,
    },
    /// Upstream cannot be asked about a caller that it has not been asked about lately.
    #[error("upstream cannot be asked whether this caller may do that: {why}; try again later")]
    Away { why: String },
    /// The caller has to say who they are, or what they said is wrong.
    #[error("{why}")]
    Login {
        /// How to say it.
        challenge: Challenge,
        /// What was wrong.
        why: &'static str,
    },
    /// More than can be checked in time.
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
    /// With a token.
    Bearer {
        /// Where to get it.
        realm: String,
        /// The name of the one who wants it.
        service: String,
        /// What it must allow.
        scope: Option<String>,
        /// What was wrong with the one that came.
        error: Option<&'static str>,
    },
}

impl Challenge {
    /// The value of `WWW-Authenticate`. Some clients look for the scheme's name anywhere in it: no other word may hold it. The Azure CLI
    /// splits it at blanks: none may follow a comma.
    #[must_use]
    pub fn to_line(&self) -> String {
        match self {
            Self::Basic => "Basic realm=\"larder\"".to_owned(),
            Self::Bearer { realm, service, scope, error } => {
                let part = |name: &str, value: Option<&str>| {
                    value.map_or_else(String::new, |value| format!(",{name}=\"{value}\""))
                };
                let (scope, error) = (part("scope", scope.as_deref()), part("error", *error));
                format!("Bearer realm=\"{realm}\",service=\"{service}\"{scope}{error}")
            }
        }
    }

    /// The same for what is to be done.
    fn about(&self, act: &Act<'_>, wrong: Option<&'static str>) -> Self {
        match self {
            Self::Basic => Self::Basic,
            Self::Bearer { realm, service, .. } => {
                Self::Bearer { realm: realm.clone(), service: service.clone(), scope: act.deed.scope(), error: wrong }
            }
        }
    }
}

impl Refusal {
    /// Nobody has said who they are.
    pub(super) fn login(challenge: Challenge) -> Self {
        Self::Login { challenge, why: "larder wants a login here: docker login, oras login, az acr login or the like" }
    }

    /// The same, for what is to be done.
    pub(super) fn login_for(guest: &Guest, act: &Act<'_>) -> Self {
        Self::login(guest.challenge.about(act, None))
    }

    /// What was said is wrong. One text for all of it: it does not tell which users there are.
    pub(super) fn wrong(challenge: Challenge) -> Self {
        Self::Login { challenge, why: "larder refuses this login: there is no such user with this password" }
    }

    /// A token that is none, or no longer.
    pub(super) fn token(guest: &Guest, act: &Act<'_>) -> Self {
        let why = "this token is not, or no longer, good here: get another one";
        Self::Login { challenge: guest.challenge.about(act, Some("invalid_token")), why }
    }

    /// Upstream does not let the caller do this. Under its own name it says so as upstream does, and a client may get a token for more.
    pub(super) fn scope(guest: &Guest, act: &Act<'_>) -> Self {
        match guest.challenge {
            Challenge::Basic => Self::Upstream { upstream: act.registry.to_string(), deed: act.words() },
            Challenge::Bearer { .. } => Self::Login {
                challenge: guest.challenge.about(act, Some("insufficient_scope")),
                why: "this token does not allow that: the caller's login lacks the right, or there is no such repository",
            },
        }
    }

    /// The same with another challenge.
    pub(super) fn with(self, challenge: &Challenge) -> Self {
        match self {
            Self::Login { why, .. } => Self::Login { challenge: challenge.clone(), why },
            other => other,
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
