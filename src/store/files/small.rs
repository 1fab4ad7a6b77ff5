//! Small files: read whole, replaced atomically, removed; and the folders that they lie in.
//!
//! After [`Files::replace`] has returned under `Durability::Commit`, the new content survives a crash; before, the file is the old or
//! the new one, never a mixture.

use super::counted::Counted;
use super::layout;
use crate::config::Durability;
use crate::store::account::Space;
use crate::store::disk::{Access, Disk, Lock, is_absent, parent, read_exact_at};
use crate::store::error::StoreError;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Folders remembered as made and synced; beyond that they are forgotten and looked at again.
const KNOWN_FOLDERS: usize = 10_000;
/// No small file is longer: lists are the longest.
const LONGEST: u64 = 64 << 20;

/// The store's folder. Every part of the store that touches the disk does so through this.
pub(crate) struct Files {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) space: Arc<Space>,
    sync: Durability,
    counted: Counted,
    known: Mutex<HashSet<PathBuf>>,
    next_temporary: AtomicU64,
    /// The folder's lock. It lies here so that no other process gets the folder as long as any part may still write to it.
    lock: Mutex<Option<Lock>>,
}

impl Files {
    pub(crate) fn new(disk: Arc<dyn Disk>, sync: Durability, space: Arc<Space>) -> Self {
        let (counted, known, lock) = (Counted::new(Arc::clone(&space)), Mutex::default(), Mutex::default());
        Self { disk, space, sync, counted, known, next_temporary: AtomicU64::new(0), lock }
    }

    pub(crate) fn set_lock(&self, lock: Option<Lock>) {
        drop(std::mem::replace(&mut *self.lock.lock(), lock));
    }

    /// Makes everything that was written survive a crash, and says so to the next process.
    pub(crate) fn sync_everything(&self) {
        if matches!(self.disk.sync_all(), Ok(true)) {
            let _ = self.disk.remove(Path::new(layout::UNSYNCED));
        }
    }

    pub(crate) fn durable(&self) -> bool {
        self.sync == Durability::Commit
    }

    pub(crate) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        read(&*self.disk, path)
    }

    /// Writes `content` to a file of its own, syncs it, and renames it over `path`.
    pub(crate) fn replace(&self, path: &Path, content: &[u8]) -> Result<Replaced, StoreError> {
        let temporary = self.temporary();
        let result = self.write_new(&temporary, content).and_then(|()| self.put_in_place(&temporary, path, content));
        if result.is_err() {
            let _ = self.disk.remove(&temporary);
        }
        result
    }

    /// Promises a file that is there already: the process that renamed it may have been killed before it could sync.
    pub(crate) fn keep(&self, path: &Path) -> Result<(), StoreError> {
        self.make_folder(parent(path))?;
        self.sync_folder(parent(path))
    }

    /// Removes a file; whether there was one that had been counted.
    pub(crate) fn remove(&self, path: &Path) -> Result<bool, StoreError> {
        let counted = match self.discard(path) {
            // Perhaps by a process that was killed before it could sync.
            Err(error) if is_absent(&error) => {
                return match self.sync_folder(parent(path)) {
                    Err(StoreError::Io { source, .. }) if is_absent(&source) => Ok(false),
                    other => other.map(|()| false),
                };
            }
            other => other.map_err(StoreError::io("remove", path))?,
        };
        self.sync_folder(parent(path))?;
        Ok(counted)
    }

    /// Removes a file that does no harm if a crash brings it back; whether it had been counted.
    pub(crate) fn discard(&self, path: &Path) -> io::Result<bool> {
        self.counted.change(path, || {
            let length = self.disk.metadata(path).map(|metadata| metadata.len)?;
            self.disk.remove(path)?;
            Ok((length, 0))
        })
    }

    pub(crate) fn temporary(&self) -> PathBuf {
        layout::temporary(self.next_temporary.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes a folder and those above it, and makes sure that they survive a crash: also one that was there already, since
    /// the process that made it may have been killed before it could.
    pub(crate) fn make_folder(&self, folder: &Path) -> Result<(), StoreError> {
        if self.known.lock().contains(folder) {
            return Ok(());
        }
        let mut above: Vec<&Path> = folder.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        above.reverse();
        for path in above {
            match self.counted.make_folder(path, || self.disk.make_dir(path)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(StoreError::io("make the folder", path)(error));
                }
                _ => self.sync_folder(parent(path))?,
            }
        }
        let mut known = self.known.lock();
        if known.len() >= KNOWN_FOLDERS {
            known.clear();
        }
        known.insert(folder.to_owned());
        Ok(())
    }

    pub(crate) fn sync_folder(&self, folder: &Path) -> Result<(), StoreError> {
        if self.durable() {
            self.disk.sync_dir(folder).map_err(StoreError::io("sync the folder", folder))?;
        }
        Ok(())
    }

    /// Counts the files of a folder, unless that was done before. `each` is called with their names.
    pub(crate) fn count_folder(&self, folder: &Path, each: impl FnMut(&str)) {
        self.counted.folder(&*self.disk, folder, each);
    }

    /// The folder is another one than before: it is counted from nothing.
    pub(crate) fn count_again(&self) {
        self.known.lock().clear();
        self.counted.restart();
    }

    /// The walk has ended: from now on every change counts.
    pub(crate) fn all_counted(&self) {
        self.counted.finish();
    }

    pub(crate) fn write_new(&self, path: &Path, content: &[u8]) -> Result<(), StoreError> {
        let file = match self.disk.open(path, Access::CreateNew) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.known.lock().remove(parent(path));
                self.make_folder(parent(path))?;
                self.disk.open(path, Access::CreateNew)
            }
            other => other,
        };
        let file = file.map_err(StoreError::io("create", path))?;
        file.write_at(content, 0).map_err(StoreError::io("write", path))?;
        if self.durable() {
            file.sync_data().map_err(StoreError::io("sync", path))?;
        }
        Ok(())
    }

    fn put_in_place(&self, temporary: &Path, path: &Path, content: &[u8]) -> Result<Replaced, StoreError> {
        let folder = parent(path);
        self.make_folder(folder)?;
        let mut existed = false;
        let mut rename = || {
            self.counted.change(path, || {
                let old = self.disk.metadata(path).ok();
                self.disk.rename(temporary, path)?;
                existed = old.is_some();
                Ok((old.map_or(0, |old| old.len), content.len() as u64))
            })
        };
        let mut renamed = rename();
        if renamed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            // An operator has removed the folder.
            self.known.lock().clear();
            self.make_folder(folder)?;
            renamed = rename();
        }
        let counted = renamed.map_err(StoreError::io("replace", path))?;
        self.sync_folder(folder)?;
        Ok(if counted && !existed { Replaced::Nothing } else { Replaced::Old })
    }
}

