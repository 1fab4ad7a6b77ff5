use crate::oci::Digest;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {action} '{}' in the store: {source}{}", .path.display(), advice(.source))]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The path below the store's folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Content was offered under a digest that it does not have.
    #[error("content offered as {expected} has the digest {actual}; nothing was stored")]
    Mismatch {
        /// The digest under which it was offered.
        expected: Digest,
        /// The digest that it has.
        actual: Box<Digest>,
    },
    /// What is stored is not what was stored.
    #[error("the stored content of {digest} is damaged; it was set aside, and the next request fetches it again")]
    Damaged {
        /// The blob.
        digest: Digest,
    },
    /// There is no room.
    #[error(transparent)]
    Refused(#[from] NoRoom),
    /// An ingest was given more bytes than were announced.
    #[error("more than the {length} bytes that were announced for {digest} arrived; discard the ingest")]
    TooLong {
        /// What was being received.
        digest: Digest,
        /// The length announced.
        length: u64,
    },
    /// The disk does not answer.
    #[error("the disk has not answered for {} s; nothing is stored until it does", .patience.as_secs_f32())]
    Hung {
        /// How long it was waited for.
        patience: Duration,
    },
    /// The store has been closed, or the thread that did the work is gone.
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
    /// More than the whole store may hold.
    #[error("{needed} bytes are more than the store may hold ({limit}); raise [store] max_size")]
    TooLarge {
        /// Bytes to store.
        needed: u64,
        /// Bytes that the store may hold.
        limit: u64,
    },
    /// What could be removed does not make enough room.
    #[error("no room for {needed} bytes: the store's {limit} are in use; raise [store] max_size")]
    Full {
        /// Bytes to store.
        needed: u64,
        /// Bytes that the store may hold.
        limit: u64,
    },
    /// What could be removed cannot be had again now.
    #[error(
        "no room for {needed} bytes: {held} bytes are kept that no upstream can give again now; raise [store] max_size"
    )]
    Held {
        /// Bytes to store.
        needed: u64,
        /// Bytes that are not removed for that reason.
        held: u64,
    },
    /// The disk has not finished an operation for long.
    #[error("the disk does not answer; nothing new is stored until it does")]
    Slow,
    /// The file system has too little left.
    #[error("no room for {needed} bytes: the disk has {free} free, of which [store] min_free keeps {min_free}")]
    Disk {
        /// Bytes to store.
        needed: u64,
        /// Bytes free, promised ones left out.
        free: u64,
        /// Bytes to be left free.
        min_free: u64,
    },
}

/// Why an ingest was not begun.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// One is running for this digest.
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
    /// Too few or too many bytes.
    #[error("{digest} has {received} bytes instead of the {expected} announced; they were discarded")]
    Length {
        /// What was being received.
        digest: Digest,
        /// The length announced.
        expected: u64,
        /// Bytes received.
        received: u64,
    },
    /// Other bytes.
    #[error("what was received as {expected} has the digest {actual}; it was discarded")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Box<Digest>,
    },
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process owns it.
    #[error("the store {} is in use by {}; stop it, or choose another folder with --store", .path.display(), holder(*.pid))]
    InUse {
        /// The store's folder.
        path: PathBuf,
        /// The process that holds it.
        pid: Option<u32>,
    },
    /// There is none.
    #[error("there is no store at {}; name its folder with --store or [store] path", .path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Written by another version of larder.
    #[error(
        "the store {} has version {found:?} and this larder knows version \"1\"; use the larder that wrote it, or choose another folder with --store",
        .path.display()
    )]
    Version {
        /// The store's folder.
        path: PathBuf,
        /// What its version file says.
        found: String,
    },
    /// The folder could not be made, read or written.
    #[error(
        "cannot {action} the store {}: {source}; it must be a folder that the user larder runs as can write: correct its owner, or choose another one with --store (under systemd, 'systemctl edit larder' and write: [Service] ReadWritePaths={})",
        .path.display(), .path.display()
    )]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The store's folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
