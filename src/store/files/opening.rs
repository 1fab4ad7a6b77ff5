//! The store's folder when it is opened: lock, version, limit, and what earlier processes left.

use super::layout::{self, ALGORITHMS};
use super::record::Record;
use super::small::{Files, read};
use crate::config::{Durability, StoreSettings};
use crate::store::account::Space;
use crate::store::disk::{Disk, LOCK, Lock, LockError, is_absent};
use crate::store::error::{OpenError, StoreError};
use crate::telemetry::Metrics;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const VERSION: &[u8] = b"1\n";
const EARLIER: &str = "earlier-giver";
const FOLDER: &str = "folder";
const LARGEST_DEFAULT: u64 = 100 << 30;

pub(crate) struct Opening {
    pub(crate) path: PathBuf,
}

/// What a folder that belongs to this process says.
pub(crate) struct Opened {
    pub(crate) lock: Lock,
    pub(crate) suspect: bool,
    pub(crate) limit: u64,
}

impl Opening {
    /// Takes possession of the folder, which is made if it is missing.
    pub(crate) fn take(
        &self,
        settings: &StoreSettings,
        disk: &Arc<dyn Disk>,
        metrics: &Metrics,
    ) -> Result<Opened, OpenError> {
        disk.prepare().map_err(|source| self.io("make the folder of", source))?;
        let lock = self.lock(&**disk)?;
        self.check_version(&**disk)?;
        // These few files are synced whatever the setting, since nothing works without them, and they are not counted:
        // they are needed to find out the limit, and whether this is a store at all.
        let uncounted = Space::new(u64::MAX, 0, metrics.store_bytes.with_label_values(&[] as &[&str]));
        let files = Files::new(Arc::clone(disk), Durability::Commit, Arc::new(uncounted));
        self.furnish(&**disk, &files)?;
        let suspect = self.mark_unsynced(settings.sync, &files)?;
        Ok(Opened { lock, suspect, limit: self.limit(settings, &files)? })
    }

    pub(crate) fn lock(&self, disk: &dyn Disk) -> Result<Lock, OpenError> {
        disk.lock(Path::new(LOCK)).map_err(|error| match error {
            LockError::Held(pid) => OpenError::InUse { path: self.path.clone(), pid },
            LockError::Io(source) => self.io("lock", source),
        })
    }

    /// A store without a version is new, or its first start was cut short.
    pub(crate) fn check_version(&self, disk: &dyn Disk) -> Result<(), OpenError> {
        let found =
            read(disk, Path::new(layout::VERSION)).map_err(|error| self.failed("read the version of", error))?;
        match found {
            Some(found) if found != VERSION && !found.is_empty() => {
                let found = String::from_utf8_lossy(&found[..found.len().min(40)]).trim().to_owned();
                Err(OpenError::Version { path: self.path.clone(), found })
            }
            _ => Ok(()),
        }
    }

    /// Makes what every store has.
    fn furnish(&self, disk: &dyn Disk, first: &Files) -> Result<(), OpenError> {
        let of_givers = |folder: &&str| Path::new(folder).starts_with(layout::GIVERS);
        let make =
            |folder: &str| first.make_folder(Path::new(folder)).map_err(|error| self.failed("make a folder of", error));
        layout::FOLDERS.into_iter().rev().filter(|folder| !of_givers(folder)).try_for_each(make)?;
        // A rename by a process that was killed may not have reached the disk yet, and is about to be relied upon.
        for algorithm in ALGORITHMS {
            first.sync_folder(&layout::blobs(algorithm)).map_err(|error| self.failed("sync", error))?;
        }
        self.remove_temporary(disk)?;
        note_earlier(disk, first).map_err(|error| self.failed("write to", error))?;
        layout::FOLDERS.into_iter().rev().filter(of_givers).try_for_each(make)?;
        self.write_version(first)
    }

    fn write_version(&self, files: &Files) -> Result<(), OpenError> {
        let path = Path::new(layout::VERSION);
        let found = files.read(path).map_err(|error| self.failed("read the version of", error))?;
        if found.as_deref() != Some(VERSION) {
            files.replace(path, VERSION).map_err(|error| self.failed("write the version of", error))?;
        }
        Ok(())
    }

    fn remove_temporary(&self, disk: &dyn Disk) -> Result<(), OpenError> {
        let folder = Path::new(layout::TEMPORARY);
        for entry in disk.list(folder).map_err(|error| self.io("read", error))? {
            disk.remove(&folder.join(&entry.name)).map_err(|error| self.io("remove a temporary file of", error))?;
        }
        Ok(())
    }

    /// Whether an earlier process, stopped before it could sync, may have left blobs that are not what they seem. If this one
    /// is not to sync, either, it says so before it stores anything.
    fn mark_unsynced(&self, sync: Durability, files: &Files) -> Result<bool, OpenError> {
        let path = Path::new(layout::UNSYNCED);
        let suspect = files.read(path).map_err(|error| self.failed("read", error))?.is_some();
        if sync == Durability::None && !suspect {
            files.replace(path, b"").map_err(|error| self.failed("write to", error))?;
        }
        Ok(suspect)
    }

    /// The operator's limit, else the one chosen at the first start: what was free then is not what is free now.
    fn limit(&self, settings: &StoreSettings, files: &Files) -> Result<u64, OpenError> {
        const KIND: &str = "default-size";
        if let Some(limit) = settings.max_size {
            return Ok(limit);
        }
        let path = Path::new(layout::DEFAULT_SIZE);
        let found = files.read(path).map_err(|error| self.failed("read the size of", error))?;
        let found = found.and_then(|bytes| Record::parse(KIND, &bytes)?.get("bytes")?.parse().ok());
        if let Some(limit) = found {
            return Ok(limit);
        }
        let free = files.disk.free().map_err(|error| self.io("tell what is free at", error))?;
        let limit = LARGEST_DEFAULT.min(free / 2);
        let record = Record::new().with("bytes", &limit);
        files.replace(path, &record.to_bytes(KIND)).map_err(|error| self.failed("write the size of", error))?;
        Ok(limit)
    }

    pub(crate) fn io(&self, action: &'static str, source: io::Error) -> OpenError {
        OpenError::Io { action, path: self.path.clone(), source }
    }

    fn failed(&self, action: &'static str, error: StoreError) -> OpenError {
        self.io(action, io::Error::other(error))
    }
}

/// Says once of a store without records that all it has is of one registry, if that is so. It runs before their folder is made.
fn note_earlier(disk: &dyn Disk, files: &Files) -> Result<(), StoreError> {
    match disk.metadata(Path::new(layout::GIVERS)) {
        Err(error) if is_absent(&error) => {}
        _ => return Ok(()),
    }
    let entries = disk.list(Path::new(layout::REPOSITORIES)).unwrap_or_default();
    let folders: Vec<&str> = entries.iter().filter(|entry| entry.is_dir).map(|entry| &*entry.name).collect();
    if let [folder] = folders[..] {
        files.replace(Path::new(layout::EARLIER), &Record::new().with(FOLDER, folder).to_bytes(EARLIER))?;
    }
    Ok(())
}

/// The folder of the registry that gave what has no record.
pub(crate) fn earlier_giver(files: &Files) -> Option<Arc<str>> {
    let bytes = files.read(Path::new(layout::EARLIER)).ok().flatten();
    let record = bytes.and_then(|bytes| Record::parse(EARLIER, &bytes))?;
    record.get(FOLDER).map(Arc::from)
}
