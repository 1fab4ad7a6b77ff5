//! What is learned from all links on a walk: which manifest names which blob, and which registry has what.

use super::reader::LinkReader;
use super::walk::{Folder, Visitor};
use crate::store::error::StoreError;
use crate::store::evict::Origins;
use crate::store::index::Index;
use crate::store::jobs::Stop;

/// Fills the index.
pub(crate) struct IndexVisitor<'a> {
    pub(crate) reader: &'a LinkReader,
    pub(crate) index: &'a Index,
    pub(crate) stop: &'a Stop,
    /// Whether the index takes no more.
    pub(crate) is_full: bool,
}

impl Visitor for IndexVisitor<'_> {
    fn visit(&mut self, folder: &Folder<'_>) -> Result<(), StoreError> {
        let Some(repository) = folder.repository().filter(|_| !self.is_full) else { return Ok(()) };
        for manifest in self.reader.manifests(repository).unwrap_or_default() {
            self.stop.check().ok_or(StoreError::Closed)?;
            let Ok(named) = self.reader.named(repository, &manifest) else { continue };
            if !self.index.put_waiting(repository, &named, &manifest) {
                self.is_full = true;
                break;
            }
        }
        Ok(())
    }
}

impl IndexVisitor<'_> {
    /// All links were shown.
    pub(crate) fn finish(self) {
        if !self.is_full {
            self.index.rebuilt();
        }
    }
}

/// Learns which registries have which blobs.
pub(crate) struct OriginVisitor<'a> {
    pub(crate) reader: &'a LinkReader,
    pub(crate) origins: &'a Origins,
}

impl Visitor for OriginVisitor<'_> {
    fn visit(&mut self, folder: &Folder<'_>) -> Result<(), StoreError> {
        let Some(repository) = folder.repository() else { return Ok(()) };
        let all = self.reader.mentioned(repository).or_else(|error| {
            tracing::warn!(%error, repo.name = %repository, "cannot read all links of a repository");
            self.reader.manifests(repository)
        });
        self.origins.note(&repository.registry, &all.unwrap_or_default());
        Ok(())
    }
}

impl OriginVisitor<'_> {
    /// All links were shown.
    pub(crate) fn finish(self) {
        self.origins.set_known();
    }
}
