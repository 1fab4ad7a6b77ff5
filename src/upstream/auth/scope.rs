//! The right that a request needs, in the words of Docker's token protocol.
//!
//! One repository at a time, and no more than the request needs: a wildcard is ignored by some registries, and a token that may
//! write, for a request that reads, would be worth stealing.

use crate::oci::Name;
use std::collections::HashMap;

/// What a request needs the right to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Scope {
    /// The registry as such.
    Registry,
    Catalogue,
    Pull(Name),
    Tags(Name),
    Referrers(Name),
    Push(Name),
    /// To push to the first, mounting from the second.
    Mount(Name, Name),
    Delete(Name),
    /// To read what ACR's own API says of a repository.
    Metadata(Name),
    /// To change it: its locks.
    Locks(Name),
}

/// Requests whose right no document names: it is learned from the first challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Topic {
    Catalogue,
    Tags,
    Referrers,
}

/// What challenges have taught, per topic: the actions on a repository, or the whole scope of the catalogue.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Learned(HashMap<Topic, String>);

impl Scope {
    fn topic(&self) -> Option<Topic> {
        match self {
            Self::Catalogue => Some(Topic::Catalogue),
            Self::Tags(_) => Some(Topic::Tags),
            Self::Referrers(_) => Some(Topic::Referrers),
            Self::Registry
            | Self::Pull(_)
            | Self::Push(_)
            | Self::Mount(..)
            | Self::Delete(_)
            | Self::Metadata(_)
            | Self::Locks(_) => None,
        }
    }

    fn repository(&self) -> Option<&Name> {
        match self {
            Self::Pull(name)
            | Self::Tags(name)
            | Self::Referrers(name)
            | Self::Push(name)
            | Self::Mount(name, _)
            | Self::Delete(name)
            | Self::Metadata(name)
            | Self::Locks(name) => Some(name),
            Self::Registry | Self::Catalogue => None,
        }
    }

    /// The scope to ask for without having been challenged.
    pub(in crate::upstream) fn expected(&self, learned: &Learned) -> Option<String> {
        match (self, self.topic().map(|topic| learned.0.get(&topic))) {
            (Self::Registry, _) => Some(String::new()),
            (Self::Mount(to, from), _) => Some(mount(to, from)),
            (
                Self::Pull(name) | Self::Push(name) | Self::Delete(name) | Self::Metadata(name) | Self::Locks(name),
                _,
            ) => Some(format!("repository:{name}:{}", self.usual())),
            (Self::Catalogue, Some(scope)) => scope.cloned(),
            (Self::Tags(name) | Self::Referrers(name), Some(actions)) => {
                Some(format!("repository:{name}:{}", actions?))
            }
            (_, None) => None,
        }
    }

    /// The actions that registries want for it.
    fn usual(&self) -> &'static str {
        match self {
            Self::Push(_) => "pull,push",
            Self::Delete(_) => "delete",
            Self::Metadata(_) => "metadata_read",
            Self::Locks(_) => "metadata_write",
            _ => "pull",
        }
    }

    /// Actions that a challenge may ask for on behalf of such a request.
    fn allows(&self, action: &str) -> bool {
        match action {
            "push" => matches!(self, Self::Push(_)),
            "delete" => matches!(self, Self::Delete(_)),
            "metadata_write" => matches!(self, Self::Locks(_)),
            "*" | "" => false,
            _ => true,
        }
    }

    /// The scope to ask for after a challenge: the challenge's own as far as it is about what was asked.
    pub(in crate::upstream) fn challenged(&self, scope: Option<&str>) -> String {
        if let Self::Mount(to, from) = self {
            return mount(to, from);
        }
        let scopes = scope.unwrap_or_default().split_whitespace();
        match self.repository() {
            None if *self == Self::Catalogue => {
                let own = scopes.into_iter().find(|scope| scope.starts_with("registry:catalog:"));
                own.unwrap_or("registry:catalog:*").to_owned()
            }
            None => String::new(),
            Some(name) => {
                let prefix = format!("repository:{name}:");
                let mut actions: Vec<_> = scopes
                    .filter_map(|scope| scope.strip_prefix(&prefix))
                    .flat_map(|actions| actions.split(','))
                    .filter(|action| self.allows(action))
                    .collect();
                if let Self::Push(_) = self {
                    // ACR writes them in either order; one order makes one token of both.
                    actions.sort_unstable();
                }
                if actions.is_empty() {
                    format!("{prefix}{}", self.usual())
                } else {
                    format!("{prefix}{}", actions.join(","))
                }
            }
        }
    }

    pub(in crate::upstream) fn learn(&self, wanted: &str, learned: &mut Learned) {
        let Some(topic) = self.topic() else { return };
        let prefix = self.repository().map(|name| format!("repository:{name}:"));
        let part = prefix.and_then(|prefix| wanted.strip_prefix(&prefix)).unwrap_or(wanted);
        learned.0.insert(topic, part.to_owned());
    }
}

