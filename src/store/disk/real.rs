use super::{Access, Disk, DiskFile, Entry, Home, LOCK, Lock, LockError, Metadata, is_absent};
use parking_lot::Mutex;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The store's folder on the operating system's file system.
///
/// What differs between systems is in the `platform` module below: positioned reads, modes, allocation, free space and the
/// sync of a folder.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
    /// Which file the lock is, on which file system.
    locked: Mutex<Option<Identity>>,
}

/// A file's number, and that of its file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    file: u64,
}

impl RealDisk {
    /// A disk below `root`, which need not exist yet.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), locked: Mutex::default() }
    }

    fn path(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    fn locked(&self) -> Option<Identity> {
        *self.locked.lock()
    }
}

impl Disk for RealDisk {
    fn prepare(&self) -> io::Result<()> {
        platform::make_private_dirs(&self.root)
    }

    fn lock(&self, path: &Path) -> Result<Lock, LockError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        platform::make_private(&mut options);
        let mut file = options.open(self.path(path)).map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                return Err(LockError::Held(holder.trim().parse().ok()));
            }
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        let written = file.set_len(0).and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
        written.map_err(LockError::Io)?;
        let identity = file.metadata().map(|metadata| platform::identity(&metadata)).map_err(LockError::Io)?;
        *self.locked.lock() = identity;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let path = self.path(path);
        let mut options = OpenOptions::new();
        let create = access == Access::CreateNew;
        options.read(true).write(access != Access::Read).create_new(create);
        platform::make_private(&mut options);
        let file = match options.open(&path) {
            // A crash between the two steps of a commit leaves an ingest that is read-only already.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && access == Access::ReadWrite => {
                platform::make_writable(&path)?;
                options.open(&path)?
            }
            other => other?,
        };
        Ok(Box::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(self.path(path))
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(self.path(path))
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        // Were the store's file system gone, its folders would come to be on the one below, and fill that.
        if self.home()? == Home::Elsewhere {
            let why = "another file system is where the store was";
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        platform::make_private_dir(&self.path(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.path(path))? {
            let entry = entry?;
            let is_dir = entry.file_type()?.is_dir();
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(Entry { name, is_dir });
            }
        }
        Ok(entries)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let metadata = fs::metadata(self.path(path))?;
        Ok(Metadata { len: metadata.len(), modified: metadata.modified()? })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        platform::sync_dir(&self.path(path))
    }

    fn sync_all(&self) -> io::Result<bool> {
        platform::sync_all(&self.root)
    }

    fn touch(&self, path: &Path, time: SystemTime) -> io::Result<()> {
        File::open(self.path(path))?.set_modified(time)
    }

    fn free(&self) -> io::Result<u64> {
        platform::free(&self.root)
    }

    fn home(&self) -> io::Result<Home> {
        let Some(locked) = self.locked() else { return Ok(Home::Ours) };
        let found = match fs::metadata(self.path(Path::new(LOCK))) {
            Ok(metadata) => platform::identity(&metadata),
            Err(error) if is_absent(&error) => None,
            Err(error) => return Err(error),
        };
        if found == Some(locked) {
            return Ok(Home::Ours);
        }
        // What is there instead, or the nearest folder above that is there.
        let above = self.root.ancestors().find_map(|folder| fs::metadata(folder).ok());
        let device = found.or_else(|| platform::identity(&above?)).map(|identity| identity.device);
        Ok(if device == Some(locked.device) { Home::Missing } else { Home::Elsewhere })
    }

    fn real_path(&self, path: &Path) -> Option<PathBuf> {
        Some(self.path(path))
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        platform::read_at(&self.0, buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        platform::write_at(&self.0, data, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<bool> {
        platform::allocate(&self.0, len)
    }

    fn release(&self) -> io::Result<()> {
        // Cutting a file at its own length frees the blocks behind it and changes nothing else.
        self.0.set_len(self.0.metadata()?.len())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn forget(&self) {
        platform::forget(&self.0);
    }

    fn set_read_only(&self) -> io::Result<()> {
        let mut permissions = self.0.metadata()?.permissions();
        platform::forbid_writing(&mut permissions);
        self.0.set_permissions(permissions)
    }

    fn std_file(&self) -> Option<&File> {
        Some(&self.0)
    }
}

#[cfg(unix)]
mod platform {
    use std::fs::{DirBuilder, File, OpenOptions, Permissions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
    use std::path::Path;

    #[expect(clippy::unnecessary_wraps, reason = "other systems do not tell")]
    pub(super) fn identity(metadata: &std::fs::Metadata) -> Option<super::Identity> {
        Some(super::Identity { device: metadata.dev(), file: metadata.ino() })
    }

    pub(super) fn make_private_dirs(path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    pub(super) fn make_private_dir(path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(path)
    }

    pub(super) fn make_private(options: &mut OpenOptions) {
        options.mode(0o600);
    }

    pub(super) fn forbid_writing(permissions: &mut Permissions) {
        permissions.set_mode(0o400);
    }

    pub(super) fn make_writable(path: &Path) -> io::Result<()> {
        std::fs::set_permissions(path, Permissions::from_mode(0o600))
    }

    pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(buffer, offset)
    }

    pub(super) fn write_at(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(data, offset)
    }

    pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    pub(super) fn free(path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    #[cfg(target_os = "linux")]
    pub(super) fn sync_all(root: &Path) -> io::Result<bool> {
        rustix::fs::syncfs(File::open(root)?)?;
        Ok(true)
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn sync_all(_: &Path) -> io::Result<bool> {
        Ok(false)
    }

    #[cfg(target_os = "linux")]
    pub(super) fn allocate(file: &File, len: u64) -> io::Result<bool> {
        use rustix::io::Errno;
        match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, len) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(target_os = "linux")]
    pub(super) fn forget(file: &File) {
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn forget(_: &File) {}

    #[cfg(not(target_os = "linux"))]
    pub(super) fn allocate(_: &File, _: u64) -> io::Result<bool> {
        Ok(false)
    }
}

#[cfg(windows)]
mod platform {
    use std::fs::{File, OpenOptions, Permissions};
    use std::io;
    use std::os::windows::fs::FileExt;
    use std::path::Path;

    pub(super) fn identity(_: &std::fs::Metadata) -> Option<super::Identity> {
        None
    }

    /// The user's own folders are private by their inherited access list.
    pub(super) fn make_private_dirs(path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    /// A read-only file could neither be renamed over nor removed here.
    /// The access list of the store's folder is inherited.
    pub(super) fn make_private_dir(path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    pub(super) fn make_private(_: &mut OpenOptions) {}

    pub(super) fn forbid_writing(_: &mut Permissions) {}

    pub(super) fn make_writable(_: &Path) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.seek_read(buffer, offset)
    }

    pub(super) fn write_at(file: &File, mut data: &[u8], mut offset: u64) -> io::Result<()> {
        while !data.is_empty() {
            let written = file.seek_write(data, offset)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            data = &data[written..];
            offset += written as u64;
        }
        Ok(())
    }

    /// Folders cannot be synced; the file system's journal orders renames.
    pub(super) fn sync_dir(_: &Path) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn sync_all(_: &Path) -> io::Result<bool> {
        Ok(false)
    }

    /// Not known without foreign calls: a full disk shows when a write fails.
    pub(super) fn free(_: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    pub(super) fn allocate(_: &File, _: u64) -> io::Result<bool> {
        Ok(false)
    }
    pub(super) fn forget(_: &File) {}
}
