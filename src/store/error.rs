use crate::oci::Digest;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {action} '{}' in the store: {source}{}", .path.display(), advice(.source))]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("content offered as {expected} has the digest {actual}; nothing was stored")]
    Mismatch { expected: Digest, actual: Box<Digest> },
    #[error("the stored content of {digest} is damaged; it was set aside, and the next request fetches it again")]
    Damaged { digest: Digest },
    /// There is no room.
    #[error(transparent)]
    Refused(#[from] NoRoom),
    #[error("more than the {length} bytes that were announced for {digest} arrived; discard the ingest")]
    TooLong { digest: Digest, length: u64 },
    #[error("the disk has not answered for {} s; nothing is stored until it does", .patience.as_secs_f32())]
    Hung { patience: Duration },
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// For `map_err`: what was attempted, on what.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// What a person can do about the errors of the file system that a person can do something about.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "; free some space, or lower [store] max_size",
        io::ErrorKind::QuotaExceeded => "; raise the quota, or lower [store] max_size",
        io::ErrorKind::ReadOnlyFilesystem => "; remount it writable, or move [store] path",
        io::ErrorKind::PermissionDenied => "; the store's folder must belong to the user that larder runs as",
        _ => "",
    }
}

/// Why there is no room for content. It can still be passed on without being kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    #[error("{needed} bytes are more than the store may hold ({limit}); raise [store] max_size")]
    TooLarge { needed: u64, limit: u64 },
    #[error("no room for {needed} bytes: the store's {limit} are in use; raise [store] max_size")]
    Full { needed: u64, limit: u64 },
    /// What could be removed cannot be had again now.
    #[error(
        "no room for {needed} bytes: {held} bytes are kept that no upstream can give again now; raise [store] max_size"
    )]
    Held { needed: u64, held: u64 },
    #[error("the disk does not answer; nothing new is stored until it does")]
    Slow,
    #[error("no room for {needed} bytes: the disk has {free} free, of which [store] min_free keeps {min_free}")]
    Disk { needed: u64, free: u64, min_free: u64 },
}

/// Why an ingest was not begun.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("{0} is being received already")]
    Busy(Digest),
    /// There is no room.
    #[error(transparent)]
    Refused(#[from] NoRoom),
    /// The disk failed.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for IngestError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refusal) => Self::Refused(refusal),
            other => Self::Store(other),
        }
    }
}

/// Why an ingest did not become a blob. Its file is removed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("{digest} has {received} bytes instead of the {expected} announced; they were discarded")]
    Length { digest: Digest, expected: u64, received: u64 },
    #[error("what was received as {expected} has the digest {actual}; it was discarded")]
    Digest { expected: Digest, actual: Box<Digest> },
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the store {} is in use by {}; stop it, or choose another folder with --store", .path.display(), holder(*.pid))]
    InUse { path: PathBuf, pid: Option<u32> },
    #[error("there is no store at {}; name its folder with --store or [store] path", .path.display())]
    Missing { path: PathBuf },
    /// Written by another version of larder.
    #[error(
        "the store {} has version {found:?} and this larder knows version \"1\"; use the larder that wrote it, or choose another folder with --store",
        .path.display()
    )]
    Version { path: PathBuf, found: String },
    /// The folder could not be made, read or written.
    #[error(
        "cannot {action} the store {}: {source}; it must be a folder that the user larder runs as can write: correct its owner, or choose another one with --store (under systemd, 'systemctl edit larder' and write: [Service] ReadWritePaths={})",
        .path.display(), .path.display()
    )]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
