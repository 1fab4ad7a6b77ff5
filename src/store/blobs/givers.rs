//! Givers of a blob: the repositories through which its bytes were downloaded, or to which they were pushed. They decide which
//! repositories may have the bytes without a question upstream.

use crate::oci::{Digest, Registry, Repository};
use crate::store::files::{Record, layout};
use std::sync::Arc;

const GIVERS: &str = "givers";
const ALONE: &str = "alone";

/// Repositories that are remembered of one registry, and of all.
const MOST_OF_ONE: usize = 16;
const MOST: usize = 64;

/// A repository that gave a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Giver {
    /// Which.
    pub repository: Repository,
    /// Whether its registry shared nothing with others then.
    pub alone: bool,
}

/// Who gave a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Givers {
    pub(super) all: Vec<Giver>,
    /// The folder of the registry that gave what has no record.
    pub(super) earlier: Option<Arc<str>>,
}

impl Givers {
    /// Those that are known.
    pub fn all(&self) -> impl Iterator<Item = &Giver> {
        self.all.iter()
    }

    /// Those of one registry.
    pub fn of(&self, registry: &Registry) -> impl Iterator<Item = &Repository> {
        self.all.iter().map(|giver| &giver.repository).filter(move |giver| giver.registry == *registry)
    }

    /// These and one more.
    #[must_use]
    pub fn and(&self, giver: &Giver) -> Self {
        let mut all = self.clone();
        all.add(giver);
        all
    }

    /// Whether the registry gave it by a repository that is not known.
    #[must_use]
    pub fn is_earlier(&self, registry: &Registry) -> bool {
        self.earlier.as_deref().is_some_and(|folder| folder == layout::registry_folder(registry))
    }

    /// Adds one, if it says something new and there is room; whether it was added.
    pub(super) fn add(&mut self, giver: &Giver) -> bool {
        if let Some(known) = self.all.iter_mut().find(|known| known.repository == giver.repository) {
            return std::mem::replace(&mut known.alone, giver.alone) != giver.alone;
        }
        let is_full = self.all.len() >= MOST || self.of(&giver.repository.registry).nth(MOST_OF_ONE - 1).is_some();
        if !is_full {
            self.all.push(giver.clone());
        }
        !is_full
    }

    pub(super) fn to_bytes(&self, digest: &Digest) -> Vec<u8> {
        let mut body = String::new();
        for Giver { repository, alone } in &self.all {
            body.push_str(repository.registry.as_str());
            body.push(' ');
            body.push_str(repository.name.as_str());
            body.push_str(if *alone { " alone\n" } else { "\n" });
        }
        Record::new().with("name", digest).with_body(body.as_bytes()).to_bytes(GIVERS)
    }

    /// Reads a record. A line that says nothing is left out.
    pub(super) fn parse(digest: &Digest, bytes: &[u8]) -> Option<Self> {
        let record = Record::parse(GIVERS, bytes).filter(|it| it.get("name") == Some(&digest.to_string()))?;
        let body = String::from_utf8(record.into_body()).ok()?;
        let all = body.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let registry = Registry::new(words.next()?);
            let repository = Repository { registry, name: words.next()?.parse().ok()? };
            Some(Giver { repository, alone: words.next() == Some(ALONE) })
        });
        Some(Self { all: all.collect(), earlier: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    fn giver(registry: &str, number: usize) -> Giver {
        let name = format!("team/app{number}").parse().unwrap();
        Giver { repository: Repository { registry: Registry::new(registry), name }, alone: number % 2 == 1 }
    }

    #[test]
    fn a_record_comes_back_as_it_was_written_and_is_bounded() {
        let digest = Digest::of(Algorithm::Sha256, b"blob");
        let mut givers = Givers::default();
        assert!(givers.add(&giver("a.io", 0)) && givers.add(&giver("127.0.0.1:5000", 1)));
        assert!(!givers.add(&giver("a.io", 0)), "it is known");
        assert_eq!(Givers::parse(&digest, &givers.to_bytes(&digest)), Some(givers.clone()));
        assert_eq!(Givers::parse(&Digest::of(Algorithm::Sha256, b"other"), &givers.to_bytes(&digest)), None);
        for number in 0..100 {
            givers.add(&giver("a.io", number));
        }
        assert_eq!(givers.of(&Registry::new("a.io")).count(), MOST_OF_ONE);
        for registry in 0..100 {
            givers.add(&giver(&format!("r{registry}.io"), 0));
        }
        assert_eq!(givers.all().count(), MOST);
    }
}
