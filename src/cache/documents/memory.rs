//! What is kept in memory to be answered without a look at the disk, each by the bytes that it takes.

use super::answer::StoredManifest;
use super::entries::ListState;
use crate::oci::{Digest, Repository};
use crate::store::ListKey;
use crate::upstream::SHORT;
use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use std::convert::Infallible;
use std::sync::Arc;

/// Manifests lately used, ready to be sent: a hit costs no file access.
#[derive(Debug)]
pub(super) struct ManifestMemory(Cache<(Repository, Digest), Arc<StoredManifest>, ByBytes>);

#[derive(Clone, Debug)]
struct ByBytes;

/// What an entry costs besides its content: keys, counters, the cache's own bookkeeping.
pub(super) const OVERHEAD: u64 = 512;
/// A common size of what is kept, from which a table's first size is taken.
const TYPICAL: u64 = 4096;

/// Entries that a table of so many bytes is made for.
pub(super) fn items(bytes: u64) -> usize {
    usize::try_from(bytes / TYPICAL).unwrap_or(usize::MAX).max(16)
}

impl Weighter<(Repository, Digest), Arc<StoredManifest>> for ByBytes {
    fn weight(&self, _: &(Repository, Digest), manifest: &Arc<StoredManifest>) -> u64 {
        manifest.content.len() as u64 + OVERHEAD
    }
}

impl ManifestMemory {
    /// Keeps at most `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        Self(Cache::with_weighter(items(bytes), bytes, ByBytes))
    }

    pub(super) fn get(&self, repository: &Repository, digest: &Digest) -> Option<Arc<StoredManifest>> {
        self.0.get(&(repository.clone(), *digest))
    }

    pub(super) fn remove(&self, repository: &Repository, digest: &Digest) {
        self.0.remove(&(repository.clone(), *digest));
    }

    pub(super) fn insert(&self, repository: &Repository, manifest: Arc<StoredManifest>) {
        // A large one is copied: the room that it has is for what is in work, and this memory is bounded by itself.
        let manifest = if manifest.content.len() > SHORT {
            let content = Bytes::copy_from_slice(&manifest.content);
            Arc::new(StoredManifest { content, ..StoredManifest::clone(&manifest) })
        } else {
            manifest
        };
        self.0.insert((repository.clone(), manifest.digest), manifest);
    }
}

/// Lists lately used. One that is too long for it is read from its file each time.
#[derive(Debug)]
pub(super) struct ListMemory(Cache<ListKey, ListState, ByEntries>);

#[derive(Clone, Debug)]
struct ByEntries;

/// Parts of the memory, each with a lock and a share of the bytes of its own: few, so that a long list fits into one.
const SHARDS: usize = 4;

impl Weighter<ListKey, ListState> for ByEntries {
    fn weight(&self, _: &ListKey, state: &ListState) -> u64 {
        state.entries.as_ref().map_or(0, |entries| entries.bytes() as u64) + OVERHEAD
    }
}

impl ListMemory {
    /// Keeps at most `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        let mut options = OptionsBuilder::new();
        options.estimated_items_capacity(items(bytes)).weight_capacity(bytes).shards(SHARDS);
        Self(match options.build() {
            Ok(options) => {
                Cache::with_options(options, ByEntries, DefaultHashBuilder::default(), DefaultLifecycle::default())
            }
            Err(_) => Cache::with_weighter(items(bytes), bytes, ByEntries),
        })
    }

    pub(super) fn get(&self, key: &ListKey) -> Option<ListState> {
        self.0.get(key)
    }

    pub(super) fn remove(&self, key: &ListKey) {
        self.0.remove(key);
    }

    /// What was there under this key is gone, also if the list is too long.
    pub(super) fn insert(&self, key: ListKey, state: ListState) {
        self.0.insert(key, ListState { room: None, ..state });
    }

    /// What is there under this key, or else `state`, which is there then: a list that was read from its file is older than any other.
    pub(super) fn get_or_insert(&self, key: &ListKey, state: ListState) -> ListState {
        let mut kept = None;
        let Ok(there) = self.0.get_or_insert_with(key, || {
            let for_memory = ListState { room: None, ..state.clone() };
            kept = Some(state);
            Ok::<_, Infallible>(for_memory)
        });
        kept.unwrap_or(there)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = ListKey> {
        self.0.iter().map(|(key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::super::entries::Entries;
    use super::*;
    use crate::cache::freshness::Age;
    use crate::oci::Registry;

    fn key(number: usize) -> ListKey {
        ListKey::Tags(Repository { registry: Registry::new("r"), name: format!("a/{number}").parse().unwrap() })
    }

    #[test]
    fn a_list_from_its_file_does_not_replace_one_that_upstream_has_just_given() {
        let memory = ListMemory::new(1 << 20);
        let old = ListState { age: Age::unknown(), ..list(1) };
        assert_eq!(memory.get_or_insert(&key(0), old.clone()).age, old.age, "there is none yet");
        memory.insert(key(0), list(2));
        let there = memory.get_or_insert(&key(0), old.clone());
        assert!(there.age.is_newer_than(&old.age));
        assert!(memory.get(&key(0)).unwrap().age.is_newer_than(&old.age));
    }

    fn list(names: usize) -> ListState {
        let names = (0..names).map(|number| format!("version-{number:06}")).collect();
        ListState {
            entries: Some(Arc::new(Entries::Names(names))),
            age: Age::new(),
            relayed: crate::upstream::Relayed::default(),
            room: None,
        }
    }

    #[test]
    fn lists_take_no_more_than_they_may_however_many_and_however_long_they_are() {
        let memory = ListMemory::new(1 << 20);
        for number in 0..2000 {
            memory.insert(key(number), list(1 + number % 100));
            assert!(memory.0.weight() <= 1 << 20);
        }
        assert!(memory.0.weight() > 1 << 18 && memory.get(&key(1999)).is_some());
        memory.insert(key(1999), list(100_000));
        assert!(memory.get(&key(1999)).is_none(), "neither the one that is too long nor the one before it");
    }

    #[test]
    fn a_list_of_as_many_tags_as_are_kept_fits_by_default() {
        let limits = crate::config::Limits::default();
        let memory = ListMemory::new(limits.list_memory);
        memory.insert(key(0), list(limits.list_entries));
        assert!(memory.get(&key(0)).is_some());
    }
}