/// The whole file. `None` if there is none, or if it is longer than any that the store writes.
pub(crate) fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match disk.open(path, Access::Read) {
        Err(error) if is_absent(&error) => return Ok(None),
        other => other.map_err(StoreError::io("open", path))?,
    };
    let length = file.len().map_err(StoreError::io("read", path))?;
    if length > LONGEST {
        return Ok(None);
    }
    let mut content = vec![0; usize::try_from(length).unwrap_or_default()];
    match read_exact_at(&*file, &mut content, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        other => other.map(|()| Some(content)).map_err(StoreError::io("read", path)),
    }
}

/// What a new file took the place of, as far as counts go: one that the walk will count is none that is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replaced {
    Nothing,
    Old,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::sim::SimDisk;
    use prometheus::IntGauge;

    #[test]
    fn a_folder_made_behind_the_walk_is_counted_once() {
        let disk = SimDisk::new();
        let space = Arc::new(Space::new(1 << 30, 0, IntGauge::new("bytes", "bytes").unwrap()));
        let files = Files::new(Arc::new(disk), Durability::Commit, Arc::clone(&space));
        for folder in ["ingest/tmp", "repositories"] {
            files.make_folder(Path::new(folder)).unwrap();
        }
        files.count_folder(Path::new("repositories"), |_| {});
        // The walk has seen no such folder, and does not come back.
        let late = Path::new("repositories/late/_tags");
        files.replace(&late.join("v1"), b"link").unwrap();
        assert_eq!(space.used(), 4);
        // It may as well come by later.
        files.count_folder(late, |name| panic!("{name} is counted twice"));
        files.all_counted();
        assert_eq!(space.used(), 4);
    }

    #[test]
    fn more_folders_than_are_remembered_are_made_all_the_same() {
        let space = Arc::new(Space::new(1 << 30, 0, IntGauge::new("bytes", "bytes").unwrap()));
        let files = Files::new(Arc::new(SimDisk::new()), Durability::None, space);
        for number in 0..KNOWN_FOLDERS + 5 {
            files.make_folder(&Path::new("repositories").join(number.to_string())).unwrap();
        }
        assert_eq!(files.known.lock().len(), 5);
        assert_eq!(files.disk.list(Path::new("repositories")).unwrap().len(), KNOWN_FOLDERS + 5);
    }
}
