//! What may be removed before any blob: the quarantine, and partial downloads that no writer has.

use crate::store::disk::{Access, is_absent};
use crate::store::files::partials::{Part, Partials};
use crate::store::files::{Files, layout};
use crate::telemetry::Metrics;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A partial download that was not continued for so long is removed.
const INGEST_AGE: Duration = Duration::from_secs(24 * 3600);

pub(crate) struct Leftovers {
    files: Arc<Files>,
    partials: Partials,
    metrics: Arc<Metrics>,
}

impl Leftovers {
    pub(crate) fn new(files: Arc<Files>, partials: Partials, metrics: Arc<Metrics>) -> Self {
        Self { files, partials, metrics }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.quarantined().map(|(_, len)| len).sum::<u64>().saturating_add(self.partials.idle_bytes())
    }

    /// Removes what is in quarantine and, if that frees less than `enough`, idle partial downloads; the bytes that went.
    pub(super) fn remove(&self, enough: u64) -> u64 {
        let mut freed = self.clear_quarantine();
        if freed < enough {
            freed += self.partials.idle().iter().filter_map(|part| self.remove_partial(part)).sum::<u64>();
        }
        freed
    }

    fn quarantined(&self) -> impl Iterator<Item = (std::path::PathBuf, u64)> {
        let folder = Path::new(layout::QUARANTINE);
        let files = self.files.disk.list(folder).unwrap_or_default().into_iter().filter(|entry| !entry.is_dir);
        files.map(|entry| folder.join(entry.name)).filter_map(|path| {
            let len = self.files.disk.metadata(&path).ok()?.len;
            Some((path, len))
        })
    }

    fn clear_quarantine(&self) -> u64 {
        let mut freed = 0;
        for (path, len) in self.quarantined() {
            if self.files.disk.remove(&path).is_ok() {
                freed += len;
                self.metrics.quarantined.with_label_values(&[] as &[&str]).dec();
            }
        }
        self.files.space.sub(freed);
        freed
    }

    /// Counts what earlier processes left in quarantine.
    pub(crate) fn count_quarantine(&self) {
        let quarantined = self.metrics.quarantined.with_label_values(&[] as &[&str]);
        quarantined.set(0);
        for (_, len) in self.quarantined() {
            self.files.space.add(len);
            quarantined.inc();
        }
    }

    /// Counts the partial downloads that earlier processes left.
    pub(crate) fn count_partials(&self) {
        for algorithm in layout::ALGORITHMS {
            let folder = Path::new(layout::INGEST).join(algorithm.as_str());
            for entry in self.files.disk.list(&folder).unwrap_or_default() {
                let Some(part) = Part::parse(algorithm, &entry.name) else { continue };
                if let Ok(metadata) = self.files.disk.metadata(&part.path()) {
                    self.files.space.add(metadata.len);
                    self.partials.found(part, metadata.len);
                }
            }
        }
    }

    /// Removes partial downloads that were not continued for long.
    pub(crate) fn remove_old_partials(&self) {
        let is_old = |part: &Part| {
            let metadata = self.files.disk.metadata(&part.path());
            metadata.is_ok_and(|metadata| metadata.modified.elapsed().is_ok_and(|age| age > INGEST_AGE))
        };
        for part in self.partials.idle().iter().filter(|part| is_old(part)) {
            self.remove_partial(part);
        }
    }

    fn remove_partial(&self, part: &Part) -> Option<u64> {
        let mut claim = self.partials.claim(*part)?;
        match self.files.disk.remove(&part.path()) {
            Err(error) if !is_absent(&error) => return None,
            _ => {}
        }
        let len = claim.len.take().unwrap_or_default();
        self.files.space.sub(len);
        Some(len)
    }

    /// Gives back what is allocated behind the end of partial downloads that no writer has.
    pub(crate) fn give_back_unused(&self) {
        for part in self.partials.with_unused() {
            let Some(mut claim) = self.partials.claim(part) else { continue };
            if let Ok(file) = self.files.disk.open(&part.path(), Access::ReadWrite) {
                let _ = file.release();
            }
            claim.allocated = false;
        }
    }
}
