//! A disk in memory that knows what was synced, for tests: [`SimDisk::crash`] is the disk after the power went.
//!
//! Every unsynced write, length, creation, rename and removal may then be there, be missing, be there in part, or be there
//! while earlier ones are not, as a seed decides. Synced content and synced folders are as they were. A killed process, in
//! contrast, loses nothing of what it had written: [`SimDisk::kill`].

use super::{Access, Disk, DiskFile, Entry, Home, Lock, LockError, Metadata};
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The simulated disk. A clone is the same disk.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Clone, Default)]
struct State {
    names: BTreeMap<PathBuf, Node>,
    /// Names as they are certain to be after a crash.
    durable: BTreeMap<PathBuf, Node>,
    /// Changes of names since, in their order.
    unsynced: Vec<(PathBuf, Option<Node>)>,
    files: Vec<FileState>,
    steps: u64,
    stop_at: Option<u64>,
    fault: Option<Fault>,
    quota: Option<u64>,
    stuck: bool,
    patience: Option<Duration>,
    removal: Duration,
}

/// How a simulated disk answers every change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No space: what was there can still be renamed and removed.
    Full,
    /// No quota; the same.
    Quota,
    /// The file system was remounted to be read only.
    ReadOnly,
    /// The file system was unmounted: open files can be read, nothing can be opened.
    Unmounted,
    /// Every operation fails.
    Broken,
}

#[derive(Clone, Copy, PartialEq)]
enum Node {
    Folder,
    File(usize),
}

#[derive(Clone, Default)]
struct FileState {
    content: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
    modified: u64,
    unreadable: bool,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes and syncs so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.0.lock().steps
    }

    /// The change or sync with this number, and everything after it, fails and does nothing.
    pub fn stop_at(&self, step: u64) {
        self.0.lock().stop_at = Some(step);
    }

    /// What is wrong with the disk from now on.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.0.lock().fault = fault;
    }

    /// How many bytes all files may have together. What is free does not tell.
    pub fn set_quota(&self, bytes: u64) {
        self.0.lock().quota = Some(bytes);
    }

    /// How long an operation may take.
    pub fn set_patience(&self, patience: Duration) {
        self.0.lock().patience = Some(patience);
    }

    /// How long the removal of one file takes.
    pub fn set_removal(&self, time: Duration) {
        self.0.lock().removal = time;
    }

    /// Whether writes, and whatever else changes something, do not return.
    pub fn set_stuck(&self, stuck: bool) {
        self.0.lock().stuck = stuck;
    }

    /// The disk that the next process finds after this one was killed.
    #[must_use]
    pub fn kill(&self) -> Self {
        let state = self.0.lock().clone();
        Self(Arc::new(Mutex::new(State { steps: 0, stop_at: None, fault: None, stuck: false, ..state })))
    }

    /// The disk after the machine has crashed now.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let state = self.0.lock();
        let mut dice = Dice(seed.wrapping_mul(2).wrapping_add(1));
        let files: Vec<FileState> = state.files.iter().map(|file| file.crashed(&mut dice)).collect();
        let mut names = state.durable.clone();
        for (path, node) in &state.unsynced {
            if dice.coin() {
                match node {
                    Some(node) => names.insert(path.clone(), *node),
                    None => names.remove(path),
                };
            }
        }
        // What lies in a folder that was lost is lost, too.
        let all = names.clone();
        names.retain(|path, _| path.ancestors().skip(1).all(|above| is_root(above) || all.contains_key(above)));
        let durable = names.clone();
        Self(Arc::new(Mutex::new(State { names, durable, files, ..State::default() })))
    }

    /// The content of every file below `folder`.
    #[must_use]
    pub fn files_below(&self, folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.0.lock();
        let below = state.names.iter().filter(|(path, _)| path.starts_with(folder));
        below
            .filter_map(|(path, node)| match node {
                Node::File(file) => Some((path.clone(), state.files[*file].content.clone())),
                Node::Folder => None,
            })
            .collect()
    }

    /// Alters a file behind the store's back.
    pub fn damage(&self, path: &Path, content: &[u8]) {
        let mut state = self.0.lock();
        if let Some(Node::File(file)) = state.names.get(path).copied() {
            state.files[file] =
                FileState { content: content.to_vec(), durable: content.to_vec(), ..FileState::default() };
        }
    }

    /// Makes every read of a file fail, as a broken sector does.
    pub fn set_unreadable(&self, path: &Path) {
        let mut state = self.0.lock();
        if let Some(Node::File(file)) = state.names.get(path).copied() {
            state.files[file].unreadable = true;
        }
    }

    /// For a change or a sync: waits as long as the disk does not answer.
    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        loop {
            let mut state = self.0.lock();
            if !state.stuck {
                state.step()?;
                return Ok(state);
            }
            drop(state);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// For a look at names.
    fn look(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.0.lock();
        match state.fault {
            Some(Fault::Unmounted) => Err(missing()),
            Some(Fault::Broken) => Err(io::Error::from_raw_os_error(5)),
            _ => Ok(state),
        }
    }
}

