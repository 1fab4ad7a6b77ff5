use super::Store;
use crate::oci::Digest;
use crate::store::error::StoreError;
use crate::store::evict::Pin;
use crate::store::integrity::Inspection;
use crate::store::links::StoredReference;
use std::collections::HashSet;

/// What an operator asks for.
impl Store {
    /// Everything that can be asked for by tag, with what is here of it. Walks over all links.
    pub async fn references(&self) -> Result<Vec<StoredReference>, StoreError> {
        self.walk(|parts| parts.references.all()).await
    }

    /// Removes those of `digests` that have no link and no reader; the bytes that went.
    pub async fn remove_unlinked(&self, digests: HashSet<Digest>) -> Result<u64, StoreError> {
        self.walk(move |parts| {
            let unlinked = parts.inventory.unlinked(digests)?;
            let found = unlinked.iter().filter_map(|digest| Some((digest, parts.blobs.table.get(digest)?)));
            Ok(found.filter_map(|(digest, entry)| parts.evictor.evict_blob(digest, &entry, "purge")).sum())
        })
        .await
    }

    #[must_use]
    pub fn is_pinned(&self, digest: &Digest) -> bool {
        self.0.pins.has(digest)
    }

    /// All pins: those of the configuration, then those that [`pin`](Self::pin) has added.
    #[must_use]
    pub fn pins(&self) -> (Vec<Pin>, Vec<Pin>) {
        self.0.pins.all()
    }

    /// Adds a pin, which holds from then on, over restarts too. `false`: it was there.
    pub async fn pin(&self, pin: Pin) -> Result<bool, StoreError> {
        self.walk(move |parts| parts.pinning.pin(&pin)).await
    }

    /// Removes a pin that was added. `false`: there is none.
    pub async fn unpin(&self, pin: Pin) -> Result<bool, StoreError> {
        self.walk(move |parts| parts.pinning.unpin(&pin)).await
    }

    /// Begins to hash every blob; with `repair`, damaged ones are set aside. `false`: an inspection is running already.
    pub fn inspect(&self, repair: bool) -> Result<bool, StoreError> {
        let Some(thread) = self.0.inspector.begin(repair)? else { return Ok(false) };
        let mut threads = self.0.background.lock();
        threads.retain_mut(|thread| !thread.has_ended());
        threads.push(thread);
        Ok(true)
    }

    /// How far the last inspection has come.
    #[must_use]
    pub fn inspection(&self) -> Option<Inspection> {
        self.0.inspector.state()
    }
}
