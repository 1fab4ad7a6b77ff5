use crate::config::StoreSettings;
use crate::oci::{MAX_MANIFEST, Manifest};
use crate::store::account::Space;
use crate::store::blobs::givers::Giving;
use crate::store::blobs::shelf::DigestLocks;
use crate::store::blobs::table::{Catalogue, Entry};
use crate::store::disk::Lock;
use crate::store::evict::holds::Holds;
use crate::store::evict::origins::Origins;
use crate::store::evict::pins::Pins;
use crate::store::files::layout;
use crate::store::files::small::Files;
use crate::store::index::Index;
use crate::store::integrity::inspect::Inspection;
use crate::store::jobs::health::Health;
use crate::store::jobs::workers::Workers;
use crate::store::lifecycle::upkeep::Background;
use crate::store::links::membership::Members;
use crate::store::receive::partials::Partials;
use crate::telemetry::Metrics;
use parking_lot::Mutex;
use prometheus::IntGauge;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use tokio::time::Instant;

/// All parts of an open store.
///
/// Lock order: `evicting`, a digest's lock, and below these the short locks inside the parts, of which none is held while
/// another is taken.
pub(crate) struct Inner {
    /// For what outlives a call and must not keep the store alive.
    pub(crate) me: Weak<Inner>,
    pub(crate) settings: StoreSettings,
    pub(crate) files: Files,
    pub(crate) space: Arc<Space>,
    pub(crate) catalogue: Catalogue,
    pub(crate) digest_locks: DigestLocks,
    pub(crate) partials: Partials,
    pub(crate) members: Members,
    pub(crate) pins: Pins,
    pub(crate) origins: Origins,
    pub(crate) giving: Giving,
    pub(crate) index: Index,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tags: IntGauge,
    pub(crate) manifests: IntGauge,
    /// Reads of all kinds that are short.
    pub(crate) general: Workers,
    /// Ingests: a disk that is slow to write delays no reader of what the page cache holds.
    pub(crate) writers: Workers,
    /// What is short and writes: links, manifests, lists.
    pub(crate) small: Workers,
    /// One thread that tries the disk.
    pub(crate) prober: Workers,
    /// One thread that reads all links of a repository where nothing shorter tells what it has.
    pub(crate) holds: Holds,
    pub(crate) walker: Workers,
    pub(crate) evicting: Mutex<()>,
    /// Until when removing something is of no use to a full disk, for so many bytes and more.
    pub(crate) futile: Mutex<Option<(Instant, u64)>>,
    pub(crate) walked: AtomicBool,
    /// Whether an earlier process stopped without having synced what it stored: blobs found on disk are hashed before use.
    pub(crate) suspect: AtomicBool,
    pub(crate) health: Health,
    /// Whether all that is there is to be counted again: it is another folder than before.
    pub(crate) recount: AtomicBool,
    pub(crate) closing: AtomicBool,
    pub(crate) lock: Mutex<Option<Lock>>,
    pub(crate) background: Mutex<Vec<Background>>,
    /// The last look at all blobs that an operator asked for.
    pub(crate) inspection: Mutex<Option<Inspection>>,
}

impl Inner {
    /// Somebody has used a manifest: so what it refers to is in use, also where it need not be fetched.
    pub(crate) fn touch_children(&self) {
        let is_to_tell = |entry: &Entry| entry.is_manifest() && entry.len <= MAX_MANIFEST as u64 && entry.take_untold();
        for (digest, entry) in self.catalogue.those(is_to_tell) {
            let content = self.files.read(&layout::blob(&digest)).ok().flatten();
            let manifest = content.and_then(|content| Manifest::parse(&content)).unwrap_or_default();
            for child in manifest.children().filter_map(|child| self.catalogue.get(&child.digest)) {
                child.touch_at(child.last_use().max(entry.last_use()));
            }
        }
    }

    /// Writes last use into the blobs' file times, for the next start.
    pub(crate) fn write_last_use(&self) {
        self.touch_children();
        for (digest, entry) in self.catalogue.those(Entry::is_unwritten) {
            if let Some(time) = entry.take_unwritten() {
                // What cannot be written only blurs what goes first when room is needed.
                let _ = self.files.disk.touch(&layout::blob(&digest), time);
            }
        }
    }

    /// Everything that is stored is sound: once it is also synced, the next process may trust it.
    pub(crate) fn settle(&self) {
        if matches!(self.files.disk.sync_all(), Ok(true)) {
            let _ = self.files.disk.remove(Path::new(layout::UNSYNCED));
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(crate) fn release_lock(&self) {
        drop(self.lock.lock().take());
    }
}