fn is_root(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        if self.stop_at.is_some_and(|stop| self.steps >= stop) {
            return Err(io::Error::other("the machine has stopped"));
        }
        self.steps += 1;
        match self.fault {
            Some(Fault::ReadOnly) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Some(Fault::Unmounted) => Err(missing()),
            Some(Fault::Broken) => Err(io::Error::from_raw_os_error(5)),
            None | Some(Fault::Full | Fault::Quota) => Ok(()),
        }
    }

    fn set(&mut self, path: &Path, node: Option<Node>) {
        match node {
            Some(node) => self.names.insert(path.to_owned(), node),
            None => self.names.remove(path),
        };
        self.unsynced.push((path.to_owned(), node));
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.names.get(path) {
            Some(Node::File(file)) => Ok(*file),
            _ => Err(missing()),
        }
    }

    /// Whether a file may become so long.
    fn charge(&self, file: usize, len: u64) -> io::Result<()> {
        let Some(quota) = self.quota else { return Ok(()) };
        let files = self.names.values().filter_map(|node| match node {
            Node::File(file) => Some(self.files[*file].content.len() as u64),
            Node::Folder => None,
        });
        let growth = len.saturating_sub(self.files[file].content.len() as u64);
        if growth > 0 && files.sum::<u64>() + growth > quota {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(())
    }

    fn need_folder(&self, path: &Path) -> io::Result<()> {
        if is_root(path) || self.names.get(path) == Some(&Node::Folder) { Ok(()) } else { Err(missing()) }
    }
}

impl FileState {
    /// Each unsynced write is there, missing, or there in part; the length is that of what is there, or less.
    fn crashed(&self, dice: &mut Dice) -> Self {
        let mut content = self.durable.clone();
        for (offset, data) in &self.unsynced {
            let kept = match dice.below(4) {
                0 => 0,
                1 => dice.below(data.len() + 1),
                _ => data.len(),
            };
            if kept > 0 {
                put(&mut content, *offset, &data[..kept]);
            }
        }
        if content.len() > self.durable.len() && dice.below(4) == 0 {
            let lost = dice.below(content.len() - self.durable.len() + 1);
            content.truncate(content.len() - lost);
        }
        Self { durable: content.clone(), content, unsynced: Vec::new(), ..*self }
    }
}

fn put(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}

