//! The seam between the store and the file system.
//!
//! Every path is relative to the store's folder. Everything here blocks and is called on the store's own threads only. There
//! are two disks: [`RealDisk`] and, for tests, [`sim::SimDisk`], which loses, tears and reorders whatever was not synced.

mod real;
#[doc(hidden)]
pub mod sim;

pub use real::RealDisk;

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A folder tree that the store owns.
pub trait Disk: Send + Sync + 'static {
    /// Makes the store's own folder, readable by its owner alone, if it is missing.
    fn prepare(&self) -> io::Result<()>;
    /// Takes the lock file and writes this process's number into it. Held until the value is dropped.
    fn lock(&self, path: &Path) -> Result<Lock, LockError>;
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>>;
    /// Renames a file or folder, over an existing file if there is one.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder and all that it holds.
    fn remove_tree(&self, path: &Path) -> io::Result<()>;
    /// Makes one folder, whose parent exists.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// What a folder holds, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// Size and time of a file.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;
    /// Makes creations, renames and removals in this folder survive a crash.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes everything that was written survive a crash. `false`: this system cannot.
    fn sync_all(&self) -> io::Result<bool>;
    /// Sets a file's time of modification.
    fn touch(&self, path: &Path, time: SystemTime) -> io::Result<()>;
    /// Bytes that this user may still write to the file system.
    fn free(&self) -> io::Result<u64>;
    /// Where the store's folder is by now; known once its lock was taken.
    fn home(&self) -> io::Result<Home> {
        Ok(Home::Ours)
    }
    /// How long an operation may take before the disk counts as one that does not answer.
    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
    /// The path for libraries that open files themselves. `None` on a simulated disk.
    fn real_path(&self, path: &Path) -> Option<PathBuf>;
}

/// What is found where the store's folder was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// The folder, with the lock file that this process holds.
    Ours,
    /// It was removed, or another one took its place, on the same file system: larder may move in.
    Missing,
    /// Another file system: the store's is not mounted.
    Elsewhere,
}

/// A held lock file.
pub type Lock = Box<dyn Any + Send + Sync>;

/// Why a lock file was not taken.
#[derive(Debug)]
pub enum LockError {
    /// Another process holds it; its number, if it could be read.
    Held(Option<u32>),
    /// The file could not be opened or locked.
    Io(io::Error),
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and to continue writing, whatever its mode.
    ReadWrite,
    /// A new file, which must not exist. Only its owner may read or write it.
    CreateNew,
}

/// One name in a folder.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name. Names that are not Unicode are none of the store's and are left out.
    pub name: String,
    pub is_dir: bool,
}

/// Size and time of a file.
#[derive(Clone, Copy, Debug)]
pub struct Metadata {
    /// Bytes.
    pub len: u64,
    pub modified: SystemTime,
}

#[expect(clippy::len_without_is_empty, reason = "a file's length is a system call that can fail")]
pub trait DiskFile: Send + Sync {
    /// Reads at most `buffer.len()` bytes; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `data`.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Makes content and length survive a crash.
    fn sync_data(&self) -> io::Result<()>;
    /// Allocates space for the first `len` bytes and keeps the file's length. `false`: this file system cannot.
    fn allocate(&self, len: u64) -> io::Result<bool>;
    /// Gives back what is allocated behind the file's end.
    fn release(&self) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    /// Lets the system use the memory that holds the file's content for something else.
    fn forget(&self);
    /// Removes the write permission for all users. This handle can still write.
    fn set_read_only(&self) -> io::Result<()>;
    /// The file for `sendfile` and the like. `None` on a simulated disk.
    fn std_file(&self) -> Option<&std::fs::File>;
}

pub(crate) const LOCK: &str = "lock";

pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new(""))
}

/// Whether an error means that there is no such file: also a name too long for the file system, or a file where a folder should be.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename)
}

/// Whether an error means that the disk takes nothing more: no space, no quota, or no room for another file.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether an error means that a file exists and cannot be read. Its content is then as lost as that of a missing file.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    // EIO; EBADMSG and EUCLEAN are what file systems with checksums say.
    let broken = cfg!(unix) && matches!(error.raw_os_error(), Some(5 | 74 | 117));
    broken || matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::PermissionDenied)
}

/// Reads exactly `buffer.len()` bytes.
pub(crate) fn read_exact_at(file: &dyn DiskFile, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the file ends at byte {offset}")));
            }
            Ok(read) => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
