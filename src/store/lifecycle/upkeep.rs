//! The store's own housekeeping, on one thread: first the walk that counts what is there, then, every minute, last use into
//! file times and the limit kept. Every two seconds it looks whether the index answers, fills it where needed, and learns where blobs
//! come from once that matters.
//!
//! The store serves from the first moment; the walk only makes its numbers exact. The thread never keeps a store alive.

use crate::oci::{Algorithm, Digest, Registry, Repository};
use crate::store::error::StoreError;
use crate::store::evict::origins;
use crate::store::files::layout::{self, ALGORITHMS};
use crate::store::files::record::Record;
use crate::store::links::write::{BLOB, MANIFEST, TAG};
use crate::store::parts::Inner;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;

const TICK: Duration = Duration::from_secs(2);
const TICKS_PER_ROUND: u64 = 30;
/// What is held is added up so seldom, but for its beginning and its end.
const HELD_TICKS: u64 = 5;
/// Entries handled before asking whether the store is still there.
const SOME: usize = 256;

/// One of the store's own threads, as its owner sees it.
pub(crate) struct Background {
    /// Dropped to end the thread.
    running: mpsc::Sender<()>,
    ended: tokio::sync::oneshot::Receiver<()>,
}

/// How the thread learns that it is to end.
pub(crate) struct Told(mpsc::Receiver<()>);

impl Told {
    /// `None`: it is to end now.
    pub(crate) fn sleep(&self, time: Duration) -> Option<()> {
        matches!(self.0.recv_timeout(time), Err(mpsc::RecvTimeoutError::Timeout)).then_some(())
    }
}

impl Background {
    pub(crate) fn start(
        name: &str,
        inner: &Arc<Inner>,
        work: impl FnOnce(&Weak<Inner>, &Told) + Send + 'static,
    ) -> io::Result<Self> {
        let (running, told) = mpsc::channel();
        let (end, ended) = tokio::sync::oneshot::channel();
        let weak = Arc::downgrade(inner);
        std::thread::Builder::new().name(name.into()).spawn(move || {
            work(&weak, &Told(told));
            let _ = end.send(());
        })?;
        Ok(Self { running, ended })
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.ended.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Empty))
    }

    pub(crate) async fn stop(self) {
        drop(self.running);
        let _ = self.ended.await;
    }
}

pub(crate) fn run(weak: &Weak<Inner>, told: &Told) {
    if walk(weak).is_none() || check_suspects(weak).is_none() {
        return;
    }
    for tick in 1_u64.. {
        if told.sleep(TICK).is_none() {
            return;
        }
        let Some(inner) = alive(weak) else { return };
        inner.index.watch();
        inner.space.set_index(inner.index.bytes());
        if tick % HELD_TICKS == 0 || inner.is_held_outdated() {
            inner.show_held();
        }
        let (incomplete, learn) = (inner.index.is_incomplete(), inner.wants_origins());
        let recount = inner.recount.swap(false, Ordering::AcqRel);
        if tick % TICKS_PER_ROUND == 0 {
            if inner.pins.take_stale() {
                inner.find_pins();
            }
            inner.write_last_use();
            inner.tidy_ingests();
            inner.remove_old_ingests();
            inner.trim();
        }
        drop(inner);
        if recount && walk(weak).is_none() {
            return;
        }
        if (incomplete && rebuild(weak).is_none()) || (learn && origins::learn(weak).is_none()) {
            return;
        }
    }
}

pub(crate) fn alive(weak: &Weak<Inner>) -> Option<Arc<Inner>> {
    weak.upgrade().filter(|inner| !inner.is_closing())
}

/// Counts blobs, links and lists. `None`: the store is gone.
fn walk(weak: &Weak<Inner>) -> Option<()> {
    for algorithm in ALGORITHMS {
        let folder = layout::blobs(algorithm);
        let entries = alive(weak)?.files.disk.list(&folder).unwrap_or_default();
        for some in entries.chunks(SOME) {
            let inner = alive(weak)?;
            for digest in some.iter().filter_map(|entry| layout::digest(algorithm, &entry.name)) {
                count_blob(&inner, digest);
            }
        }
    }
    let mut folders = [layout::LISTS, layout::PIECES, layout::GIVERS, layout::REPOSITORIES].map(PathBuf::from).to_vec();
    while let Some(folder) = folders.pop() {
        let inner = alive(weak)?;
        count_links(&inner, &folder);
        remove_orphans(&inner, &folder);
        let entries = inner.files.disk.list(&folder).unwrap_or_default();
        folders.extend(entries.iter().filter(|entry| entry.is_dir).map(|entry| folder.join(&entry.name)));
    }
    let inner = alive(weak)?;
    inner.files.all_counted();
    if !inner.pins.is_ready() {
        inner.find_pins();
    }
    inner.walked.store(true, Ordering::Release);
    inner.remove_old_ingests();
    inner.trim();
    Some(())
}

/// The repository whose links lie in this folder: any of them says which.
pub(crate) fn repository_at(inner: &Inner, folder: &Path) -> Option<Repository> {
    let below = |part: &str, kind| ALGORITHMS.map(|algorithm| (folder.join(part).join(algorithm.as_str()), kind));
    let tags = [(folder.join("_tags"), TAG)];
    let places = below("_manifests", MANIFEST).into_iter().chain(below("_blobs", BLOB)).chain(tags);
    for (folder, kind) in places {
        for entry in inner.files.disk.list(&folder).unwrap_or_default() {
            let bytes = inner.files.read(&folder.join(&entry.name)).ok().flatten();
            if let Some(repository) = bytes.and_then(|bytes| repository_of(&Record::parse(kind, &bytes)?)) {
                return Some(repository);
            }
        }
    }
    None
}

