//! A store looked at from outside, while no daemon has it: every blob hashed, and on request the damaged ones set aside.
//!
//! Nothing is made, counted, evicted or served. Without a request to repair, nothing but the lock file is written.

use crate::oci::Digest;
use crate::store::blobs::Rehash;
use crate::store::disk::{Access, Disk, Lock, is_absent, parent};
use crate::store::error::{OpenError, StoreError};
use crate::store::files::Opening;
use crate::store::files::layout::{self, ALGORITHMS};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A store that belongs to this process, for looking at it.
pub struct Verifier {
    disk: Box<dyn Disk>,
    _lock: Lock,
}

/// What a look at one blob has shown.
#[derive(Debug)]
pub enum Verdict {
    /// Its bytes have their digest.
    Sound {
        /// How many they are.
        bytes: u64,
    },
    /// Its bytes have another digest.
    Damaged {
        /// How many they are.
        bytes: u64,
    },
    /// The disk does not give them out.
    Unreadable(io::Error),
    /// It was removed meanwhile.
    Absent,
}

impl Verifier {
    /// Takes the store at `path`, which must exist. No other process may have it.
    pub fn open(path: &Path, disk: impl Disk) -> Result<Self, OpenError> {
        let at = Opening { path: path.to_owned() };
        if let Err(error) = disk.metadata(Path::new(layout::VERSION)) {
            let missing = is_absent(&error).then(|| OpenError::Missing { path: path.to_owned() });
            return Err(missing.unwrap_or_else(|| at.io("read the version of", error)));
        }
        let lock = at.lock(&disk)?;
        at.check_version(&disk)?;
        Ok(Self { disk: Box::new(disk), _lock: lock })
    }

    /// Every blob, in the order of their digests.
    pub fn blobs(&self) -> Result<Vec<Digest>, StoreError> {
        let mut all = Vec::new();
        for algorithm in ALGORITHMS {
            let folder = layout::blobs(algorithm);
            match self.disk.list(&folder) {
                Err(error) if is_absent(&error) => {}
                other => {
                    let entries = other.map_err(StoreError::io("list", &folder))?;
                    all.extend(entries.iter().filter_map(|entry| layout::digest(algorithm, &entry.name)));
                }
            }
        }
        all.sort_unstable();
        Ok(all)
    }

    /// Reads and hashes all of a blob.
    #[must_use]
    pub fn look_at(&self, digest: &Digest) -> Verdict {
        let looked = self.disk.open(&layout::blob(digest), Access::Read).and_then(|file| {
            let (len, mut rehash) = (file.len()?, Rehash::new(*digest));
            rehash.step(&*file, len, u64::MAX)?;
            Ok((len, rehash.pieces().is_some()))
        });
        match looked {
            Ok((bytes, true)) => Verdict::Sound { bytes },
            Ok((bytes, false)) => Verdict::Damaged { bytes },
            Err(error) if is_absent(&error) => Verdict::Absent,
            Err(error) => Verdict::Unreadable(error),
        }
    }

    /// Moves a blob to the quarantine, so that the next pull fetches it; where it is now, below the store's folder.
    pub fn set_aside(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        let number = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let (path, aside) = (layout::blob(digest), layout::quarantined(digest, number));
        let _ = self.disk.make_dir(parent(&aside));
        self.disk.rename(&path, &aside).map_err(StoreError::io("quarantine", &path))?;
        let _ = self.disk.remove(&layout::pieces(digest));
        for folder in [parent(&aside), parent(&path)] {
            self.disk.sync_dir(folder).map_err(StoreError::io("sync the folder", folder))?;
        }
        Ok(aside)
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier")
    }
}
