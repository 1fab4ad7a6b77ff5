//! An export as a folder.

use super::output::{Export, replace};
use super::{io, source};
use crate::cli::client::Trouble;
use crate::oci::{Digest, Hasher};
use crate::store::{Disk as _, RealDisk};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

/// Writes a folder. A blob that is there at its length is not written again: it was renamed to its place when it was whole. What the
/// store has on the same file system is copied there, which costs nothing where the file system shares blocks; the rest comes as
/// an archive, which is taken apart.
pub(super) fn unpack(export: &Export<'_>, folder: &Path) -> Result<(), Trouble> {
    fs::create_dir_all(folder).map_err(io("make", folder))?;
    let mut contents = Vec::new();
    export.daemon.download(&format!("/v1/export/{}/0/contents", export.id), &mut contents)?;
    let contents = String::from_utf8_lossy(&contents);
    let contents = contents.lines().filter_map(|line| line.rsplit_once(' '));
    let contents: Vec<(&str, u64)> = contents.filter_map(|(name, size)| Some((name, size.parse().ok()?))).collect();
    let store = export.store.filter(|store| is_same_file_system(store, folder));
    let mut is_whole = true;
    for (name, size) in contents {
        let place = folder.join(name);
        let is_here = fs::metadata(&place).is_ok_and(|there| there.len() == size);
        let has = is_here || store.is_some_and(|store| is_whole && copied(&store.join(name), &place, name, size));
        if has {
            export.progress.add(size);
        }
        is_whole &= has;
    }
    if is_whole {
        let mut opening = Vec::new();
        export.daemon.download(&format!("/v1/export/{}/0/opening", export.id), &mut opening)?;
        return take_apart(&*opening, folder);
    }
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Vec<u8>>(4);
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || take_apart(Receiving { receiver, current: Vec::new(), at: 0 }, folder));
        let mut stream = export.progress.writing(Sending(sender));
        let sent = export.daemon.download(&format!("/v1/export/{}/0?from=0", export.id), &mut stream);
        drop(stream);
        let written = writer.join().unwrap_or_else(|_| Err(Trouble::failed("the writing thread failed".to_owned())));
        written.and(sent)
    })
}

#[cfg(unix)]
fn is_same_file_system(store: &Path, folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    device(store).is_some_and(|store| device(folder) == Some(store))
}

#[cfg(not(unix))]
fn is_same_file_system(_: &Path, _: &Path) -> bool {
    false
}

/// Copies a stored blob, if it may be read and has its digest: the copy is checked, so no damage leaves the store. On Linux this is
/// `copy_file_range`, which shares blocks where the file system can.
fn copied(from: &Path, place: &Path, name: &str, size: u64) -> bool {
    let Some(digest) = source::blob(name).and_then(|digest| digest.parse::<Digest>().ok()) else { return false };
    let partial = place.with_extension("partial");
    let copy = || -> std::io::Result<bool> {
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(from, &partial)?;
        let mut file = File::open(&partial)?;
        if file.metadata()?.len() != size || !copy_checked(&mut file, &mut std::io::sink(), &digest)? {
            return Ok(false);
        }
        writable(&file)?;
        fs::rename(&partial, place).map(|()| true)
    };
    let copied = copy().unwrap_or(false);
    if !copied {
        let _ = fs::remove_file(&partial);
    }
    copied
}

/// Copies to the end; whether it had its digest.
fn copy_checked(from: &mut impl Read, to: &mut impl Write, digest: &Digest) -> std::io::Result<bool> {
    let (mut hasher, mut buffer) = (Hasher::new(digest.algorithm()), vec![0; 256 << 10]);
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hasher.finish() == *digest),
            read => {
                hasher.update(&buffer[..read]);
                to.write_all(&buffer[..read])?;
            }
        }
    }
}

/// What the store keeps is for its own user to read; what an operator has exported is an ordinary file.
#[cfg(unix)]
fn writable(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn writable(_: &File) -> std::io::Result<()> {
    Ok(())
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
        let digest = name.to_str().and_then(source::blob).and_then(|digest| digest.parse::<Digest>().ok());
        if let Some(digest) = digest {
            if !copy_checked(&mut entry, &mut file, &digest).map_err(io("write", &partial))? {
                let _ = fs::remove_file(&partial);
                let text =
                    format!("{digest} is damaged in the store: larder verify --repair, pull it, and export again");
                return Err(Trouble::failed(text));
            }
        } else {
            std::io::copy(&mut entry, &mut file).map_err(io("write", &partial))?;
        }
        fs::rename(&partial, &path).map_err(io("rename to its place", &path))?;
    }
    let (path, bytes) = last.ok_or_else(|| Trouble::failed("the daemon's archive has no index".to_owned()))?;
    // A disk may be pulled out as soon as the command is done.
    let disk = RealDisk::new(folder);
    disk.sync_all().map_err(io("sync", folder))?;
    replace(&path, &bytes)?;
    disk.sync_all().map(drop).map_err(io("sync", folder))
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
