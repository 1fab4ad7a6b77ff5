//! The repositories of one upstream whose content is withheld: a working token was refused for them, and they have not been allowed
//! since.
//!
//! What is refused is remembered one by one, up to a limit. None of it may be forgotten, since that would give out what may not be
//! read. So one repository more turns it round: from then on every repository is asked about first, unless upstream has allowed it
//! since, and it is those that are remembered; one that falls out of that memory costs a question.

use crate::oci::Repository;
use quick_cache::unsync::Cache;
use std::collections::HashSet;

#[derive(Debug)]
pub(super) struct DeniedRepositories {
    refused: HashSet<Repository>,
    /// Repositories allowed since more were refused than are remembered; `None`: not so many were.
    allowed: Option<Cache<Repository, ()>>,
    limit: usize,
}

/// What a refusal changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// The repository is withheld from now on.
    First,
    /// It was already.
    Repeated,
    /// Every repository is, until it is allowed.
    TooMany,
}

impl DeniedRepositories {
    /// Remembers at most `limit` repositories.
    pub(super) fn new(limit: usize) -> Self {
        Self { refused: HashSet::new(), allowed: None, limit }
    }

    /// Whether what is stored of it may not be answered before upstream has been asked.
    pub(super) fn contains(&self, repository: &Repository) -> bool {
        match &self.allowed {
            Some(allowed) => allowed.get(repository).is_none(),
            None => !self.refused.is_empty() && self.refused.contains(repository),
        }
    }

    /// Whether there is any.
    pub(super) fn any(&self) -> bool {
        self.allowed.is_some() || !self.refused.is_empty()
    }

    /// Those that are remembered one by one.
    pub(super) fn refused(&self) -> impl Iterator<Item = &Repository> {
        self.refused.iter()
    }

    /// A working token was refused for it.
    pub(super) fn refuse(&mut self, repository: &Repository) -> Denial {
        if let Some(allowed) = &mut self.allowed {
            let was_allowed = allowed.remove(repository).is_some();
            return if was_allowed { Denial::First } else { Denial::Repeated };
        }
        if self.refused.contains(repository) {
            return Denial::Repeated;
        }
        if self.refused.len() < self.limit {
            self.refused.insert(repository.clone());
            return Denial::First;
        }
        self.refused = HashSet::new();
        self.allowed = Some(Cache::new(self.limit));
        Denial::TooMany
    }

    /// Upstream has answered about it. Whether it was one of those that were refused.
    pub(super) fn allow(&mut self, repository: &Repository) -> bool {
        let Some(allowed) = &mut self.allowed else {
            return !self.refused.is_empty() && self.refused.remove(repository);
        };
        if allowed.get(repository).is_none() {
            allowed.insert(repository.clone(), ());
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Registry;

    fn repository(number: usize) -> Repository {
        Repository { registry: Registry::new("r"), name: format!("a/{number}").parse().unwrap() }
    }

    #[test]
    fn one_is_withheld_until_it_is_allowed() {
        let mut denied = DeniedRepositories::new(2);
        assert_eq!(denied.refuse(&repository(1)), Denial::First);
        assert_eq!(denied.refuse(&repository(1)), Denial::Repeated);
        assert!(denied.contains(&repository(1)) && !denied.contains(&repository(2)));
        assert!(denied.allow(&repository(1)) && !denied.contains(&repository(1)));
        assert!(!denied.allow(&repository(1)));
    }

    #[test]
    fn more_than_are_remembered_are_all_withheld_and_so_is_everything_that_was_not_allowed_since() {
        let mut denied = DeniedRepositories::new(50);
        for number in 0..50 {
            assert_eq!(denied.refuse(&repository(number)), Denial::First);
        }
        assert!(!denied.contains(&repository(60)));
        assert_eq!(denied.refuse(&repository(50)), Denial::TooMany);
        for number in 0..10_000 {
            assert!(denied.contains(&repository(number)), "{number}");
            assert_eq!(denied.refuse(&repository(number)), Denial::Repeated);
        }
        denied.allow(&repository(7));
        assert!(!denied.contains(&repository(7)) && denied.contains(&repository(8)));
        assert_eq!(denied.refuse(&repository(7)), Denial::First);
        assert!(denied.contains(&repository(7)));
        // What is remembered has its bound too.
        for number in 0..10_000 {
            denied.allow(&repository(number));
        }
        let remembered = (0..10_000).filter(|number| !denied.contains(&repository(*number))).count();
        assert!((1..=50).contains(&remembered), "{remembered}");
    }
}
