//! What hits write: nothing may be changed in the store, and nothing written to the disk but the log.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use rustix::io::Errno;

use super::Result;
use super::client::load;
use super::content::Artifact;
use super::origin::Origin;
use super::peers::{Cores, LARDER, larder};
use super::report::Figure;

const HITS: usize = 16_384;
const PAGE: u64 = 4_096;

#[expect(clippy::cast_precision_loss, reason = "thousands")]
pub(super) fn measure(rounds: usize) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let origin = Origin::start(0)?;
    let artifact = Artifact::fresh("bench/writes", &[64 << 10]);
    origin.add(&artifact);
    let server = larder(folder.path(), origin.port, Cores::First)?;
    let paths = [artifact.manifest_path(), artifact.blob_path(&artifact.blobs[1])];
    for path in &paths {
        load(server.port, path, 1, 1)?;
    }

    let mut changes = Figure::new("changes in the store", "per 1000 hits").at_most(LARDER, 0.5);
    let mut bytes = Figure::new("bytes written but the log's", "per hit").at_most(LARDER, 4.0);
    for _ in 0..rounds {
        let watch = Watch::on(&folder.path().join(LARDER))?;
        let (written, log) = (server.written()?, fs::metadata(&server.log)?.len());
        for path in &paths {
            load(server.port, path, 4, HITS / paths.len())?;
        }
        // The log is buffered: what these hits say has to be on its file before it can be taken off.
        std::thread::sleep(std::time::Duration::from_secs(1));
        let logged = fs::metadata(&server.log)?.len() - log;
        // A page counts whole, and again when it is filled on after it has gone to the disk.
        let of_log = (logged.div_ceil(PAGE) + 16) * PAGE;
        bytes.add(LARDER, (server.written()? - written).saturating_sub(of_log) as f64 / HITS as f64);
        changes.add(LARDER, watch.changes()? as f64 * 1e3 / HITS as f64);
    }
    Ok(vec![changes, bytes])
}

/// Counts what happens to a folder and everything below it.
struct Watch(OwnedFd);

impl Watch {
    fn on(folder: &Path) -> Result<Self> {
        let watch = Self(init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?);
        let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
        let what = WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE;
        while let Some(folder) = folders.pop() {
            add_watch(&watch.0, &folder, what)?;
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        Ok(watch)
    }

    fn changes(&self) -> Result<usize> {
        let mut buffer = [MaybeUninit::uninit(); 4 << 10];
        let mut reader = Reader::new(&self.0, &mut buffer);
        let mut count = 0;
        loop {
            match reader.next() {
                Ok(_) => count += 1,
                Err(Errno::WOULDBLOCK) => return Ok(count),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