impl Disk for SimDisk {
    fn prepare(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _: &Path) -> Result<Lock, LockError> {
        Ok(Box::new(()))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let creates = access == Access::CreateNew;
        let mut state = if creates { self.change()? } else { self.look()? };
        if creates {
            state.need_folder(super::parent(path))?;
            if state.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let file = state.files.len();
            // As on a real disk: a file without a time would count as one that was not used for long.
            state.files.push(FileState { modified: millis(SystemTime::now()), ..FileState::default() });
            state.set(path, Some(Node::File(file)));
        }
        let file = state.file(path)?;
        Ok(Box::new(SimFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        state.need_folder(super::parent(to))?;
        let file = state.file(from)?;
        state.set(to, Some(Node::File(file)));
        state.set(from, None);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let time = self.0.lock().removal;
        std::thread::sleep(time);
        let mut state = self.change()?;
        state.file(path)?;
        state.set(path, None);
        Ok(())
    }

    fn remove_tree(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        if self.look()?.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut state = self.change()?;
        state.need_folder(super::parent(path))?;
        state.set(path, Some(Node::Folder));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let state = self.look()?;
        state.need_folder(path)?;
        let within = state.names.iter().filter(|(other, _)| other.parent() == Some(path));
        Ok(within
            .filter_map(|(other, node)| {
                let name = other.file_name()?.to_str()?.to_owned();
                Some(Entry { name, is_dir: *node == Node::Folder })
            })
            .collect())
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let state = self.look()?;
        let file = &state.files[state.file(path)?];
        let modified = UNIX_EPOCH + Duration::from_millis(file.modified);
        Ok(Metadata { len: file.content.len() as u64, modified })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        state.need_folder(path)?;
        let (synced, rest) =
            std::mem::take(&mut state.unsynced).into_iter().partition(|(other, _)| super::parent(other) == path);
        state.unsynced = rest;
        for (other, node) in synced {
            match node {
                Some(node) => state.durable.insert(other, node),
                None => state.durable.remove(&other),
            };
        }
        Ok(())
    }

    fn sync_all(&self) -> io::Result<bool> {
        let mut state = self.change()?;
        state.unsynced.clear();
        state.durable = state.names.clone();
        for file in &mut state.files {
            file.durable.clone_from(&file.content);
            file.unsynced.clear();
        }
        Ok(true)
    }

    fn touch(&self, path: &Path, time: SystemTime) -> io::Result<()> {
        while self.0.lock().stuck {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut state = self.look()?;
        let file = state.file(path)?;
        state.files[file].modified = millis(time);
        Ok(())
    }

    fn home(&self) -> io::Result<Home> {
        Ok(if self.0.lock().fault == Some(Fault::Unmounted) { Home::Elsewhere } else { Home::Ours })
    }

    fn patience(&self) -> Duration {
        self.0.lock().patience.unwrap_or(Duration::from_secs(10))
    }

    fn free(&self) -> io::Result<u64> {
        Ok(1 << 40)
    }

    fn real_path(&self, _: &Path) -> Option<PathBuf> {
        None
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.0.lock();
        let FileState { content, unreadable, .. } = &state.files[self.file];
        if *unreadable || state.fault == Some(Fault::Broken) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let read = buffer.len().min(content.len() - start);
        buffer[..read].copy_from_slice(&content[start..start + read]);
        Ok(read)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.change()?;
        match state.fault {
            Some(Fault::Full) => return Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::Quota) => return Err(io::ErrorKind::QuotaExceeded.into()),
            _ => {}
        }
        state.charge(self.file, offset + data.len() as u64)?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let file = &mut state.files[self.file];
        put(&mut file.content, offset, data);
        file.unsynced.push((offset, data.to_vec()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.change()?;
        let file = &mut state.files[self.file];
        file.durable = file.content.clone();
        file.unsynced.clear();
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<bool> {
        self.disk.0.lock().charge(self.file, len)?;
        Ok(true)
    }

    fn release(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().files[self.file].content.len() as u64)
    }

    fn forget(&self) {}

    fn set_read_only(&self) -> io::Result<()> {
        Ok(())
    }

    fn std_file(&self) -> Option<&std::fs::File> {
        None
    }
}

/// A small generator of numbers that only have to differ.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).unwrap_or_default()
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 0
    }
}