fn repository_of(record: &Record) -> Option<Repository> {
    let registry = Registry::new(record.get("registry")?);
    Some(Repository { registry, name: record.get("repository")?.parse().ok()? })
}

/// Hashes what an earlier process stored without syncing it. `None`: the store is gone.
fn check_suspects(weak: &Weak<Inner>) -> Option<()> {
    if !alive(weak)?.suspect.load(Ordering::Acquire) {
        return Some(());
    }
    let mut all_sound = true;
    for (digest, entry) in alive(weak)?.catalogue.all() {
        if entry.is_suspect()
            && let Err(error) = alive(weak)?.check_blob(&digest, &entry)
        {
            all_sound = false;
            tracing::warn!(blob.digest = %digest, %error, "cannot check a blob; it is checked again at the next start");
        }
    }
    let inner = alive(weak)?;
    if all_sound {
        inner.suspect.store(false, Ordering::Release);
        if inner.files.durable() {
            inner.settle();
        }
    }
    Some(())
}

fn count_blob(inner: &Inner, digest: Digest) {
    let _guard = inner.digest_locks.lock(&digest);
    if inner.catalogue.get(&digest).is_some() {
        return;
    }
    if let Ok(metadata) = inner.files.disk.metadata(&layout::blob(&digest)) {
        inner.found(digest, metadata.len, metadata.modified);
    }
}

/// Removes checksums and names of givers without a blob: a crash came between the two.
fn remove_orphans(inner: &Inner, folder: &Path) {
    let is = |kind: &str, algorithm: Algorithm| folder == Path::new(kind).join(algorithm.as_str());
    let both = |algorithm| is(layout::PIECES, algorithm) || is(layout::GIVERS, algorithm);
    let Some(algorithm) = ALGORITHMS.into_iter().find(|algorithm| both(*algorithm)) else { return };
    let givers = is(layout::GIVERS, algorithm);
    for entry in inner.files.disk.list(folder).unwrap_or_default() {
        let Some(digest) = layout::digest(algorithm, &entry.name) else { continue };
        let _guard = inner.digest_locks.lock(&digest);
        if inner.catalogue.get(&digest).is_none() {
            if givers {
                inner.forget_givers(&digest);
            } else {
                let _ = inner.files.discard(&layout::pieces(&digest));
            }
        }
    }
}

fn count_links(inner: &Inner, folder: &Path) {
    let is = |name: &str| folder.file_name().is_some_and(|last| last == name);
    let is_below = |name: &str| folder.parent().and_then(Path::file_name).is_some_and(|last| last == name);
    let (tags, manifests) = (is("_tags"), is_below("_manifests"));
    inner.files.count_folder(folder, |name| {
        if tags {
            inner.tags.inc();
        } else if manifests {
            inner.manifests.inc();
            let digest = ALGORITHMS.iter().find(|algorithm| is(algorithm.as_str())).copied();
            let digest = digest.and_then(|algorithm| layout::digest(algorithm, name));
            if let Some(entry) = digest.and_then(|digest| inner.catalogue.get(&digest)) {
                entry.set_manifest();
            }
        }
    });
}

/// Fills the index from the links. `None`: the store is gone.
fn rebuild(weak: &Weak<Inner>) -> Option<()> {
    let mut folders = vec![PathBuf::from(layout::REPOSITORIES)];
    while let Some(folder) = folders.pop() {
        let entries = alive(weak)?.files.disk.list(&folder).unwrap_or_default();
        for entry in entries.iter().filter(|entry| entry.is_dir) {
            let path = folder.join(&entry.name);
            match entry.name.as_str() {
                "_manifests" => {
                    for algorithm in ALGORITHMS {
                        if !index_manifests(weak, &path.join(algorithm.as_str()), algorithm)? {
                            return Some(());
                        }
                    }
                }
                "_tags" | "_blobs" => {}
                _ => folders.push(path),
            }
        }
    }
    alive(weak)?.index.rebuilt();
    Some(())
}

/// `Some(false)`: the index takes nothing any more.
fn index_manifests(weak: &Weak<Inner>, folder: &Path, algorithm: Algorithm) -> Option<bool> {
    let entries = alive(weak)?.files.disk.list(folder).unwrap_or_default();
    for some in entries.chunks(SOME) {
        let inner = alive(weak)?;
        for entry in some {
            let Some(manifest) = layout::digest(algorithm, &entry.name) else { continue };
            let Ok(Some((repository, named))) = read_link(&inner, &folder.join(&entry.name), &manifest) else {
                continue;
            };
            if !inner.index.put_waiting(&repository, &named, &manifest) {
                return Some(false);
            }
        }
    }
    Some(true)
}

fn read_link(inner: &Inner, path: &Path, manifest: &Digest) -> Result<Option<(Repository, Vec<Digest>)>, StoreError> {
    let record = inner.files.read(path)?.and_then(|bytes| Record::parse(MANIFEST, &bytes));
    let Some(repository) = record.as_ref().and_then(repository_of) else { return Ok(None) };
    let named = inner.named(&repository, manifest)?;
    Ok(Some((repository, named)))
}
