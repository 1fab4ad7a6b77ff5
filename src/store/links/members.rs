//! What memory has of which repository has which blob, so that the files are not read twice for an answer, be it yes or no.

use crate::oci::{Digest, Repository};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Digests and repositories remembered, one whose links speak for nothing included: some 20 MiB.
const REMEMBERED: usize = 200_000;

/// Why a repository has a blob, as far as links tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// A manifest of it names the blob, and the registry accepted that manifest.
    Named,
    /// Upstream has said so, there.
    Own,
}

/// What is known in memory.
#[derive(Default)]
pub(crate) struct Members {
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    repositories: HashMap<Repository, Blobs>,
    remembered: usize,
    /// Raised whenever something is forgotten.
    generation: u64,
}

#[derive(Default)]
struct Blobs {
    digests: HashMap<Digest, Member>,
    /// Whether `digests` is all that the repository has.
    complete: bool,
}

impl Members {
    /// `Some` if it is known whether the repository has the blob, and why.
    #[expect(clippy::option_option, reason = "not known, and known to have none")]
    pub(crate) fn get(&self, repository: &Repository, digest: &Digest) -> Option<Option<Member>> {
        let known = self.known.read();
        let blobs = known.repositories.get(repository)?;
        let member = blobs.digests.get(digest).copied();
        (member.is_some() || blobs.complete).then_some(member)
    }

    /// Something that was just written to the files, whatever else is known.
    pub(super) fn add(&self, repository: &Repository, members: &[(Digest, Member)]) {
        self.known.write().add(repository, members.iter().copied());
    }

    fn forget(&self, repository: &Repository) {
        let mut known = self.known.write();
        known.generation += 1;
        if let Some(blobs) = known.repositories.remove(repository) {
            known.remembered -= blobs.digests.len() + 1;
        }
    }

    /// Runs `change` on a repository's links. Nothing that another thread reads from them meanwhile stays in memory.
    pub(super) fn while_forgotten<T>(&self, repository: &Repository, change: impl FnOnce() -> T) -> T {
        self.forget(repository);
        let result = change();
        self.forget(repository);
        result
    }

    pub(super) fn generation(&self) -> u64 {
        self.known.read().generation
    }

    /// Something that was read from the files when `generation` was the current one.
    pub(super) fn learn(
        &self,
        repository: &Repository,
        members: impl IntoIterator<Item = (Digest, Member), IntoIter: ExactSizeIterator>,
        generation: u64,
        complete: bool,
    ) {
        let mut known = self.known.write();
        if known.generation == generation && known.add(repository, members.into_iter()) && complete {
            known.repositories.entry(repository.clone()).or_default().complete = true;
        }
    }
}

impl Known {
    /// Whether there was room.
    fn add(&mut self, repository: &Repository, members: impl ExactSizeIterator<Item = (Digest, Member)>) -> bool {
        let count = members.len();
        if self.remembered + count >= REMEMBERED {
            self.repositories.clear();
            self.remembered = 0;
            self.generation += 1;
            if count >= REMEMBERED {
                return false;
            }
        }
        self.remembered += usize::from(!self.repositories.contains_key(repository));
        let blobs = self.repositories.entry(repository.clone()).or_default();
        for (digest, why) in members {
            match blobs.digests.entry(digest) {
                // A link that was written meanwhile is not forgotten for what was read before it.
                Entry::Occupied(mut known) => *known.get_mut() = why.max(*known.get()),
                Entry::Vacant(place) => {
                    place.insert(why);
                    self.remembered += 1;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Algorithm, Registry};

    fn repository(name: &str) -> Repository {
        Repository { registry: Registry::new("r.example"), name: name.parse().unwrap() }
    }

    fn named(from: usize, count: usize) -> Vec<(Digest, Member)> {
        let digests = (from..from + count).map(|n| Digest::of(Algorithm::Sha256, &n.to_le_bytes()));
        digests.map(|digest| (digest, Member::Named)).collect()
    }

    #[test]
    fn what_was_read_before_something_was_forgotten_is_not_kept() {
        let (members, a) = (Members::default(), repository("a"));
        let all = named(0, 2);
        let generation = members.generation();
        members.forget(&a);
        members.learn(&a, all[..1].to_vec(), generation, true);
        assert_eq!(members.get(&a, &all[0].0), None);
        members.learn(&a, all[..1].to_vec(), members.generation(), true);
        assert_eq!((members.get(&a, &all[0].0), members.get(&a, &all[1].0)), (Some(Some(Member::Named)), Some(None)));
        members.add(&a, &[(all[0].0, Member::Own), all[1]]);
        members.add(&a, &all);
        assert_eq!(members.get(&a, &all[0].0), Some(Some(Member::Own)), "a link stays a link");
        assert_eq!(members.get(&a, &all[1].0), Some(Some(Member::Named)));
    }

    #[test]
    fn memory_is_bounded() {
        let (members, a, b) = (Members::default(), repository("a"), repository("b"));
        members.learn(&a, named(0, REMEMBERED - 2), members.generation(), true);
        members.add(&b, &named(0, 2));
        let known = members.known.read();
        assert_eq!((known.remembered, known.repositories.len()), (3, 1));
        drop(known);
        members.forget(&b);
        assert_eq!(members.known.read().remembered, 0);
        // Repositories whose links speak for nothing any more.
        for number in 0..REMEMBERED + 5 {
            members.learn(&repository(&format!("empty/{number}")), [], members.generation(), true);
        }
        assert!(members.known.read().repositories.len() < REMEMBERED);
    }
}
