//! Who gave the bytes of a blob: the repositories through which they were downloaded, or to which they were pushed. It decides whom
//! they may answer for without a question upstream, so it is written before the blob is in its place, and goes with it.
//!
//! A store that was written before there were such records does not say. If all that it had was of one registry, that one gave it
//! all, by repositories that nobody knows any more.

use crate::oci::{Digest, Registry, Repository};
use crate::store::disk::Disk;
use crate::store::error::StoreError;
use crate::store::files::layout;
use crate::store::files::record::Record;
use crate::store::files::small::{Files, is_absent};
use crate::store::parts::Inner;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

const GIVERS: &str = "givers";
const EARLIER: &str = "earlier-giver";
const FOLDER: &str = "folder";
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
    all: Vec<Giver>,
    /// The folder of the registry that gave what has no record.
    earlier: Option<Arc<str>>,
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
    fn add(&mut self, giver: &Giver) -> bool {
        if let Some(known) = self.all.iter_mut().find(|known| known.repository == giver.repository) {
            return std::mem::replace(&mut known.alone, giver.alone) != giver.alone;
        }
        let is_full = self.all.len() >= MOST || self.of(&giver.repository.registry).nth(MOST_OF_ONE - 1).is_some();
        if !is_full {
            self.all.push(giver.clone());
        }
        !is_full
    }

    fn to_bytes(&self, digest: &Digest) -> Vec<u8> {
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
    fn parse(digest: &Digest, bytes: &[u8]) -> Option<Self> {
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

/// What the store knows of givers, beyond the records.
#[derive(Default)]
pub(crate) struct Giving {
    earlier: RwLock<Option<Arc<str>>>,
    /// Blobs whose record is written and which are not in their place yet.
    placing: Mutex<HashMap<Digest, usize>>,
    /// One at a time changes a record …
    writing: Mutex<()>,
    /// … and one at a time what memory has of it.
    remembering: Mutex<()>,
}

impl Giving {
    pub(crate) fn open(files: &Files) -> Self {
        let giving = Self::default();
        giving.look_again(files);
        giving
    }

    /// The folder is another one than before.
    pub(crate) fn look_again(&self, files: &Files) {
        let bytes = files.read(Path::new(layout::EARLIER)).ok().flatten();
        let record = bytes.and_then(|bytes| Record::parse(EARLIER, &bytes));
        *self.earlier.write() = record.and_then(|record| record.get(FOLDER).map(Arc::from));
    }

    fn is_placing(&self, digest: &Digest) -> bool {
        self.placing.lock().contains_key(digest)
    }
}

/// Says once of a store without records that all it has is of one registry, if that is so. Before the folder of records is made.
pub(crate) fn note_earlier(disk: &dyn Disk, first: &Files) -> Result<(), StoreError> {
    match disk.metadata(Path::new(layout::GIVERS)) {
        Err(error) if is_absent(&error) => {}
        _ => return Ok(()),
    }
    let entries = disk.list(Path::new(layout::REPOSITORIES)).unwrap_or_default();
    let folders: Vec<&str> = entries.iter().filter(|entry| entry.is_dir).map(|entry| &*entry.name).collect();
    if let [folder] = folders[..] {
        first.replace(Path::new(layout::EARLIER), &Record::new().with(FOLDER, folder).to_bytes(EARLIER))?;
    }
    Ok(())
}

impl Inner {
    /// Who gave a blob. One that nobody is known to have given has no givers.
    pub(crate) fn givers(&self, digest: &Digest) -> Result<Arc<Givers>, StoreError> {
        let entry = self.catalogue.get(digest);
        if let Some(known) = entry.as_ref().and_then(|entry| entry.givers.read().clone()) {
            return Ok(known);
        }
        let _one = self.giving.remembering.lock();
        let givers = Arc::new(self.read_givers(digest)?);
        if let Some(entry) = entry {
            *entry.givers.write() = Some(Arc::clone(&givers));
        }
        Ok(givers)
    }

    /// Those in memory.
    pub(crate) fn known_givers(&self, digest: &Digest) -> Option<Arc<Givers>> {
        self.catalogue.get(digest)?.givers.read().clone()
    }

    fn read_givers(&self, digest: &Digest) -> Result<Givers, StoreError> {
        let record = self.files.read(&layout::givers(digest))?.and_then(|bytes| Givers::parse(digest, &bytes));
        Ok(record.unwrap_or_else(|| Givers { all: Vec::new(), earlier: self.giving.earlier.read().clone() }))
    }

    /// Writes down who gave a blob, besides those who are known.
    pub(crate) fn note_givers(&self, digest: &Digest, givers: &[Giver]) -> Result<(), StoreError> {
        if givers.is_empty() {
            return Ok(());
        }
        let path = layout::givers(digest);
        let _writer = self.giving.writing.lock();
        let mut known = self.files.read(&path)?.and_then(|bytes| Givers::parse(digest, &bytes)).unwrap_or_default();
        let new: Vec<bool> = givers.iter().map(|giver| known.add(giver)).collect();
        if new.contains(&true) {
            self.replace(&path, &known.to_bytes(digest))?;
        }
        let _one = self.giving.remembering.lock();
        if let Some(entry) = self.catalogue.get(digest) {
            *entry.givers.write() = None;
        }
        Ok(())
    }

    /// Writes down who gave a blob, and puts it in its place: never the second without the first.
    pub(crate) fn placing<T>(
        &self,
        digest: &Digest,
        givers: &[Giver],
        place: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        *self.giving.placing.lock().entry(*digest).or_default() += 1;
        let placed = self.note_givers(digest, givers).and_then(|()| place());
        let mut placing = self.giving.placing.lock();
        if let Some(count) = placing.get_mut(digest) {
            *count -= 1;
            if *count == 0 {
                placing.remove(digest);
            }
        }
        placed
    }

    /// The blob is gone, or was never in its place.
    pub(crate) fn forget_givers(&self, digest: &Digest) {
        if !self.giving.is_placing(digest) {
            let _ = self.files.discard(&layout::givers(digest));
        }
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
