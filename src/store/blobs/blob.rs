use super::pieces::Rehash;
use crate::oci::Digest;
use crate::store::disk::{DiskFile, read_exact_at};
use crate::store::error::StoreError;
use crate::store::jobs::Workers;
use bytes::Bytes;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock, Weak};

/// A complete, verified, immutable blob, open for reading.
///
/// As long as one of these or of its [`BlobFile`] lives, the blob is not removed to make room.
#[derive(Clone, Debug)]
pub struct Blob {
    digest: Digest,
    len: u64,
    file: BlobFile,
}

#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a blob is empty")]
impl Blob {
    pub(crate) fn new(digest: Digest, len: u64, file: BlobFile) -> Self {
        Self { digest, len, file }
    }

    /// The digest that the content has.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The content's length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    #[must_use]
    pub fn file(&self) -> &BlobFile {
        &self.file
    }
}

/// An open file of a blob or an ingest. It is never opened again by its path, so that renaming or removing it does not matter.
#[derive(Clone)]
pub struct BlobFile(Arc<Open>);

struct Open {
    file: Box<dyn DiskFile>,
    workers: Workers,
    /// Unset as long as the content is on its way in: all of it was written or hashed here.
    check: OnceLock<Box<dyn ReadCheck>>,
}

/// Says of an open blob what may be sent. All but `covers` and `distrust` read the file.
pub(super) trait ReadCheck: Send + Sync {
    /// Whether this process has written or checked all of `range`.
    fn covers(&self, range: &Range<u64>) -> bool;
    /// Forgets what was checked.
    fn distrust(&self);
    /// Compares the pieces of `range` with their checksums. `false`: there are no checksums.
    fn compare(&self, file: &dyn DiskFile, range: &Range<u64>) -> Result<bool, StoreError>;
    /// The hash of the whole blob so far, where checksums are missing.
    fn rehash(&self) -> &Arc<tokio::sync::Mutex<Rehash>>;
    /// Continues that hash for a while. `true`: all of the blob is checked.
    fn hash_on(&self, file: &dyn DiskFile, rehash: &mut Rehash) -> Result<bool, StoreError>;
}

impl BlobFile {
    pub(crate) fn new(file: Box<dyn DiskFile>, workers: Workers) -> Self {
        Self(Arc::new(Open { file, workers, check: OnceLock::new() }))
    }

    /// The file for `sendfile` and memory maps. `None` on a simulated disk.
    #[must_use]
    pub fn std_file(&self) -> Option<&std::fs::File> {
        self.0.file.std_file()
    }

    /// Reads exactly `len` bytes at `offset`, on the store's threads.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before, else what the file system says.
    pub async fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let open = Arc::clone(&self.0);
        let read = move || {
            let mut buffer = vec![0; len];
            Ok(read_exact_at(&*open.file, &mut buffer, offset).map(|()| Bytes::from(buffer)))
        };
        self.0.workers.run(read).await.map_err(io::Error::other)?
    }

    /// Whether `range` may be sent without a [`check`](Self::check): this process has written or checked all of it.
    #[must_use]
    pub fn is_checked(&self, range: &Range<u64>) -> bool {
        self.0.check.get().is_none_or(|check| check.covers(range))
    }

    /// Checks what of `range` this process has neither written nor checked.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is not as it was stored: none of it may be sent, and the blob has been set aside.
    pub async fn check(&self, range: Range<u64>) -> Result<(), StoreError> {
        let Some(check) = self.0.check.get().filter(|check| !check.covers(&range)) else { return Ok(()) };
        if self.on_check(move |file, check| check.compare(file, &range)).await? {
            return Ok(());
        }
        // It stays with the check when a reader leaves in the middle.
        let mut rehash = Arc::clone(check.rehash()).lock_owned().await;
        loop {
            let step = self.on_check(move |file, check| Ok((check.hash_on(file, &mut rehash)?, rehash)));
            let (is_done, back) = step.await?;
            if is_done {
                return Ok(());
            }
            rehash = back;
        }
    }

    /// Reading it went wrong: what was checked is checked again.
    pub fn distrust(&self) {
        if let Some(check) = self.0.check.get() {
            check.distrust();
        }
    }

    async fn on_check<T: Send + 'static>(
        &self,
        job: impl FnOnce(&dyn DiskFile, &dyn ReadCheck) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let open = Arc::clone(&self.0);
        let job = move || job(&*open.file, &**open.check.get().ok_or(StoreError::Closed)?);
        self.0.workers.run(job).await
    }

    /// Says once how it is checked before it is sent.
    pub(super) fn set_check(&self, check: impl ReadCheck + 'static) {
        let _ = self.0.check.set(Box::new(check));
    }

    pub(crate) fn disk_file(&self) -> &dyn DiskFile {
        &*self.0.file
    }

    pub(crate) fn observer(&self) -> Observer {
        Observer(Arc::downgrade(&self.0))
    }
}

impl fmt::Debug for BlobFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlobFile")
    }
}

/// Counts who holds a file open, without holding it open.
#[derive(Default)]
pub(crate) struct Observer(Weak<Open>);

impl Observer {
    pub(crate) fn holders(&self) -> usize {
        self.0.strong_count()
    }

    pub(crate) fn file(&self) -> Option<BlobFile> {
        self.0.upgrade().map(BlobFile)
    }
}
