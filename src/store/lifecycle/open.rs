//! Opening a store: folder, lock, version, limit, what earlier processes left; then the threads.
//!
//! Everything here is short whatever the store holds. The walk over its content comes after, in the background.

use crate::config::{Durability, StoreSettings};
use crate::store::account::Space;
use crate::store::blobs::givers::{self, Giving};
use crate::store::blobs::shelf::DigestLocks;
use crate::store::blobs::table::Catalogue;
use crate::store::disk::{Disk, Lock, LockError};
use crate::store::error::{OpenError, StoreError};
use crate::store::evict::holds::Holds;
use crate::store::evict::origins::Origins;
use crate::store::evict::pins::Pins;
use crate::store::files::layout::{self, ALGORITHMS, Part};
use crate::store::files::record::Record;
use crate::store::files::small::{Files, read};
use crate::store::index::Index;
use crate::store::jobs::health::Health;
use crate::store::jobs::workers::Workers;
use crate::store::lifecycle::upkeep::Background;
use crate::store::links::membership::Members;
use crate::store::parts::Inner;
use crate::store::receive::partials::Partials;
use crate::telemetry::Metrics;
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const VERSION: &[u8] = b"1\n";
const LARGEST_DEFAULT: u64 = 100 << 30;
const GENERAL_THREADS: usize = 4;
const WRITER_THREADS: usize = 4;
const SMALL_THREADS: usize = 2;
const QUEUE: usize = 1024;

pub(crate) fn open(
    settings: &StoreSettings,
    disk: &Arc<dyn Disk>,
    metrics: &Arc<Metrics>,
) -> Result<Arc<Inner>, OpenError> {
    let at = Opening { path: settings.path.clone() };
    disk.prepare().map_err(|source| at.io("make the folder of", source))?;
    let lock = at.lock(&**disk)?;
    let kind = |kind: &str| metrics.store_objects.with_label_values(&[kind]);
    let bytes = metrics.store_bytes.with_label_values(&[] as &[&str]);
    // These few files are synced whatever the setting, since nothing works without them, and they are not counted:
    // they are needed to find out the limit, and whether this is a store at all.
    let first = Files::new(Arc::clone(disk), Durability::Commit, Arc::new(Space::new(u64::MAX, 0, bytes.clone())));
    at.check_version(&**disk)?;
    at.furnish(&**disk, &first)?;
    let suspect = at.mark_unsynced(settings.sync, &first)?;
    let limit = at.limit(settings, &first)?;
    metrics.store_limit_bytes.with_label_values(&[] as &[&str]).set(i64::try_from(limit).unwrap_or(i64::MAX));
    let space = Arc::new(Space::new(limit, settings.min_free, bytes));
    let partials = Partials::new(kind("ingest"));
    Opening::count_ingests(&**disk, &space, &partials);
    Opening::count_quarantine(&**disk, &space, metrics);
    let workers = |name, threads, patience| {
        Workers::start(name, threads, QUEUE, patience).map_err(|e| at.io("start the threads of", e))
    };
    let patience = disk.patience();
    let general = workers("larder-disk", GENERAL_THREADS, patience)?;
    let writers = workers("larder-ingest", WRITER_THREADS, patience)?;
    let small = workers("larder-links", SMALL_THREADS, patience)?;
    let prober = workers("larder-probe", 1, patience)?;
    let walker = workers("larder-walker", 1, Duration::MAX)?;
    let files = Files::new(Arc::clone(disk), settings.sync, Arc::clone(&space));
    let pins = Pins::open(&settings.pin, &files);
    let giving = Giving::open(&files);
    let inner = Arc::new_cyclic(|me| Inner {
        me: me.clone(),
        settings: settings.clone(),
        files,
        space,
        catalogue: Catalogue::new(kind("blob")),
        digest_locks: DigestLocks::new(),
        partials,
        members: Members::default(),
        pins,
        origins: Origins::default(),
        giving,
        index: Index::start(disk, metrics, limit),
        tags: kind("tag"),
        manifests: kind("manifest"),
        metrics: Arc::clone(metrics),
        general,
        writers,
        small,
        prober,
        walker,
        holds: Holds::default(),
        evicting: Mutex::new(()),
        futile: Mutex::default(),
        walked: AtomicBool::new(false),
        suspect: AtomicBool::new(suspect),
        health: Health::new(Arc::clone(metrics)),
        recount: AtomicBool::new(false),
        closing: AtomicBool::new(false),
        lock: Mutex::new(Some(lock)),
        background: Mutex::default(),
        inspection: Mutex::default(),
    });
    let rate = settings.scrub_rate;
    let threads = [
        Background::start("larder-watch", &inner, crate::store::jobs::health::run),
        Background::start("larder-upkeep", &inner, crate::store::lifecycle::upkeep::run),
        Background::start("larder-scrub", &inner, move |weak, told| {
            crate::store::integrity::scrub::run(weak, told, rate)
        }),
    ];
    for thread in threads {
        let thread = thread.map_err(|error| at.io("start the threads of", error))?;
        inner.background.lock().push(thread);
    }
    Ok(inner)
}

