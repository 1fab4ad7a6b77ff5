//! What was asked of sealed upstreams and is not stored: the list of what to import next.

use super::error::CacheError;
use crate::oci::{Code, Reference, Repository};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::SystemTime;

/// References remembered at once; requests for more are refused, and not remembered.
const ENTRIES: usize = 10_000;

/// A reference that clients asked for in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfflineMiss {
    /// Where.
    pub repository: Repository,
    /// What: a tag, or the digest of a manifest or blob.
    pub reference: Reference,
    /// How often.
    pub times: u64,
    /// When last.
    pub last: SystemTime,
}

impl OfflineMiss {
    /// `upstream/repository:tag` or `upstream/repository@digest`.
    #[must_use]
    pub fn full_name(&self) -> String {
        let mark = if matches!(self.reference, Reference::Digest(_)) { '@' } else { ':' };
        format!("{}{mark}{}", self.repository, self.reference)
    }
}

#[derive(Debug, Default)]
pub(super) struct OfflineMisses(Mutex<HashMap<(Repository, Reference), (u64, SystemTime)>>);

impl OfflineMisses {
    /// The answer to a request for what a sealed upstream would have to be asked for. The request is noted.
    pub(super) fn refuse(&self, repository: &Repository, reference: &Reference, code: Code) -> CacheError {
        self.note(repository, reference);
        let what = match reference {
            Reference::Tag(tag) => format!("{repository}:{tag}"),
            Reference::Digest(digest) => format!("{repository}@{digest}"),
        };
        CacheError::Sealed { what, registry: repository.registry.clone(), code }
    }

    /// Notes one request in vain; the first for a reference is logged.
    fn note(&self, repository: &Repository, reference: &Reference) {
        let mut entries = self.0.lock();
        let key = (repository.clone(), reference.clone());
        let full = entries.len() >= ENTRIES;
        if let Some((times, last)) = entries.get_mut(&key) {
            (*times, *last) = (*times + 1, SystemTime::now());
        } else if !full {
            entries.insert(key, (1, SystemTime::now()));
            tracing::warn!(repo.name = %repository, %reference, "a sealed upstream was asked for what is not stored");
        }
    }

    /// All of them, those asked for most often first.
    pub(super) fn list(&self) -> Vec<OfflineMiss> {
        let entries = self.0.lock();
        let mut list: Vec<OfflineMiss> = entries
            .iter()
            .map(|((repository, reference), (times, last))| OfflineMiss {
                repository: repository.clone(),
                reference: reference.clone(),
                times: *times,
                last: *last,
            })
            .collect();
        drop(entries);
        list.sort_by_key(|missing| (u64::MAX - missing.times, missing.reference.to_string()));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Registry;

    #[test]
    fn counts_each_reference_and_remembers_no_more_than_its_bound() {
        let missing = OfflineMisses::default();
        let repository = Repository { registry: Registry::new("r"), name: "a".parse().unwrap() };
        let tag = |number: usize| format!("v{number}").parse::<Reference>().unwrap();
        for number in 0..ENTRIES + 5 {
            missing.note(&repository, &tag(number));
        }
        missing.note(&repository, &tag(7));
        let list = missing.list();
        assert_eq!(list.len(), ENTRIES);
        assert_eq!((&list[0].reference, list[0].times), (&tag(7), 2));
    }
}
