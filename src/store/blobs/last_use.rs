//! Passing the use of a manifest on to what it refers to, and writing last use into the blobs' file times.

use super::entry::BlobEntry;
use super::shelf::Blobs;
use crate::oci::{MAX_MANIFEST, Manifest};
use crate::store::files::layout;
use std::sync::Arc;

pub(crate) struct LastUse {
    blobs: Arc<Blobs>,
}

impl LastUse {
    pub(crate) fn new(blobs: Arc<Blobs>) -> Self {
        Self { blobs }
    }

    /// What a used manifest refers to is in use as well, even where clients have it already and do not fetch it.
    pub(crate) fn touch_children(&self) {
        let is_due = |entry: &BlobEntry| entry.is_manifest() && entry.len <= MAX_MANIFEST as u64 && entry.take_untold();
        for (digest, entry) in self.blobs.table.those(is_due) {
            let content = self.blobs.files.read(&layout::blob(&digest)).ok().flatten();
            let manifest = content.and_then(|content| Manifest::parse(&content)).unwrap_or_default();
            for child in manifest.children().filter_map(|child| self.blobs.table.get(&child.digest)) {
                child.touch_at(child.last_use().max(entry.last_use()));
            }
        }
    }

    /// Writes what has changed into the file times, for the next start.
    pub(crate) fn write(&self) {
        self.touch_children();
        for (digest, entry) in self.blobs.table.those(BlobEntry::is_unwritten) {
            if let Some(time) = entry.take_unwritten() {
                // A failure only blurs the order of the next evictions.
                let _ = self.blobs.files.disk.touch(&layout::blob(&digest), time);
            }
        }
    }
}
