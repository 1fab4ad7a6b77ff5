//! Where an export goes. Whatever is interrupted is continued by the same command: an archive has a `.partial` file whose beginning
//! must be that of the plan's archive, a folder has the files that are whole.

use super::{folder, io};
use crate::cli::client::{Daemon, Trouble};
use crate::cli::progress::Progress;
use crate::store::{Disk as _, RealDisk};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write};
use std::path::{Path, PathBuf};

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
pub(super) fn write(
    daemon: &Daemon,
    store: Option<&Path>,
    id: u64,
    plan: &Value,
    output: &Output,
) -> Result<(), Trouble> {
    let lengths: Vec<u64> = plan["volumes"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let progress = Progress::of(lengths.iter().sum());
    let export = Export { daemon, store, id, progress };
    match output {
        Output::Stdout => {
            let mut writer = export.progress.writing(std::io::stdout().lock());
            daemon.download(&format!("/v1/export/{id}/0?from=0"), &mut writer)
        }
        Output::Folder(folder) => folder::unpack(&export, folder),
        Output::File(path) => export.archive(0, path, lengths.first().copied().unwrap_or_default()).map(drop),
        Output::Volumes(path) => export.volumes(path, &lengths),
    }
}

/// An export that the daemon has planned.
pub(super) struct Export<'a> {
    pub(super) daemon: &'a Daemon,
    /// The store's folder, as this machine's configuration has it.
    pub(super) store: Option<&'a Path>,
    pub(super) id: u64,
    pub(super) progress: Progress,
}

impl Export<'_> {
    /// Writes all volumes and their hashes. Those that an interrupted export has written whole are kept.
    fn volumes(&self, path: &Path, lengths: &[u64]) -> Result<(), Trouble> {
        let (sums, partial) = (path.with_file_name("SHA256SUMS"), path.with_file_name("SHA256SUMS.partial"));
        let done = fs::read_to_string(&partial).unwrap_or_default();
        let mut lines = String::new();
        for (number, length) in lengths.iter().enumerate() {
            let volume = volume_of(path, number + 1);
            let name = volume.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let known = done.lines().find_map(|line| line.strip_suffix(&name)?.strip_suffix("  "));
            let hash = match known {
                Some(hash) if self.is_written(number, &volume, *length, hash)? => {
                    self.progress.add(*length);
                    hash.to_owned()
                }
                _ => self.archive(number, &volume, *length)?,
            };
            let _ = writeln!(lines, "{hash}  {name}");
            replace(&partial, lines.as_bytes())?;
        }
        // Volumes of an earlier, longer export would be taken for this one's.
        let earlier = fs::read_to_string(&sums).unwrap_or_default();
        for stale in (lengths.len() + 1..).map(|number| volume_of(path, number)) {
            let name = stale.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !earlier.lines().any(|line| line.ends_with(&format!("  {name}"))) {
                break;
            }
            let _ = fs::remove_file(&stale);
        }
        fs::rename(&partial, &sums).map_err(io("rename to its place", &sums))
    }

    /// Whether a volume is there already: of this export, and as it was written.
    fn is_written(&self, number: usize, path: &Path, length: u64, hash: &str) -> Result<bool, Trouble> {
        let Ok(mut file) = File::open(path) else { return Ok(false) };
        if file.metadata().is_ok_and(|metadata| metadata.len() != length) || !self.is_ours(number, &mut file)? {
            return Ok(false);
        }
        let mut hasher = Sha256::new();
        let read = file.rewind().and_then(|()| hash_from(&mut file, &mut hasher));
        Ok(read.is_ok() && hex(&hasher.finalize()) == hash)
    }

    /// Whether a file begins as this archive does: nothing else tells one export from another.
    fn is_ours(&self, number: usize, file: &mut File) -> Result<bool, Trouble> {
        let mut opening = Vec::new();
        self.daemon.download(&format!("/v1/export/{}/{number}/opening", self.id), &mut opening)?;
        let mut bytes = vec![0; opening.len()];
        Ok(file.rewind().and_then(|()| file.read_exact(&mut bytes)).is_ok() && bytes == opening)
    }

    /// Writes one archive, or what is missing of it; its SHA-256.
    fn archive(&self, number: usize, path: &Path, length: u64) -> Result<String, Trouble> {
        let partial = path.with_extension("tar.partial");
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&partial);
        let file =
            file.as_mut().map_err(|error| Trouble::failed(format!("cannot write '{}': {error}", partial.display())))?;
        let has = file.metadata().map_err(io("read", &partial))?.len();
        let is_ours = has > 0 && has <= length && self.is_ours(number, file)?;
        let has = if is_ours { has.saturating_sub(OVERLAP) } else { 0 };
        file.set_len(has).and_then(|()| file.rewind()).map_err(io("write", &partial))?;
        let mut hasher = Sha256::new();
        hash_from(file, &mut hasher).map_err(io("read", &partial))?;
        self.progress.add(has);
        let mut writer = Hashing { file, hasher };
        let from = format!("/v1/export/{}/{number}?from={has}", self.id);
        self.daemon.download(&from, &mut self.progress.writing(&mut writer))?;
        let hash = hex(&writer.hasher.finalize());
        file.sync_all().map_err(io("sync", &partial))?;
        fs::rename(&partial, path).map_err(io("rename to its place", path))?;
        Ok(hash)
    }
}

/// `NAME.001.tar`
fn volume_of(path: &Path, number: usize) -> PathBuf {
    path.with_extension(format!("{number:03}.tar"))
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

pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), Trouble> {
    let partial = path.with_extension("partial");
    fs::write(&partial, content).map_err(io("write", &partial))?;
    fs::rename(&partial, path).map_err(io("rename to its place", path))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
