use crate::oci::Digest;
use crate::store::blobs::check::Check;
use crate::store::disk::{DiskFile, read_exact_at};
use crate::store::jobs::workers::Workers;
use bytes::Bytes;
use std::fmt;
use std::io;
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

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &BlobFile {
        &self.file
    }
}

/// An open file of a blob or an ingest. It is never opened again by its path, so that renaming or removing it does not matter.
#[derive(Clone)]
pub struct BlobFile(pub(crate) Arc<Open>);

pub(crate) struct Open {
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) workers: Workers,
    /// Unset as long as the file is an ingest: all of it was written or hashed here.
    pub(crate) check: OnceLock<Check>,
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

/// Sees whether anybody holds a file open, without holding it open.
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
