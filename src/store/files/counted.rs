//! The bytes of small files, each counted once, also while the walk of a start has yet to come by.
//!
//! A folder that the walk has not counted yet is left to it: a change there counts nothing. A folder that it has counted, or one
//! that was made behind it, counts with every change.

use crate::store::account::Space;
use crate::store::disk::{Disk, parent};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) struct Counted {
    space: Arc<Space>,
    /// Folders that the walk has counted so far; `None` once it has ended.
    folders: Mutex<Option<HashSet<PathBuf>>>,
    /// One thread at a time changes a file, so that it finds and leaves the bytes that it counts.
    changing: [Mutex<()>; 64],
}

impl Counted {
    pub(super) fn new(space: Arc<Space>) -> Self {
        let changing = std::array::from_fn(|_| Mutex::new(()));
        Self { space, folders: Mutex::new(Some(HashSet::new())), changing }
    }

    /// Runs `change`, which returns the bytes before and after. `true`: they were counted.
    pub(super) fn change(&self, path: &Path, change: impl FnOnce() -> io::Result<(u64, u64)>) -> io::Result<bool> {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let _one = self.changing[usize::from(hasher.finish().to_le_bytes()[0]) % self.changing.len()].lock();
        let folders = self.folders.lock();
        let is_counted = folders.as_ref().is_none_or(|folders| folders.contains(parent(path)));
        // During the walk the lock is held, so that it cannot count the folder half changed.
        let held = folders.is_some().then_some(folders);
        let (old, new) = change()?;
        if is_counted {
            self.space.add(new);
            self.space.sub(old);
        }
        drop(held);
        Ok(is_counted)
    }

    /// Runs `make`, which makes an empty folder. It is counted from then on, since the walk may have passed its place.
    pub(super) fn make_folder(&self, folder: &Path, make: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut folders = self.folders.lock();
        make()?;
        if let Some(folders) = folders.as_mut() {
            folders.insert(folder.to_owned());
        }
        Ok(())
    }

    /// Counts the files of a folder, unless that was done before. `each` is called with their names.
    pub(super) fn folder(&self, disk: &dyn Disk, folder: &Path, mut each: impl FnMut(&str)) {
        let mut counted = self.folders.lock();
        let Some(folders) = counted.as_mut().filter(|folders| !folders.contains(folder)) else { return };
        let mut bytes = 0;
        for entry in disk.list(folder).unwrap_or_default().iter().filter(|entry| !entry.is_dir) {
            if let Ok(metadata) = disk.metadata(&folder.join(&entry.name)) {
                bytes += metadata.len;
                each(&entry.name);
            }
        }
        folders.insert(folder.to_owned());
        self.space.add(bytes);
    }

    /// A new walk begins, over another store.
    pub(super) fn restart(&self) {
        *self.folders.lock() = Some(HashSet::new());
    }

    /// The walk has ended: from now on every change counts.
    pub(super) fn finish(&self) {
        *self.folders.lock() = None;
    }
}
