use super::blobs::DigestLocks;
use super::catalogue::{Catalogue, Entry};
use super::disk::Lock;
use super::files::Files;
use super::givers::Giving;
use super::health::Health;
use super::hold::Holds;
use super::index::Index;
use super::inspect::Inspection;
use super::layout;
use super::membership::Members;
use super::origins::Origins;
use super::partials::Partials;
use super::pins::Pins;
use super::space::Space;
use super::upkeep::Background;
use super::workers::Workers;
use crate::config::StoreSettings;
use crate::oci::{MAX_MANIFEST, Manifest};
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
pub(super) struct Inner {
    /// For what outlives a call and must not keep the store alive.
    pub(super) me: Weak<Inner>,
    pub(super) settings: StoreSettings,
    pub(super) files: Files,
    pub(super) space: Arc<Space>,
    pub(super) catalogue: Catalogue,
    pub(super) digest_locks: DigestLocks,
    pub(super) partials: Partials,
    pub(super) members: Members,
    pub(super) pins: Pins,
    pub(super) origins: Origins,
    pub(super) giving: Giving,
    pub(super) index: Index,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tags: IntGauge,
    pub(super) manifests: IntGauge,
    /// Reads of all kinds that are short.
    pub(super) general: Workers,
    /// Ingests: a disk that is slow to write delays no reader of what the page cache holds.
    pub(super) writers: Workers,
    /// What is short and writes: links, manifests, lists.
    pub(super) small: Workers,
    /// One thread that tries the disk.
    pub(super) prober: Workers,
    /// One thread that reads all links of a repository where nothing shorter tells what it has.
    pub(super) holds: Holds,
    pub(super) walker: Workers,
    pub(super) evicting: Mutex<()>,
    /// Until when removing something is of no use to a full disk, for so many bytes and more.
    pub(super) futile: Mutex<Option<(Instant, u64)>>,
    pub(super) walked: AtomicBool,
    /// Whether an earlier process stopped without having synced what it stored: blobs found on disk are hashed before use.
    pub(super) suspect: AtomicBool,
    pub(super) health: Health,
    /// Whether all that is there is to be counted again: it is another folder than before.
    pub(super) recount: AtomicBool,
    pub(super) closing: AtomicBool,
    pub(super) lock: Mutex<Option<Lock>>,
    pub(super) background: Mutex<Vec<Background>>,
    /// The last look at all blobs that an operator asked for.
    pub(super) inspection: Mutex<Option<Inspection>>,
}

impl Inner {
    /// Somebody has used a manifest: so what it refers to is in use, also where it need not be fetched.
    pub(super) fn touch_children(&self) {
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
    pub(super) fn write_last_use(&self) {
        self.touch_children();
        for (digest, entry) in self.catalogue.those(Entry::is_unwritten) {
            if let Some(time) = entry.take_unwritten() {
                // What cannot be written only blurs what goes first when room is needed.
                let _ = self.files.disk.touch(&layout::blob(&digest), time);
            }
        }
    }

    /// Everything that is stored is sound: once it is also synced, the next process may trust it.
    pub(super) fn settle(&self) {
        if matches!(self.files.disk.sync_all(), Ok(true)) {
            let _ = self.files.disk.remove(Path::new(layout::UNSYNCED));
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(super) fn release_lock(&self) {
        drop(self.lock.lock().take());
    }
}