impl Inner {
    /// Takes possession of what is now where the store's folder was: nothing at all, or another store.
    pub(crate) fn move_in(&self) -> Result<(), OpenError> {
        let at = Opening { path: self.settings.path.clone() };
        let disk = &self.files.disk;
        disk.prepare().map_err(|source| at.io("make the folder of", source))?;
        at.check_version(&**disk)?;
        let held = at.lock(&**disk)?;
        *self.lock.lock() = Some(held);
        let uncounted = self.metrics.store_bytes.with_label_values(&[] as &[&str]);
        let first = Files::new(Arc::clone(disk), Durability::Commit, Arc::new(Space::new(u64::MAX, 0, uncounted)));
        at.furnish(&**disk, &first)?;
        if at.mark_unsynced(self.settings.sync, &first)? {
            self.suspect.store(true, Ordering::Release);
        }
        self.walked.store(false, Ordering::Release);
        self.files.count_again();
        self.catalogue.clear();
        self.giving.look_again(&self.files);
        self.space.forget();
        self.tags.set(0);
        self.manifests.set(0);
        self.metrics.quarantined.with_label_values(&[] as &[&str]).set(0);
        Opening::count_quarantine(&**disk, &self.space, &self.metrics);
        self.recount.store(true, Ordering::Release);
        tracing::warn!(store = %self.settings.path.display(), "the store's folder was removed while larder ran: it begins anew");
        Ok(())
    }
}

pub(crate) struct Opening {
    pub(crate) path: PathBuf,
}

impl Opening {
    pub(crate) fn lock(&self, disk: &dyn Disk) -> Result<Lock, OpenError> {
        disk.lock(Path::new(layout::LOCK)).map_err(|error| match error {
            LockError::Held(pid) => OpenError::InUse { path: self.path.clone(), pid },
            LockError::Io(source) => self.io("lock", source),
        })
    }

    /// A store without a version is new, or its first start was cut short.
    pub(crate) fn check_version(&self, disk: &dyn Disk) -> Result<(), OpenError> {
        let found =
            read(disk, Path::new(layout::VERSION)).map_err(|error| self.failed("read the version of", error))?;
        match found {
            Some(found) if found != VERSION && !found.is_empty() => {
                let found = String::from_utf8_lossy(&found[..found.len().min(40)]).trim().to_owned();
                Err(OpenError::Version { path: self.path.clone(), found })
            }
            _ => Ok(()),
        }
    }

    /// Makes what every store has.
    fn furnish(&self, disk: &dyn Disk, first: &Files) -> Result<(), OpenError> {
        let of_givers = |folder: &&str| Path::new(folder).starts_with(layout::GIVERS);
        let make =
            |folder: &str| first.make_folder(Path::new(folder)).map_err(|error| self.failed("make a folder of", error));
        layout::FOLDERS.into_iter().rev().filter(|folder| !of_givers(folder)).try_for_each(make)?;
        // A rename by a process that was killed may not have reached the disk yet, and is about to be relied upon.
        for algorithm in ALGORITHMS {
            first.sync_folder(&layout::blobs(algorithm)).map_err(|error| self.failed("sync", error))?;
        }
        self.remove_temporary(disk)?;
        givers::note_earlier(disk, first).map_err(|error| self.failed("write to", error))?;
        layout::FOLDERS.into_iter().rev().filter(of_givers).try_for_each(make)?;
        self.write_version(first)
    }

