//! Where an export goes. Whatever is interrupted is continued by the same command: an archive has a `.partial` file whose index
//! must be that of the plan, a folder has the files that are whole.

use super::io;
use crate::cli::client::{Daemon, Trouble};
use crate::store::{Disk as _, RealDisk};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Where `index.json` begins in every first volume: behind the headers of `oci-layout` and of itself.
const INDEX_AT: u64 = 3 * 512;
/// The last bytes of a partial archive that are compared before it is continued.
const OVERLAP: u64 = 1 << 20;

/// What `--output` names.
#[derive(Debug)]
pub(super) enum Output {
    Stdout,
    /// One tar.
    File(PathBuf),
    /// `NAME.001.tar` and so on, beside `SHA256SUMS`.
    Volumes(PathBuf),
    Folder(PathBuf),
}

impl Output {
    pub(super) fn of(path: &Path, split: bool) -> Result<Self, Trouble> {
        let is_tar = path.extension().is_some_and(|extension| extension == "tar");
        match (path.to_str() == Some("-"), is_tar, split) {
            (true, _, false) => Ok(Self::Stdout),
            (false, true, false) => Ok(Self::File(path.to_owned())),
            (false, true, true) => Ok(Self::Volumes(path.to_owned())),
            (false, false, false) => Ok(Self::Folder(path.to_owned())),
            (_, _, true) => {
                Err(Trouble::usage("--split needs an --output that ends in .tar, such as kit.tar".to_owned()))
            }
        }
    }

    /// Free bytes where it goes.
    pub(super) fn free(&self) -> Option<u64> {
        let path = match self {
            Self::Stdout => return None,
            Self::File(path) | Self::Volumes(path) | Self::Folder(path) => path,
        };
        let there = path.ancestors().find(|path| path.exists() || path.as_os_str().is_empty())?;
        let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
        RealDisk::new(there).free().ok()
    }
}

/// Writes every volume of the plan.
pub(super) fn write(daemon: &Daemon, id: u64, plan: &Value, output: &Output) -> Result<(), Trouble> {
    let lengths: Vec<u64> = plan["volumes"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let index = plan["index"].as_str().unwrap_or_default().as_bytes();
    match output {
        Output::Stdout => daemon.download(&format!("/v1/export/{id}/0?from=0"), &mut std::io::stdout().lock()),
        Output::Folder(folder) => unpack(daemon, id, folder),
        Output::File(path) => {
            archive(daemon, &format!("/v1/export/{id}/0"), path, lengths.first().copied(), Some(index)).map(drop)
        }
        Output::Volumes(path) => {
            let mut sums = String::new();
            for (number, length) in lengths.iter().enumerate() {
                let volume = path.with_extension(format!("{:03}.tar", number + 1));
                let index = (number == 0).then_some(index);
                let hash = archive(daemon, &format!("/v1/export/{id}/{number}"), &volume, Some(*length), index)?;
                let name = volume.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let _ = writeln!(sums, "{hash}  {name}");
            }
            let place = path.with_file_name("SHA256SUMS");
            replace(&place, sums.as_bytes())
        }
    }
}

/// Writes one archive, or what is missing of it; its SHA-256.
fn archive(
    daemon: &Daemon,
    from: &str,
    path: &Path,
    length: Option<u64>,
    index: Option<&[u8]>,
) -> Result<String, Trouble> {
    let partial = path.with_extension("tar.partial");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&partial);
    let file =
        file.as_mut().map_err(|error| Trouble::failed(format!("cannot write '{}': {error}", partial.display())))?;
    let has = file.metadata().map_err(io("read", &partial))?.len();
    let is_ours = index.is_none_or(|index| begins_with(file, index)) && length.is_some_and(|length| has <= length);
    let has = if is_ours { has.saturating_sub(OVERLAP) } else { 0 };
    file.set_len(has).and_then(|()| file.rewind()).map_err(io("write", &partial))?;
    let mut hasher = Sha256::new();
    hash_from(file, &mut hasher).map_err(io("read", &partial))?;
    let mut writer = Hashing { file, hasher };
    daemon.download(&format!("{from}?from={has}"), &mut writer)?;
    let hash = hex(&writer.hasher.finalize());
    file.sync_all().map_err(io("sync", &partial))?;
    fs::rename(&partial, path).map_err(io("rename to its place", path))?;
    Ok(hash)
}

fn begins_with(file: &mut File, index: &[u8]) -> bool {
    let mut bytes = vec![0; index.len()];
    file.seek(SeekFrom::Start(INDEX_AT)).and_then(|_| file.read_exact(&mut bytes)).is_ok() && bytes == index
}

fn hash_from(file: &mut File, hasher: &mut Sha256) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

struct Hashing<'a> {
    file: &'a mut File,
    hasher: Sha256,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Writes a folder: the archive is taken apart as it comes. A blob that is there at its length is not written again: it was
/// renamed to its place when it was whole.
fn unpack(daemon: &Daemon, id: u64, folder: &Path) -> Result<(), Trouble> {
    fs::create_dir_all(folder).map_err(io("make", folder))?;
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Vec<u8>>(4);
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || take_apart(Receiving { receiver, current: Vec::new(), at: 0 }, folder));
        let sent = daemon.download(&format!("/v1/export/{id}/0?from=0"), &mut Sending(sender));
        let written = writer.join().unwrap_or_else(|_| Err(Trouble::failed("the writing thread failed".to_owned())));
        written.and(sent)
    })
}

fn take_apart(stream: impl Read, folder: &Path) -> Result<(), Trouble> {
    let mut archive = tar::Archive::new(stream);
    let torn = |error| Trouble::failed(format!("the daemon's archive cannot be read: {error}"));
    let mut last = None;
    for entry in archive.entries().map_err(torn)? {
        let mut entry = entry.map_err(torn)?;
        let name = entry.path().map_err(torn)?.into_owned();
        let path = folder.join(&name);
        // The index names what must be there: it comes last.
        if name == Path::new("index.json") {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(torn)?;
            last = Some((path, bytes));
            continue;
        }
        let is_blob = name.starts_with("blobs");
        if is_blob && fs::metadata(&path).is_ok_and(|there| there.len() == entry.size()) {
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io("make", parent))?;
        }
        let partial = path.with_extension("partial");
        let mut file = File::create(&partial).map_err(io("write", &partial))?;
        std::io::copy(&mut entry, &mut file).map_err(io("write", &partial))?;
        fs::rename(&partial, &path).map_err(io("rename to its place", &path))?;
    }
    match last {
        Some((path, bytes)) => replace(&path, &bytes),
        None => Err(Trouble::failed("the daemon's archive has no index".to_owned())),
    }
}

fn replace(path: &Path, content: &[u8]) -> Result<(), Trouble> {
    let partial = path.with_extension("partial");
    fs::write(&partial, content).map_err(io("write", &partial))?;
    fs::rename(&partial, path).map_err(io("rename to its place", path))
}

struct Sending(std::sync::mpsc::SyncSender<Vec<u8>>);

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| std::io::Error::other("the folder could not be written"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Receiving {
    receiver: std::sync::mpsc::Receiver<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl Read for Receiving {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.current.len() {
            let Ok(next) = self.receiver.recv() else { return Ok(0) };
            (self.current, self.at) = (next, 0);
        }
        let read = buffer.len().min(self.current.len() - self.at);
        buffer[..read].copy_from_slice(&self.current[self.at..self.at + read]);
        self.at += read;
        Ok(read)
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