/// Two repositories at once: what is mounted is read.
fn mount(to: &Name, from: &Name) -> String {
    format!("repository:{to}:pull,push repository:{from}:pull")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_repository_is_asked_for_and_only_to_read() {
        let pull = Scope::Pull("a/b".parse().unwrap());
        for (challenge, want) in [
            (Some("repository:a/b:pull"), "repository:a/b:pull"),
            (Some("repository:a/b:pull,push"), "repository:a/b:pull"),
            (Some("repository:c:pull repository:a/b:metadata_read"), "repository:a/b:metadata_read"),
            (Some("repository:*:*"), "repository:a/b:pull"),
            (Some("repository:a/b:*"), "repository:a/b:pull"),
            (Some("registry:catalog:*"), "repository:a/b:pull"),
            (None, "repository:a/b:pull"),
        ] {
            assert_eq!(pull.challenged(challenge), want);
        }
        let name: Name = "a/b".parse().unwrap();
        for (scope, challenge, want) in [
            (Scope::Push(name.clone()), "repository:a/b:push,pull", "repository:a/b:pull,push"),
            (Scope::Push(name.clone()), "repository:a/b:*", "repository:a/b:pull,push"),
            (Scope::Push(name.clone()), "repository:a/b:pull,push,delete", "repository:a/b:pull,push"),
            (Scope::Delete(name.clone()), "repository:a/b:delete", "repository:a/b:delete"),
            (Scope::Delete(name.clone()), "repository:c:delete repository:a/b:*", "repository:a/b:delete"),
            (Scope::Metadata(name.clone()), "repository:a/b:metadata_read", "repository:a/b:metadata_read"),
            (Scope::Metadata(name.clone()), "repository:a/b:metadata_write,push", "repository:a/b:metadata_read"),
            (Scope::Locks(name.clone()), "repository:a/b:metadata_write", "repository:a/b:metadata_write"),
        ] {
            assert_eq!(scope.challenged(Some(challenge)), want);
            assert_eq!(scope.expected(&Learned::default()).as_deref(), Some(want), "as expected without a challenge");
        }
        let mount = Scope::Mount(name, "c".parse().unwrap());
        let both = "repository:a/b:pull,push repository:c:pull";
        assert_eq!(mount.challenged(Some("repository:a/b:push,pull repository:c:pull,delete")), both);
        assert_eq!(mount.expected(&Learned::default()).as_deref(), Some(both));
        assert_eq!(Scope::Registry.challenged(Some("repository:x:pull")), "");
        assert_eq!(Scope::Catalogue.challenged(Some("registry:catalog:*")), "registry:catalog:*");
    }

    #[test]
    fn what_one_repository_taught_holds_for_the_next() {
        let mut learned = Learned::default();
        let first = Scope::Tags("a".parse().unwrap());
        assert_eq!(first.expected(&learned), None);
        first.learn("repository:a:metadata_read", &mut learned);
        let second = Scope::Tags("b/c".parse().unwrap());
        assert_eq!(second.expected(&learned).unwrap(), "repository:b/c:metadata_read");
        assert_eq!(Scope::Referrers("a".parse().unwrap()).expected(&learned), None);
    }
}