    fn write_version(&self, files: &Files) -> Result<(), OpenError> {
        let path = Path::new(layout::VERSION);
        let found = files.read(path).map_err(|error| self.failed("read the version of", error))?;
        if found.as_deref() != Some(VERSION) {
            files.replace(path, VERSION).map_err(|error| self.failed("write the version of", error))?;
        }
        Ok(())
    }

    fn remove_temporary(&self, disk: &dyn Disk) -> Result<(), OpenError> {
        let folder = Path::new(layout::TEMPORARY);
        for entry in disk.list(folder).map_err(|error| self.io("read", error))? {
            disk.remove(&folder.join(&entry.name)).map_err(|error| self.io("remove a temporary file of", error))?;
        }
        Ok(())
    }

    /// Whether an earlier process, stopped before it could sync, may have left blobs that are not what they seem. If this one
    /// is not to sync, either, it says so before it stores anything.
    fn mark_unsynced(&self, sync: Durability, files: &Files) -> Result<bool, OpenError> {
        let path = Path::new(layout::UNSYNCED);
        let suspect = files.read(path).map_err(|error| self.failed("read", error))?.is_some();
        if sync == Durability::None && !suspect {
            files.replace(path, b"").map_err(|error| self.failed("write to", error))?;
        }
        Ok(suspect)
    }

    /// The operator's limit, else the one chosen at the first start: what was free then is not what is free now.
    fn limit(&self, settings: &StoreSettings, files: &Files) -> Result<u64, OpenError> {
        const KIND: &str = "default-size";
        if let Some(limit) = settings.max_size {
            return Ok(limit);
        }
        let path = Path::new(layout::DEFAULT_SIZE);
        let found = files.read(path).map_err(|error| self.failed("read the size of", error))?;
        let found = found.and_then(|bytes| Record::parse(KIND, &bytes)?.get("bytes")?.parse().ok());
        if let Some(limit) = found {
            return Ok(limit);
        }
        let free = files.disk.free().map_err(|error| self.io("tell what is free at", error))?;
        let limit = LARGEST_DEFAULT.min(free / 2);
        let record = Record::new().with("bytes", &limit);
        files.replace(path, &record.to_bytes(KIND)).map_err(|error| self.failed("write the size of", error))?;
        Ok(limit)
    }

    fn count_ingests(disk: &dyn Disk, space: &Space, partials: &Partials) {
        for algorithm in ALGORITHMS {
            let folder = Path::new(layout::INGEST).join(algorithm.as_str());
            for entry in disk.list(&folder).unwrap_or_default() {
                let Some(part) = Part::parse(algorithm, &entry.name) else { continue };
                if let Ok(metadata) = disk.metadata(&folder.join(&entry.name)) {
                    space.add(metadata.len);
                    partials.found(part, metadata.len);
                }
            }
        }
    }

    fn count_quarantine(disk: &dyn Disk, space: &Space, metrics: &Metrics) {
        let folder = Path::new(layout::QUARANTINE);
        let entries = disk.list(folder).unwrap_or_default();
        let files = entries.iter().filter(|entry| !entry.is_dir);
        for metadata in files.filter_map(|entry| disk.metadata(&folder.join(&entry.name)).ok()) {
            space.add(metadata.len);
            metrics.quarantined.with_label_values(&[] as &[&str]).inc();
        }
    }

    pub(crate) fn io(&self, action: &'static str, source: io::Error) -> OpenError {
        OpenError::Io { action, path: self.path.clone(), source }
    }

    fn failed(&self, action: &'static str, error: StoreError) -> OpenError {
        self.io(action, io::Error::other(error))
    }
}
