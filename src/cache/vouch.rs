//! For which repositories bytes may answer. The one place that decides it, for all that is stored or on its way.
//!
//! * Upstream's own word about a repository (a link of it) is enough.
//! * A manifest that names the blob where its registry makes sure of it is enough for bytes that came from that registry, through
//!   this repository or one that every caller may pull and that upstream has not refused since.
//! * For anything else upstream is asked, once for each repository and blob.
//! * A registry that is `isolated` shares no bytes: it is asked for its own, and what came from it alone answers for no other.

use super::log::log_and_ignore;
use super::negative::{Negatives, Object};
use super::pending_commits::PendingCommits;
use super::upstream_state::Upstreams;
use super::view::RepositoryView;
use crate::config::{AccessRule, Right};
use crate::oci::{Digest, Registry, Repository, RepositoryPattern};
use crate::store::{Giver, Givers, Member, Store};
use std::sync::Arc;

/// What bytes are to a repository for which they are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// They answer for it.
    Vouched,
    /// They do if upstream says that it has the blob.
    Doubtful,
    /// They never do: they came from a registry that shares nothing with this one.
    Foreign,
}

/// Which repositories not every caller may pull.
#[derive(Debug)]
pub(super) struct Restrictions {
    restricted: Vec<RepositoryPattern>,
    open: Vec<RepositoryPattern>,
}

impl Restrictions {
    pub(super) fn new(rules: &[AccessRule]) -> Self {
        let of = |for_all: bool| {
            let rules = rules.iter().filter(move |rule| {
                rule.allow.contains(&Right::Pull) && (rule.networks.is_none() && rule.users.is_none()) == for_all
            });
            rules.flat_map(|rule| rule.repositories.iter().cloned()).collect()
        };
        Self { restricted: of(false), open: of(true) }
    }

    fn cover(&self, repository: &Repository) -> bool {
        let any = |patterns: &[RepositoryPattern]| patterns.iter().any(|pattern| pattern.matches(repository));
        any(&self.restricted) && !any(&self.open)
    }

    fn are_none(&self) -> bool {
        self.restricted.is_empty()
    }
}

/// Decides for which repositories stored bytes may answer.
#[derive(Debug)]
pub(super) struct Vouch {
    pub(super) store: Store,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) restrictions: Restrictions,
    pub(super) pending: Arc<PendingCommits>,
    pub(super) negatives: Arc<Negatives>,
}

impl Vouch {
    /// Notes that upstream has the blob for the view's repository, unless it answers there anyway or there was a write since.
    pub(super) async fn link_blob(&self, view: &RepositoryView, digest: &Digest) {
        let Some(_permit) = view.store_permit().await else { return };
        let repository = view.repository();
        self.negatives.forget(repository, Object::Blob(*digest));
        if !self.is_vouched(repository, digest).await {
            log_and_ignore("link", digest, self.store.link_blob(repository, digest).await);
        }
    }

    /// Why a repository has a blob, as far as is known here.
    pub(super) async fn membership(&self, repository: &Repository, digest: &Digest) -> Option<Member> {
        let member = self.store.membership(repository, digest).await;
        log_and_ignore("read the links of", digest, member).flatten()
    }

    /// Who gave the stored bytes of a blob.
    async fn givers(&self, digest: &Digest) -> Arc<Givers> {
        let givers = log_and_ignore("read who gave", digest, self.store.givers(digest).await).unwrap_or_default();
        match self.pending.get(digest) {
            Some(pending) => Arc::new(givers.and(&pending.giver)),
            None => givers,
        }
    }

    /// How the stored bytes of a blob stand to a repository that has it for this reason.
    pub(super) async fn standing(&self, repository: &Repository, digest: &Digest, why: Option<Member>) -> Standing {
        let givers = self.givers(digest).await;
        if !self.shares(&repository.registry, &givers) {
            return Standing::Foreign;
        }
        let vouched = match why {
            Some(Member::Own) => true,
            Some(Member::Named) => {
                let mut own = givers.of(&repository.registry);
                own.any(|giver| self.speaks_for(giver, repository))
                    || givers.is_earlier(&repository.registry) && self.is_open_throughout(&repository.registry)
            }
            None => false,
        };
        if vouched { Standing::Vouched } else { Standing::Doubtful }
    }

