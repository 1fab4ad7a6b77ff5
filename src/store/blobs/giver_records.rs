//! The records of who gave each blob. A record is written before its blob is in its place, and is removed with it.
//!
//! A store of an older larder has no records. If all its links were of one registry, that registry gave everything, through
//! repositories that are not known.

use super::givers::{Giver, Givers};
use super::table::BlobTable;
use crate::oci::Digest;
use crate::store::error::StoreError;
use crate::store::files::{Files, Replaced, earlier_giver, layout};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

pub(crate) struct GiverRecords {
    files: Arc<Files>,
    table: Arc<BlobTable>,
    earlier: RwLock<Option<Arc<str>>>,
    /// Blobs whose record is written and which are not in their place yet.
    placing: Mutex<HashMap<Digest, usize>>,
    /// One thread at a time changes a record …
    writing: Mutex<()>,
    /// … and one at a time what memory has of it.
    remembering: Mutex<()>,
}

impl GiverRecords {
    pub(crate) fn open(files: Arc<Files>, table: Arc<BlobTable>) -> Self {
        let (earlier, placing) = (RwLock::default(), Mutex::default());
        let records = Self { files, table, earlier, placing, writing: Mutex::new(()), remembering: Mutex::new(()) };
        records.read_earlier();
        records
    }

    /// Reads the registry that gave what has no record: the store is another one than before.
    pub(crate) fn read_earlier(&self) {
        *self.earlier.write() = earlier_giver(&self.files);
    }

    /// Those in memory.
    pub(crate) fn known(&self, digest: &Digest) -> Option<Arc<Givers>> {
        self.table.get(digest)?.givers.read().clone()
    }

    /// Who gave a blob. There may be no giver that is known.
    pub(crate) fn read(&self, digest: &Digest) -> Result<Arc<Givers>, StoreError> {
        if let Some(known) = self.known(digest) {
            return Ok(known);
        }
        let _one = self.remembering.lock();
        let earlier = || Givers { all: Vec::new(), earlier: self.earlier.read().clone() };
        let givers = Arc::new(self.recorded(digest)?.unwrap_or_else(earlier));
        if let Some(entry) = self.table.get(digest) {
            *entry.givers.write() = Some(Arc::clone(&givers));
        }
        Ok(givers)
    }

    fn recorded(&self, digest: &Digest) -> Result<Option<Givers>, StoreError> {
        Ok(self.files.read(&layout::givers(digest))?.and_then(|bytes| Givers::parse(digest, &bytes)))
    }

    /// Adds givers to a blob's record, which `replace` writes.
    pub(crate) fn add(
        &self,
        digest: &Digest,
        givers: &[Giver],
        replace: impl FnOnce(&Path, &[u8]) -> Result<Replaced, StoreError>,
    ) -> Result<(), StoreError> {
        if givers.is_empty() {
            return Ok(());
        }
        let _writer = self.writing.lock();
        let mut known = self.recorded(digest)?.unwrap_or_default();
        let added: Vec<bool> = givers.iter().map(|giver| known.add(giver)).collect();
        if added.contains(&true) {
            replace(&layout::givers(digest), &known.to_bytes(digest))?;
        }
        let _one = self.remembering.lock();
        if let Some(entry) = self.table.get(digest) {
            *entry.givers.write() = None;
        }
        Ok(())
    }

    /// Keeps what is written beside a blob while `place` writes it and puts the blob in its place.
    pub(crate) fn while_placing<T>(&self, digest: &Digest, place: impl FnOnce() -> T) -> T {
        *self.placing.lock().entry(*digest).or_default() += 1;
        let placed = place();
        let mut placing = self.placing.lock();
        if let Some(count) = placing.get_mut(digest) {
            *count -= 1;
            if *count == 0 {
                placing.remove(digest);
            }
        }
        placed
    }

    /// Whether a blob is on its way to its place: what is written beside it must stay.
    pub(super) fn is_placing(&self, digest: &Digest) -> bool {
        self.placing.lock().contains_key(digest)
    }
}
