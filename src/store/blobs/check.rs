//! The read check: what this process has neither written nor checked is checked before it is first sent.
//!
//! An open blob knows which of its pieces may go out. The others are read and compared on the store's threads when they are
//! asked for. A bad piece never leaves: the blob goes to quarantine, under its digest's lock and only if it is still the one
//! that was read, and whoever asks next finds it absent.

use crate::oci::Digest;
use crate::store::blobs::blob::{BlobFile, Open};
use crate::store::blobs::pieces::{Pieces, Rehash};
use crate::store::blobs::table::Entry;
use crate::store::error::StoreError;
use crate::store::parts::Inner;
use std::ops::Range;
use std::sync::{Arc, OnceLock, Weak};

/// Bytes hashed in one job, so that others get their turn.
const STEP: u64 = 64 << 20;

/// What an open blob needs to check itself.
pub(crate) struct Check {
    inner: Weak<Inner>,
    digest: Digest,
    entry: Arc<Entry>,
    pieces: OnceLock<Pieces>,
    /// The hash of all of it, for want of checksums. It stays here when a reader leaves in the middle.
    rehash: Arc<tokio::sync::Mutex<Rehash>>,
}

impl Check {
    pub(crate) fn new(inner: Weak<Inner>, digest: Digest, entry: Arc<Entry>, pieces: Option<Pieces>) -> Self {
        let rehash = Arc::new(tokio::sync::Mutex::new(Rehash::new(digest)));
        Self { inner, digest, entry, pieces: pieces.map_or_else(OnceLock::new, OnceLock::from), rehash }
    }

    fn inner(&self) -> Result<Arc<Inner>, StoreError> {
        self.inner.upgrade().ok_or(StoreError::Closed)
    }

    fn damaged(&self) -> StoreError {
        let aside = self.inner().and_then(|inner| inner.quarantine(&self.digest, &self.entry, "read"));
        aside.err().unwrap_or(StoreError::Damaged { digest: self.digest })
    }

    /// Compares the pieces in `range` that are not checked yet. `false`: there are no checksums.
    fn compare(&self, open: &Open, range: &Range<u64>) -> Result<bool, StoreError> {
        if self.pieces.get().is_none()
            && let Some(pieces) = self.inner()?.read_pieces(&self.digest)
        {
            let _ = self.pieces.set(pieces);
        }
        let Some(pieces) = self.pieces.get() else { return Ok(false) };
        for number in self.entry.checked.missing(range) {
            if !pieces.holds(&*open.file, number) {
                return Err(self.damaged());
            }
            self.entry.checked.set(number);
        }
        Ok(true)
    }

    /// Goes on hashing all of it. `true`: all of it is checked.
    fn hash_on(&self, open: &Open, rehash: &mut Rehash) -> Result<bool, StoreError> {
        if self.entry.checked.is_all() {
            return Ok(true);
        }
        let pieces = match rehash.step(&*open.file, self.entry.len, STEP) {
            Ok(false) => return Ok(false),
            Ok(true) => rehash.pieces(),
            Err(_) => None,
        };
        *rehash = Rehash::new(self.digest);
        let Some(pieces) = pieces else { return Err(self.damaged()) };
        self.entry.checked.set_all();
        self.inner()?.keep_pieces(&self.digest, &pieces);
        let _ = self.pieces.set(pieces);
        Ok(true)
    }
}

impl BlobFile {
    /// Whether `range` may be sent without a [`check`](Self::check): this process has written or checked all of it.
    #[must_use]
    pub fn is_checked(&self, range: &Range<u64>) -> bool {
        self.0.check.get().is_none_or(|check| check.entry.checked.covers(range))
    }

    /// Checks what of `range` this process has neither written nor checked.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is not as it was stored: none of it may be sent, and the blob has been set aside.
    pub async fn check(&self, range: Range<u64>) -> Result<(), StoreError> {
        let Some(check) = self.0.check.get().filter(|check| !check.entry.checked.covers(&range)) else {
            return Ok(());
        };
        if self.on_check(move |open, check| check.compare(open, &range)).await? {
            return Ok(());
        }
        let mut rehash = Arc::clone(&check.rehash).lock_owned().await;
        loop {
            let step = self.on_check(move |open, check| Ok((check.hash_on(open, &mut rehash)?, rehash)));
            let (done, back) = step.await?;
            if done {
                return Ok(());
            }
            rehash = back;
        }
    }

    /// Something went wrong in reading it: what was checked is checked again.
    pub fn distrust(&self) {
        if let Some(check) = self.0.check.get() {
            check.entry.checked.clear();
        }
    }

    async fn on_check<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Open, &Check) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let open = Arc::clone(&self.0);
        let job = move || job(&open, open.check.get().ok_or(StoreError::Closed)?);
        self.0.workers.run(job).await
    }
}
