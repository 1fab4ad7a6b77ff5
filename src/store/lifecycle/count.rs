//! Counting what is there after a start, and what else needs all links then.
//!
//! The store serves from the first moment; this only makes its numbers exact. Links are walked once, with all visitors that are due.

use crate::store::blobs::Blobs;
use crate::store::error::StoreError;
use crate::store::evict::Origins;
use crate::store::files::layout::{self, ALGORITHMS};
use crate::store::index::Index;
use crate::store::jobs::Stop;
use crate::store::links::{Folder, IndexVisitor, LinkReader, OriginVisitor, Pinning, Visitor, walk};
use prometheus::IntGauge;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Blobs counted before it is asked whether the store was closed.
const SOME: usize = 256;

pub(crate) struct Counter {
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) reader: Arc<LinkReader>,
    pub(crate) pinning: Arc<Pinning>,
    pub(crate) origins: Arc<Origins>,
    pub(crate) index: Arc<Index>,
    pub(crate) tags: IntGauge,
    pub(crate) manifests: IntGauge,
    pub(crate) stop: Arc<Stop>,
    /// Whether everything that was there at the start has been counted.
    pub(crate) counted: Arc<AtomicBool>,
    /// Whether it is to be counted again: the folder is another one than before.
    pub(crate) recount: AtomicBool,
}

impl Counter {
    /// Counts everything. `None`: the store was closed.
    pub(super) fn count(&self) -> Option<()> {
        for algorithm in ALGORITHMS {
            let entries = self.blobs.files.disk.list(&layout::blobs(algorithm)).unwrap_or_default();
            for some in entries.chunks(SOME) {
                self.stop.check()?;
                let digests = some.iter().filter_map(|entry| layout::digest(algorithm, &entry.name));
                digests.for_each(|digest| self.blobs.count(&digest));
            }
        }
        for folder in [layout::LISTS, layout::PIECES, layout::GIVERS] {
            self.blobs.files.count_folder(Path::new(folder), |_| {});
        }
        for algorithm in ALGORITHMS {
            for kind in [layout::PIECES, layout::GIVERS] {
                let folder = Path::new(kind).join(algorithm.as_str());
                self.blobs.files.count_folder(&folder, |_| {});
                for entry in self.blobs.files.disk.list(&folder).unwrap_or_default() {
                    layout::digest(algorithm, &entry.name).inspect(|digest| self.blobs.discard_orphans(digest));
                }
            }
        }
        self.walk(true)?;
        self.blobs.files.all_counted();
        self.counted.store(true, Ordering::Release);
        Some(())
    }

    /// Walks the links if that is due for another reason.
    pub(super) fn catch_up(&self) -> Option<()> {
        if self.recount.swap(false, Ordering::AcqRel) {
            return self.count();
        }
        self.walk(false)
    }

    /// Walks the links with all visitors that are due, if any is.
    fn walk(&self, is_start: bool) -> Option<()> {
        let (reader, stop) = (&*self.reader, &*self.stop);
        let mut count = is_start.then_some(CountVisitor(self));
        let mut pins = (is_start && !self.pinning.pins.is_ready()).then(|| self.pinning.visitor());
        let index = IndexVisitor { reader, index: &self.index, stop, is_full: false };
        let mut index = self.index.is_incomplete().then_some(index);
        let wants_origins = self.origins.wants_links(self.blobs.files.space.is_nearly_full());
        let mut origins = wants_origins.then_some(OriginVisitor { reader, origins: &self.origins });
        let mut visitors: Vec<&mut dyn Visitor> = Vec::new();
        visitors.extend(count.as_mut().map(|visitor| visitor as &mut dyn Visitor));
        visitors.extend(pins.as_mut().map(|visitor| visitor as &mut dyn Visitor));
        visitors.extend(index.as_mut().map(|visitor| visitor as &mut dyn Visitor));
        visitors.extend(origins.as_mut().map(|visitor| visitor as &mut dyn Visitor));
        if visitors.is_empty() {
            return Some(());
        }
        // A folder that cannot be read is absent.
        let _ = walk(&self.blobs.files, stop, &mut visitors);
        stop.check()?;
        if let Some(visitor) = pins {
            visitor.finish();
        }
        if let Some(visitor) = index {
            visitor.finish();
        }
        if let Some(visitor) = origins {
            visitor.finish();
        }
        Some(())
    }
}

/// Counts the files of links, tags and manifests.
struct CountVisitor<'a>(&'a Counter);

impl Visitor for CountVisitor<'_> {
    fn visit(&mut self, folder: &Folder<'_>) -> Result<(), StoreError> {
        let Counter { blobs, tags, manifests, .. } = self.0;
        let files = &blobs.files;
        files.count_folder(folder.path, |_| {});
        for name in &folder.links {
            let path = folder.path.join(name);
            files.count_folder(&path, |_| {
                if name == "_tags" {
                    tags.inc();
                }
            });
            for algorithm in ALGORITHMS {
                let path = path.join(algorithm.as_str());
                files.count_folder(&path, |file| {
                    if name == "_manifests" {
                        manifests.inc();
                        let digest = layout::digest(algorithm, file);
                        digest.and_then(|digest| blobs.table.get(&digest)).inspect(|entry| entry.set_manifest());
                    }
                });
            }
        }
        Ok(())
    }
}
