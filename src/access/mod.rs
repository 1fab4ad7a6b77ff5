//! Who is asking, and what they may do. Decided in this one place, before the cache is asked, for every route to content.
//!
//! A request passes it twice. [`Access::admit`] lets its caller in, or not: by network, on a Unix socket, or with a user's password.
//! [`Access::permit`] says what a [`Guest`] may do with a repository, by rules. Neither looks at what is stored, so that no answer
//! tells a caller without rights whether something exists.
//!
//! * [`rules`]: networks, rules, and the defence of a loopback listener against pages in a local browser (DNS rebinding).
//! * [`users`]: the users file, its passwords, and patience with those who guess.

mod basic;
mod refusal;
mod rules;
mod users;

pub use refusal::{Challenge, Refusal};
pub use rules::Caller;

use crate::config::{AccessSettings, Right};
use crate::oci::{DOCKER_HUB, Repository};
use crate::telemetry::Metrics;
use ipnet::IpNet;
use rules::Rules;
use std::net::IpAddr;
use std::sync::Arc;
use users::Logins;

/// The one place that decides; a cheap clone.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    open_to: Vec<IpNet>,
    rules: Rules,
    names: Vec<String>,
    logins: Option<Logins>,
}

/// A caller who has been let in.
#[derive(Clone, Debug)]
pub struct Guest {
    address: Option<IpAddr>,
    user: Option<Arc<str>>,
}

impl Guest {
    /// The user's name, if the caller has said and proved it.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

impl Access {
    /// `names` are those, besides loopback's, under which a loopback listener may be reached: the operator's and the upstreams'. To be
    /// called in a runtime if there is a users file, which is looked at again and again.
    #[must_use]
    pub fn new(settings: &AccessSettings, names: impl IntoIterator<Item = String>, metrics: &Arc<Metrics>) -> Self {
        let mut names: Vec<String> = names.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        if names.iter().any(|name| DOCKER_HUB.contains(&name.as_str())) {
            names.extend(DOCKER_HUB.map(str::to_owned));
        }
        let logins = settings.users_file.as_deref().map(|file| Logins::new(file, Arc::clone(metrics)));
        let rules = Rules::new(settings.rules.clone());
        Self(Arc::new(Inner { open_to: settings.open_to.clone(), rules, names, logins }))
    }

    /// Whether a loopback listener was reached under a name of its own.
    pub fn recognize(&self, caller: &Caller<'_>) -> Result<(), Refusal> {
        rules::check_host(caller, &self.0.names)
    }

    /// Lets the caller in, or says why not. A credential that is shown is checked, wherever it comes from.
    pub async fn admit(&self, caller: &Caller<'_>) -> Result<Guest, Refusal> {
        let inner = &*self.0;
        self.recognize(caller)?;
        let address = caller.address.map(|address| address.to_canonical());
        if let Some(logins) = &inner.logins
            && let Some(shown) = caller.authorization
        {
            let user = logins.check(address, shown).await?;
            return Ok(Guest { address, user: Some(user) });
        }
        match address {
            Some(address) if !rules::is_in(&inner.open_to, address) => match &inner.logins {
                Some(_) => Err(Refusal::login()),
                None => Err(Refusal::Network(address)),
            },
            address => Ok(Guest { address, user: None }),
        }
    }

    /// Whether a caller who is let in may do this with this repository.
    pub fn permit(&self, guest: &Guest, right: Right, repository: &Repository) -> Result<(), Refusal> {
        let inner = &*self.0;
        if inner.rules.allow(guest, right, repository) {
            return Ok(());
        }
        // Somebody may, who says who they are.
        if guest.user.is_none() && inner.logins.is_some() && inner.rules.allow_some_user(right, repository) {
            return Err(Refusal::login());
        }
        Err(Refusal::Right { right, repository: repository.clone() })
    }

    /// Whether some repositories are not for everybody to pull, so that lists of repositories have to be cut.
    #[must_use]
    pub fn restricts_pulls(&self) -> bool {
        self.0.rules.restrict_pulls()
    }
}

#[cfg(test)]
mod tests;