    /// Whether stored bytes answer for a repository without a question.
    pub(super) async fn is_vouched(&self, repository: &Repository, digest: &Digest) -> bool {
        let why = self.membership(repository, digest).await;
        why.is_some() && self.standing(repository, digest, why).await == Standing::Vouched
    }

    /// Whether the repository's own registry gave the bytes, and they answer for it: then they are no news to that registry.
    pub(super) async fn is_known_upstream(&self, repository: &Repository, digest: &Digest) -> bool {
        let (givers, registry) = (self.givers(digest).await, &repository.registry);
        let gave = givers.of(registry).next().is_some() || givers.is_earlier(registry);
        gave && self.is_vouched(repository, digest).await
    }

    /// Whether what came through `giver` may answer for another repository of its registry whose manifest names it.
    pub(super) fn speaks_for(&self, giver: &Repository, repository: &Repository) -> bool {
        giver == repository || giver.registry == repository.registry && self.is_open(giver)
    }

    /// Whether every caller who is let in may pull it, and larder's own login too.
    fn is_open(&self, repository: &Repository) -> bool {
        !self.restrictions.cover(repository)
            && self.upstreams.get(&repository.registry).is_ok_and(|upstream| !upstream.is_denied(repository))
    }

    /// The same of all that a registry has.
    fn is_open_throughout(&self, registry: &Registry) -> bool {
        self.restrictions.are_none() && self.upstreams.get(registry).is_ok_and(|upstream| !upstream.has_denied())
    }

    /// Whether the registry may use bytes that these gave.
    fn shares(&self, registry: &Registry, givers: &Givers) -> bool {
        if givers.of(registry).next().is_some() || givers.is_earlier(registry) {
            return true;
        }
        if self.upstreams.is_isolated(registry) {
            return false;
        }
        if givers.all().next().is_some() {
            return givers.all().any(|giver| !giver.alone && !self.upstreams.is_isolated(&giver.repository.registry));
        }
        let isolated = |registry: &Registry| self.upstreams.is_isolated(registry);
        let mut registries = self.upstreams.registries();
        match registries.clone().find(|registry| givers.is_earlier(registry)) {
            Some(giver) => !isolated(giver),
            None => !registries.any(isolated),
        }
    }

    pub(super) fn as_giver(&self, repository: &Repository) -> Giver {
        Giver { repository: repository.clone(), alone: self.upstreams.is_isolated(&repository.registry) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::IpNet;

    fn rule(networks: Option<&str>, pattern: &str, right: Right) -> AccessRule {
        let networks = networks.map(|network| vec![network.parse::<IpNet>().unwrap()]);
        AccessRule { users: None, networks, repositories: vec![RepositoryPattern::new(pattern)], allow: vec![right] }
    }

    #[test]
    fn a_repository_is_restricted_if_a_rule_keeps_somebody_from_pulling_it() {
        let rules = [
            rule(Some("10.0.0.0/8"), "a.io/secret/**", Right::Pull),
            rule(None, "a.io/secret/open", Right::Pull),
            rule(Some("10.0.0.0/8"), "a.io/team/**", Right::Push),
            AccessRule { users: Some(vec!["ann".to_owned()]), ..rule(None, "a.io/hers", Right::Pull) },
        ];
        let restrictions = Restrictions::new(&rules);
        let covers = |name: &str| {
            restrictions.cover(&Repository { registry: Registry::new("a.io"), name: name.parse().unwrap() })
        };
        assert!(
            covers("secret/app") && covers("hers") && !covers("secret/open") && !covers("team/app") && !covers("other")
        );
        assert!(!restrictions.are_none() && Restrictions::new(&rules[1..3]).are_none());
    }
}
