//! The read check: what this process has neither written nor checked is checked before it is first sent.
//!
//! An open blob knows which of its pieces may go out. The others are read and compared on the store's threads when a reader asks
//! for them. A bad piece never leaves: the blob goes to quarantine, and the next request finds it absent.

use super::blob::ReadCheck;
use super::entry::BlobEntry;
use super::pieces::{Pieces, Rehash};
use super::soundness::Soundness;
use crate::oci::Digest;
use crate::store::disk::DiskFile;
use crate::store::error::StoreError;
use std::ops::Range;
use std::sync::{Arc, OnceLock, Weak};

/// Bytes hashed in one job, so that others get their turn.
const STEP: u64 = 64 << 20;

/// What an open blob needs to check itself. A reader may hold it for long, which must not keep a store alive.
pub(super) struct Check {
    soundness: Weak<Soundness>,
    digest: Digest,
    entry: Arc<BlobEntry>,
    pieces: OnceLock<Pieces>,
    rehash: Arc<tokio::sync::Mutex<Rehash>>,
}

impl Check {
    pub(super) fn new(
        soundness: &Arc<Soundness>,
        digest: Digest,
        entry: Arc<BlobEntry>,
        pieces: Option<Pieces>,
    ) -> Self {
        let rehash = Arc::new(tokio::sync::Mutex::new(Rehash::new(digest)));
        let pieces = pieces.map_or_else(OnceLock::new, OnceLock::from);
        Self { soundness: Arc::downgrade(soundness), digest, entry, pieces, rehash }
    }

    fn soundness(&self) -> Result<Arc<Soundness>, StoreError> {
        self.soundness.upgrade().ok_or(StoreError::Closed)
    }

    fn damaged(&self) -> StoreError {
        let aside = self.soundness().and_then(|soundness| soundness.set_aside_if(&self.digest, &self.entry, "read"));
        aside.err().unwrap_or(StoreError::Damaged { digest: self.digest })
    }
}

impl ReadCheck for Check {
    fn covers(&self, range: &Range<u64>) -> bool {
        self.entry.checked.covers(range)
    }

    fn distrust(&self) {
        self.entry.checked.clear();
    }

    fn compare(&self, file: &dyn DiskFile, range: &Range<u64>) -> Result<bool, StoreError> {
        if self.pieces.get().is_none()
            && let Some(pieces) = self.soundness()?.pieces(&self.digest)
        {
            let _ = self.pieces.set(pieces);
        }
        let Some(pieces) = self.pieces.get() else { return Ok(false) };
        for number in self.entry.checked.missing(range) {
            if !pieces.holds(file, number) {
                return Err(self.damaged());
            }
            self.entry.checked.set(number);
        }
        Ok(true)
    }

    fn rehash(&self) -> &Arc<tokio::sync::Mutex<Rehash>> {
        &self.rehash
    }

    fn hash_on(&self, file: &dyn DiskFile, rehash: &mut Rehash) -> Result<bool, StoreError> {
        if self.entry.checked.is_all() {
            return Ok(true);
        }
        let pieces = match rehash.step(file, self.entry.len, STEP) {
            Ok(false) => return Ok(false),
            Ok(true) => rehash.pieces(),
            Err(_) => None,
        };
        *rehash = Rehash::new(self.digest);
        let Some(pieces) = pieces else { return Err(self.damaged()) };
        self.entry.checked.set_all();
        self.soundness()?.keep_pieces(&self.digest, &pieces);
        let _ = self.pieces.set(pieces);
        Ok(true)
    }
}
