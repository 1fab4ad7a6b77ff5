//! The right to change the file of a blob: to place, open, remove or set it aside.

use crate::oci::Digest;
use crate::store::error::StoreError;
use parking_lot::{Mutex, MutexGuard};
use std::time::Duration;

/// How long a reader waits for the thread that changes the file of a blob.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// One lock per digest. Some digests share theirs, so a thread that holds one lock must not take another.
pub(super) struct DigestLocks([Mutex<()>; 64]);

/// A digest whose lock this thread holds. Functions that rely on it take it as an argument.
pub(super) struct DigestGuard<'a> {
    digest: Digest,
    _lock: MutexGuard<'a, ()>,
}

impl DigestGuard<'_> {
    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }
}

impl DigestLocks {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(())))
    }

    pub(super) fn lock(&self, digest: &Digest) -> DigestGuard<'_> {
        DigestGuard { digest: *digest, _lock: self.of(digest).lock() }
    }

    /// The same for a reader, who does not wait long for a writer whose disk may not answer.
    pub(super) fn lock_soon(&self, digest: &Digest) -> Result<DigestGuard<'_>, StoreError> {
        let lock = self.of(digest).try_lock_for(LOCK_WAIT).ok_or(StoreError::Hung { patience: LOCK_WAIT })?;
        Ok(DigestGuard { digest: *digest, _lock: lock })
    }

    fn of(&self, digest: &Digest) -> &Mutex<()> {
        let first = digest.as_bytes().first().copied().unwrap_or_default();
        &self.0[usize::from(first) % self.0.len()]
    }
}
