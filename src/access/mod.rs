//! Who is asking, and what they may do. Decided in this one place, before the cache is asked, for every route to content.
//!
//! A request passes it twice. [`Access::admit`] lets its caller in, or not: by network, on a Unix socket, with a certificate or a
//! user's password, or with a credential that is for upstream to judge. [`Access::permit`] says what a [`Guest`] may do: by upstream's verdict on such a
//! credential, and by rules. Neither looks at what is stored, so that no answer tells a caller without rights whether something exists.
//!
//! * `rules`: networks, rules, and the defence of a loopback listener against pages in a local browser (DNS rebinding).
//! * `users`: the users file and its passwords. `patience`: how those are treated who guess.
//! * `ask`: upstream's verdicts on callers, kept. `service`: the token service under an upstream's own name.

mod ask;
mod basic;
mod patience;
mod refusal;
mod rules;
mod service;
mod users;

pub use ask::{AskUpstream, Given, Pending, Said, Shown, TokenRequest, TokenSaid};
pub use refusal::{Challenge, Refusal};
pub use rules::{Act, Caller};
pub use service::{Grant, TokenAsked, fields};

use crate::config::{AccessSettings, Right};
use crate::oci::{DOCKER_HUB, Registry, Repository};
use crate::telemetry::Metrics;
use ask::{Asking, Decided, Own, Seal};
use basic::Basic;
use ipnet::IpNet;
use patience::Patience;
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
    patience: Patience,
    seal: Seal,
    logins: Option<Logins>,
    asking: Option<Asking>,
    metrics: Arc<Metrics>,
}

/// A caller who has been let in, as far as that could be said without knowing what for.
#[derive(Debug)]
pub struct Guest {
    address: Option<IpAddr>,
    way: Way,
    challenge: Challenge,
}

/// How the caller came in.
#[derive(Debug)]
enum Way {
    /// Not yet: what to ask for depends on what is to be done.
    Nobody,
    /// By network, or through a Unix socket.
    Open,
    /// With a user's password, or a certificate that names the user.
    User(Arc<str>),
    /// With a token of larder's own; none if it is no longer good.
    Own(Option<Box<Own>>, Registry),
    /// With a credential that upstream has to judge.
    Shown(Shown),
}

impl Access {
    /// `names` are those, besides loopback's, under which a loopback listener may be reached: the operator's and the upstreams'.
    /// `upstreams` are asked where the settings say so. To be called in a runtime if there is a users file, which is looked at again
    /// and again.
    #[must_use]
    pub fn new(
        settings: &AccessSettings,
        names: impl IntoIterator<Item = String>,
        upstreams: Arc<dyn AskUpstream>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let mut names: Vec<String> = names.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        if names.iter().any(|name| DOCKER_HUB.contains(&name.as_str())) {
            names.extend(DOCKER_HUB.map(str::to_owned));
        }
        let logins = settings.users_file.as_deref().map(|file| Logins::new(file, Arc::clone(metrics)));
        let asking = settings.ask_upstream.then(|| Asking::new(settings, upstreams, metrics));
        Self(Arc::new(Inner {
            open_to: settings.open_to.clone(),
            rules: Rules::new(settings.rules.clone()),
            names,
            patience: Patience::new(),
            seal: Seal::new(),
            logins,
            asking,
            metrics: Arc::clone(metrics),
        }))
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
        let named = caller.certificate.map(|name| Way::User(Arc::from(name)));
        if inner.logins.is_none() && inner.asking.is_none() {
            return match address {
                _ if named.is_some() => {
                    Ok(Guest { address, way: named.unwrap_or(Way::Open), challenge: Challenge::Basic })
                }
                Some(address) if !rules::is_in(&inner.open_to, address) => Err(Refusal::Network(address)),
                address => Ok(Guest { address, way: Way::Open, challenge: Challenge::Basic }),
            };
        }
        let challenge = inner.challenge(caller);
        let way = match caller.authorization {
            _ if caller.shows_several => return Err(Refusal::wrong(challenge)),
            Some(_) => Box::pin(inner.read(address, caller, &challenge)).await?,
            None if named.is_some() => named.unwrap_or(Way::Nobody),
            None if address.is_none_or(|address| rules::is_in(&inner.open_to, address)) => Way::Open,
            // A token has to be for something: that is not known yet.
            None if challenge != Challenge::Basic => Way::Nobody,
            None => return Err(Refusal::login(challenge)),
        };
        Ok(Guest { address, way, challenge })
    }

    /// Whether a caller who is let in may do this.
    pub async fn permit(&self, guest: &Guest, act: &Act<'_>) -> Result<(), Refusal> {
        let inner = &*self.0;
        let has_credential = matches!(guest.way, Way::Shown(_) | Way::Own(..));
        if let Some(asking) = inner.asking.as_ref().filter(|_| !has_credential)
            && asking.upstreams.is_asked_as_callers(act.registry)
        {
            return Err(Refusal::login_for(guest, act));
        }
        let name = match &guest.way {
            Way::Nobody => return Err(Refusal::login_for(guest, act)),
            Way::Open => None,
            Way::User(name) => Some(Arc::clone(name)),
            Way::Own(own, registry) => inner.by_own_token(guest, own.as_deref(), registry, act)?,
            Way::Shown(shown) => Box::pin(inner.judged(guest, shown, act)).await?,
        };
        let Some(repository) = act.repository else { return Ok(()) };
        inner.by_rules(guest, name.as_deref(), act, repository)
    }

