//! A real disk whose writes to ingests can be made slow or fail.

use larder::store::RealDisk;
use larder::store::disk::{Access, Disk, DiskFile, Entry, Lock, LockError, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Called before each write to an ingest, with the offset of its first byte.
pub type BeforeWrite = Arc<dyn Fn(u64) -> io::Result<()> + Send + Sync>;

pub struct TroubledDisk {
    disk: RealDisk,
    before_write: BeforeWrite,
}

impl TroubledDisk {
    pub fn new(root: &Path, before_write: BeforeWrite) -> Self {
        Self { disk: RealDisk::new(root), before_write }
    }
}

impl Disk for TroubledDisk {
    fn prepare(&self) -> io::Result<()> {
        self.disk.prepare()
    }
    fn lock(&self, path: &Path) -> Result<Lock, LockError> {
        self.disk.lock(path)
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let file = self.disk.open(path, access)?;
        if !path.starts_with("ingest/sha256") {
            return Ok(file);
        }
        Ok(Box::new(TroubledFile { file, before_write: Arc::clone(&self.before_write) }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_tree(path)
    }
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.make_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.disk.list(path)
    }
    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.disk.metadata(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn sync_all(&self) -> io::Result<bool> {
        self.disk.sync_all()
    }
    fn touch(&self, path: &Path, time: SystemTime) -> io::Result<()> {
        self.disk.touch(path, time)
    }
    fn free(&self) -> io::Result<u64> {
        self.disk.free()
    }
    fn real_path(&self, path: &Path) -> Option<PathBuf> {
        self.disk.real_path(path)
    }
}

struct TroubledFile {
    file: Box<dyn DiskFile>,
    before_write: BeforeWrite,
}

impl DiskFile for TroubledFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        (self.before_write)(offset)?;
        self.file.write_at(data, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn allocate(&self, len: u64) -> io::Result<bool> {
        self.file.allocate(len)
    }
    fn release(&self) -> io::Result<()> {
        self.file.release()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn forget(&self) {
        self.file.forget();
    }
    fn set_read_only(&self) -> io::Result<()> {
        self.file.set_read_only()
    }
    fn std_file(&self) -> Option<&std::fs::File> {
        self.file.std_file()
    }
}
