//! Making room: what goes when a reservation does not fit.
//!
//! In this order: what lies in quarantine, partial downloads that nobody is filling, blobs by last use, the bytes of manifests.
//! A blob that somebody has open is no candidate. Nothing is removed for a reservation that would be refused all the same.

use super::catalogue::Entry;
use super::error::{Refusal, StoreError};
use super::files::{is_absent, lock};
use super::inner::Inner;
use super::layout;
use super::space::{Reservation, Shortage};
use crate::oci::Digest;
use std::path::Path;
use std::sync::Arc;

impl Inner {
    /// Reserves `bytes`, removing what was not used for longest if they do not fit.
    pub(super) fn reserve(&self, bytes: u64) -> Result<Reservation, StoreError> {
        match self.try_reserve(bytes) {
            Ok(reservation) => return Ok(reservation),
            Err(shortage) if matches!(shortage.refusal, Refusal::TooLarge { .. }) => {
                return Err(shortage.refusal.into());
            }
            Err(_) => {}
        }
        let _one = lock(&self.evicting);
        match self.try_reserve(bytes) {
            Ok(reservation) => return Ok(reservation),
            Err(shortage) => self.make_room(&shortage),
        }
        self.try_reserve(bytes).map_err(|shortage| shortage.refusal.into())
    }

    /// Removes what is over the limit, if anything is: after a start with a smaller one, say.
    pub(super) fn trim(&self) {
        drop(self.reserve(0));
    }

    fn try_reserve(&self, bytes: u64) -> Result<Reservation, Shortage> {
        // A disk that cannot tell will say so when it is written to.
        self.space.reserve(bytes, self.files.disk.free().unwrap_or(u64::MAX))
    }

    fn make_room(&self, shortage: &Shortage) {
        let mut freed = self.clear_quarantine();
        if freed < shortage.must {
            freed += self.remove_idle_ingests();
        }
        if freed >= shortage.must {
            return;
        }
        let candidates = self.candidates();
        let evictable: u64 = candidates.iter().map(|(_, entry)| entry.len).sum();
        if freed + evictable < shortage.must {
            return;
        }
        let (mut removed, before) = (0_u64, freed);
        for (digest, entry) in candidates {
            if freed >= shortage.goal {
                break;
            }
            let bytes = self.evict(&digest, &entry);
            freed += bytes.unwrap_or_default();
            removed += u64::from(bytes.is_some());
        }
        tracing::info!(
            blobs = removed,
            size_bytes = freed - before,
            "removed the least recently used blobs to make room"
        );
    }

    /// Blobs without a reader, the first to go first.
    fn candidates(&self) -> Vec<(Digest, Arc<Entry>)> {
        let mut all = self.catalogue.all();
        all.retain(|(digest, entry)| !self.catalogue.has_reader(digest, entry));
        all.sort_by_cached_key(|(_, entry)| (entry.is_manifest(), entry.last_use()));
        all
    }

    fn evict(&self, digest: &Digest, entry: &Arc<Entry>) -> Option<u64> {
        let _guard = self.digest_locks.lock(digest);
        let current = self.catalogue.get(digest)?;
        if !Arc::ptr_eq(&current, entry) || !self.catalogue.close_unread(digest, entry) {
            return None;
        }
        match self.files.disk.remove(&layout::blob(digest)) {
            Err(error) if !is_absent(&error) => {
                tracing::warn!(blob.digest = %digest, %error, "cannot remove a blob to make room");
                return None;
            }
            _ => {}
        }
        let _ = self.files.discard(&layout::pieces(digest));
        self.catalogue.remove(digest);
        self.space.sub(entry.len);
        self.metrics.store_evictions.with_label_values(&["space"]).inc();
        self.metrics.store_evicted_bytes.with_label_values(&[] as &[&str]).inc_by(entry.len);
        Some(entry.len)
    }

    fn clear_quarantine(&self) -> u64 {
        let folder = Path::new(layout::QUARANTINE);
        let mut freed = 0;
        for entry in self.files.disk.list(folder).unwrap_or_default() {
            let path = folder.join(&entry.name);
            if entry.is_dir {
                // An index that was set aside, which is in nobody's account.
                let _ = self.files.disk.remove_tree(&path);
                continue;
            }
            let Ok(metadata) = self.files.disk.metadata(&path) else { continue };
            if self.files.disk.remove(&path).is_ok() {
                freed += metadata.len;
                self.metrics.quarantined.with_label_values(&[] as &[&str]).dec();
            }
        }
        self.space.sub(freed);
        freed
    }

    fn remove_idle_ingests(&self) -> u64 {
        let mut freed = 0;
        for (digest, len) in self.partials.take_idle() {
            if self.files.disk.remove(&layout::ingest(&digest)).is_ok() {
                freed += len;
            }
            self.partials.forget(&digest);
        }
        self.space.sub(freed);
        freed
    }
}
