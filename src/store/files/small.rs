//! Small files: read whole, replaced atomically, removed; and the folders that they lie in.
//!
//! After [`Files::replace`] has returned under `Durability::Commit`, the new content survives a crash; before, the file is the old or
//! the new one, never a mixture. Bytes are accounted for in [`Space`], once each, also while the walk still counts.

use crate::config::Durability;
use crate::store::account::Space;
use crate::store::disk::{Access, Disk, read_exact_at};
use crate::store::error::StoreError;
use crate::store::files::layout;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Folders remembered as made and synced; beyond that they are forgotten and looked at again.
const KNOWN_FOLDERS: usize = 10_000;
/// No small file is longer: lists are the longest.
const LONGEST: u64 = 64 << 20;

pub(crate) struct Files {
    pub(crate) disk: Arc<dyn Disk>,
    sync: Durability,
    space: Arc<Space>,
    known: Mutex<HashSet<PathBuf>>,
    /// Folders that the walk has counted so far; `None` once it has ended.
    counted: Mutex<Option<HashSet<PathBuf>>>,
    /// One at a time changes a file, so that the bytes before and after are those that it found and left.
    changing: [Mutex<()>; 64],
    next_temporary: AtomicU64,
}

impl Files {
    pub(crate) fn new(disk: Arc<dyn Disk>, sync: Durability, space: Arc<Space>) -> Self {
        let (known, counted) = (Mutex::default(), Mutex::new(Some(HashSet::new())));
        let changing = std::array::from_fn(|_| Mutex::new(()));
        Self { disk, sync, space, known, counted, changing, next_temporary: AtomicU64::new(0) }
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
        self.counting(path, || {
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
            match self.make_one(path) {
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

    /// A folder made while the walk counts may lie where the walk has passed. It is empty, and so it counts as counted: whoever
    /// fills it adds the bytes.
    fn make_one(&self, folder: &Path) -> io::Result<()> {
        let mut counted = self.counted.lock();
        self.disk.make_dir(folder)?;
        if let Some(folders) = counted.as_mut() {
            folders.insert(folder.to_owned());
        }
        Ok(())
    }

    pub(crate) fn sync_folder(&self, folder: &Path) -> Result<(), StoreError> {
        if self.durable() {
            self.disk.sync_dir(folder).map_err(StoreError::io("sync the folder", folder))?;
        }
        Ok(())
    }

    /// Counts a folder's files, once, with nobody changing one meanwhile. The walk calls it.
    pub(crate) fn count_folder(&self, folder: &Path, mut each: impl FnMut(&str)) {
        let mut counted = self.counted.lock();
        let Some(folders) = counted.as_mut().filter(|folders| !folders.contains(folder)) else { return };
        let mut bytes = 0;
        for entry in self.disk.list(folder).unwrap_or_default().iter().filter(|entry| !entry.is_dir) {
            if let Ok(metadata) = self.disk.metadata(&folder.join(&entry.name)) {
                bytes += metadata.len;
                each(&entry.name);
            }
        }
        folders.insert(folder.to_owned());
        self.space.add(bytes);
    }

    /// Another folder than before is to be counted from nothing.
    pub(crate) fn count_again(&self) {
        self.known.lock().clear();
        *self.counted.lock() = Some(HashSet::new());
    }

    /// The walk has ended: from now on every change counts.
    pub(crate) fn all_counted(&self) {
        *self.counted.lock() = None;
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
            self.counting(path, || {
                let old = self.disk.metadata(path).ok();
                self.disk.rename(temporary, path)?;
                existed = old.is_some();
                Ok((old.map_or(0, |old| old.len), content.len() as u64))
            })
        };
        let mut renamed = rename();
        if renamed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            // Somebody has removed the folder by hand.
            self.known.lock().clear();
            self.make_folder(folder)?;
            renamed = rename();
        }
        let counted = renamed.map_err(StoreError::io("replace", path))?;
        self.sync_folder(folder)?;
        Ok(if counted && !existed { Replaced::Nothing } else { Replaced::Old })
    }

    /// Runs `change`, which tells the bytes before and after, and accounts for them unless the walk is still to count the
    /// folder. Whether it has.
    fn counting(&self, path: &Path, change: impl FnOnce() -> io::Result<(u64, u64)>) -> io::Result<bool> {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let _one = self.changing[usize::from(hasher.finish().to_le_bytes()[0]) % self.changing.len()].lock();
        let counted = self.counted.lock();
        let is_counted = match &*counted {
            Some(folders) => folders.contains(parent(path)),
            None => true,
        };
        // Before the walk has ended, the lock is held so that it cannot count the folder half changed.
        let held = if counted.is_some() {
            Some(counted)
        } else {
            drop(counted);
            None
        };
        let (old, new) = change()?;
        if is_counted {
            self.space.add(new);
            self.space.sub(old);
        }
        drop(held);
        Ok(is_counted)
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

pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new(""))
}

/// Whether an error means that there is no such file: also a name too long for the file system, or a file where a folder should be.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename)
}

/// Whether an error means that the disk takes nothing more: no space, no quota, or no room for another file.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
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