    /// The credential that the caller has shown for upstream to judge.
    #[must_use]
    pub fn shown<'a>(&self, guest: &'a Guest) -> Option<&'a Shown> {
        match &guest.way {
            Way::Shown(shown) => Some(shown),
            _ => None,
        }
    }

    /// Whether rules let a caller pull this, whose right to the list that names it has been decided.
    #[must_use]
    pub fn may_see(&self, guest: &Guest, repository: &Repository) -> bool {
        let name = match &guest.way {
            Way::User(name) => Some(&**name),
            Way::Own(own, _) => own.as_ref().and_then(|own| own.sub.as_deref()),
            Way::Shown(Shown::Password { user, .. }) => Some(&**user),
            Way::Nobody | Way::Open | Way::Shown(Shown::Bearer(_)) => None,
        };
        self.0.rules.allow(guest.address, name, Right::Pull, repository)
    }

    /// Whether some repositories are not for everybody to pull, so that lists of repositories have to be cut.
    #[must_use]
    pub fn restricts_pulls(&self) -> bool {
        self.0.rules.restrict_pulls() || self.0.asking.is_some()
    }
}

impl Inner {
    /// How this caller is asked to log in: with a token where upstream is asked under its own name.
    fn challenge(&self, caller: &Caller<'_>) -> Challenge {
        match (caller.own_name, caller.authority) {
            (Some(_), Some(authority)) if self.asking.is_some() => {
                let scheme = if caller.encrypted { "https" } else { "http" };
                let (realm, service) = (format!("{scheme}://{authority}/oauth2/token"), authority.to_owned());
                Challenge::Bearer { realm, service, scope: None, error: None }
            }
            _ => Challenge::Basic,
        }
    }

    async fn read(&self, address: Option<IpAddr>, caller: &Caller<'_>, challenge: &Challenge) -> Result<Way, Refusal> {
        let Some(authorization) = caller.authorization else { return Ok(Way::Open) };
        let wrong = || Refusal::wrong(challenge.clone());
        if let Some(token) = basic::scheme(authorization, "bearer")
            && Seal::is_own(token)
        {
            let registry = caller.own_name.filter(|_| self.asking.is_some()).ok_or_else(wrong)?;
            return Ok(Way::Own(self.seal.open(token, registry).map(Box::new), registry.clone()));
        }
        if let Some(logins) = &self.logins {
            let login = Basic::read(authorization);
            let is_theirs = login.as_ref().is_some_and(|login| logins.has(login.user()));
            if is_theirs || self.asking.is_none() {
                let checked = logins.check(address, login.as_ref(), &self.patience).await;
                return checked.map(Way::User).map_err(|refused| refused.with(challenge));
            }
        }
        if let Some(shown) = Shown::read(authorization) {
            return Ok(Way::Shown(shown));
        }
        self.patience.wrong(address, None).await;
        Err(wrong())
    }

    /// What a token of larder's own is good for: what it says, and a user's as long as the user is the same.
    fn by_own_token(
        &self,
        guest: &Guest,
        own: Option<&Own>,
        registry: &Registry,
        act: &Act<'_>,
    ) -> Result<Option<Arc<str>>, Refusal> {
        let dead = || Err(Refusal::token(guest, act));
        let Some(own) = own.filter(|own| act.registry == registry && own.kind != service::REFRESH) else {
            return dead();
        };
        if own.kind == service::USER {
            let (Some(logins), Some(name)) = (&self.logins, &own.sub) else { return dead() };
            let same = logins.fingerprint(&self.seal, name).is_some_and(|now| now == own.of);
            return if same { Ok(Some(Arc::from(name.as_str()))) } else { dead() };
        }
        let covered = ask::cover(&own.grants(), act.deed);
        if covered { Ok(own.sub.as_deref().map(Arc::from)) } else { Err(Refusal::scope(guest, act)) }
    }

    /// Upstream's verdict; whom it takes the caller for.
    async fn judged(&self, guest: &Guest, shown: &Shown, act: &Act<'_>) -> Result<Option<Arc<str>>, Refusal> {
        let Some(asking) = &self.asking else { return Err(Refusal::wrong(guest.challenge.clone())) };
        match asking.decide(&self.seal, shown, act).await {
            Decided::Allowed(name) => Ok(name),
            Decided::Denied => Err(Refusal::scope(guest, act)),
            Decided::Absent => Err(Refusal::Absent { about: act.is_about() }),
            Decided::Away(why) => Err(Refusal::Away { why }),
            Decided::Throttled(retry) => Err(Refusal::Busy { retry }),
            Decided::Wrong => {
                if let Shown::Password { .. } = shown {
                    self.metrics.logins.with_label_values(&["upstream", "failed"]).inc();
                    self.patience.wrong(guest.address, None).await;
                    return Err(Refusal::wrong(guest.challenge.clone()));
                }
                Err(Refusal::token(guest, act))
            }
        }
    }

    fn by_rules(
        &self,
        guest: &Guest,
        name: Option<&str>,
        act: &Act<'_>,
        repository: &Repository,
    ) -> Result<(), Refusal> {
        if self.rules.allow(guest.address, name, act.right, repository) {
            return Ok(());
        }
        // Somebody may, who says who they are.
        let nameless = matches!(guest.way, Way::Open) && (self.logins.is_some() || self.asking.is_some());
        if nameless && self.rules.allow_some_user(act.right, repository) {
            return Err(Refusal::login_for(guest, act));
        }
        Err(Refusal::Right { right: act.right, repository: repository.clone() })
    }
}

#[cfg(test)]
mod tests;
