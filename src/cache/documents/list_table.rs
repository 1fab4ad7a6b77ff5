use super::entries::{Entries, ListState};
use super::memory::ListMemory;
use crate::cache::epochs::{Epochs, StorePermit};
use crate::cache::freshness::Age;
use crate::cache::log::log_and_ignore;
use crate::oci::{Digest, Repository};
use crate::store::{ListKey, Store, StoreError, StoredList};
use crate::upstream::{Documents, READING, Relayed, SHORT};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::Semaphore;

/// Lists that are longer are forgotten after a write: to write one anew for every push would cost more than it could be worth.
const LONGEST_CHANGED: usize = 10_000;
/// Lists that are read from the store at once.
const READERS: usize = 4;

/// The lists that are stored, with those lately used in memory.
#[derive(Debug)]
pub(in crate::cache) struct ListTable {
    store: Store,
    epochs: Arc<Epochs>,
    memory: ListMemory,
    documents: Documents,
    readers: Semaphore,
}

impl ListTable {
    /// Keeps at most `bytes` in memory; a large list that is being read has its room among the `documents`.
    pub(in crate::cache) fn new(store: Store, epochs: Arc<Epochs>, bytes: u64, documents: Documents) -> Self {
        let (memory, readers) = (ListMemory::new(bytes), Semaphore::new(READERS));
        Self { store, epochs, memory, documents, readers }
    }

    pub(in crate::cache) async fn get(&self, key: &ListKey) -> Option<ListState> {
        if let Some(state) = self.memory.get(key) {
            return Some(state);
        }
        let (mut reading, mut room) = (self.readers.acquire().await.ok()?, None);
        // Perhaps another request has just read it.
        if let Some(state) = self.memory.get(key) {
            return Some(state);
        }
        let stored = loop {
            let _permit = self.epochs.read_permit(key).await;
            let stored = log_and_ignore("read the list of", key.registry(), self.store.list(key).await)??;
            let bytes = stored.content.len().saturating_mul(READING);
            if room.is_some() || bytes <= SHORT {
                break stored;
            }
            room = self.documents.room_now(bytes);
            if room.is_some() {
                break stored;
            }
            drop((stored, reading));
            room = self.documents.room(bytes).await.ok()?;
            reading = self.readers.acquire().await.ok()?;
        };
        let entries = serde_json::from_slice(&stored.content).ok()?;
        drop(reading);
        let (age, relayed) = (Age::since(stored.fetched), Relayed::default());
        let state = ListState { entries: Some(Arc::new(entries)), age, relayed, room };
        Some(self.memory.get_or_insert(key, state))
    }

    /// Keeps a list in memory and, if it is `lasting`, on disk, with the time at which it was `seen`.
    pub(super) async fn keep(
        &self,
        _permit: &StorePermit<'_>,
        key: &ListKey,
        state: &ListState,
        seen: SystemTime,
        lasting: bool,
    ) {
        self.memory.insert(key.clone(), state.clone());
        if let Some(entries) = state.entries.as_ref().filter(|_| lasting) {
            self.write(key, entries, seen).await;
        }
    }

    async fn write(&self, key: &ListKey, entries: &Entries, fetched: SystemTime) {
        let Ok(content) = serde_json::to_vec(entries) else { return };
        let list = StoredList { fetched, content: content.into() };
        log_and_ignore("keep the list of", key.registry(), self.store.set_list(key, &list).await);
    }

    /// Upstream has just failed to say more of it.
    pub(super) fn postpone(&self, _permit: &StorePermit<'_>, key: &ListKey) {
        if let Some(state) = self.memory.get(key) {
            self.memory.insert(key.clone(), ListState { age: state.age.postponed(), ..state });
        }
    }

    pub(in crate::cache) async fn forget(&self, _permit: &StorePermit<'_>, key: &ListKey) -> Result<(), StoreError> {
        self.store.remove_list(key).await?;
        self.memory.remove(key);
        Ok(())
    }

    /// Changes the names of a list as a write has changed them upstream. It is out of date then: upstream is asked before it is given
    /// out again, and in an outage it stands in.
    pub(in crate::cache) async fn change(
        &self,
        permit: &StorePermit<'_>,
        key: &ListKey,
        change: impl FnOnce(&mut Vec<String>),
    ) {
        let Some(mut names) = self.names(key).await.filter(|names| names.len() <= LONGEST_CHANGED) else {
            log_and_ignore("forget a list of", key.registry(), self.forget(permit, key).await);
            return;
        };
        change(&mut names);
        let entries = Entries::Names(names);
        self.write(key, &entries, SystemTime::UNIX_EPOCH).await;
        let (age, relayed) = (Age::unknown(), Relayed::default());
        self.memory.insert(key.clone(), ListState { entries: Some(Arc::new(entries)), age, relayed, room: None });
    }

    async fn names(&self, key: &ListKey) -> Option<Vec<String>> {
        let entries = if let Some(state) = self.memory.get(key) {
            state.entries?
        } else {
            let stored = log_and_ignore("read a list of", key.registry(), self.store.list(key).await)??;
            Arc::new(serde_json::from_slice(&stored.content).ok()?)
        };
        match &*entries {
            Entries::Names(names) => Some(names.clone()),
            Entries::Descriptors(_) | Entries::Absent { .. } => None,
        }
    }

    /// Whether the list in memory has this name.
    pub(in crate::cache) fn has_name(&self, key: &ListKey, name: &str) -> bool {
        let known = self.memory.get(key).and_then(|state| state.entries);
        matches!(known.as_deref(), Some(Entries::Names(names)) if names.iter().any(|known| known == name))
    }

    /// What of a repository has a list of referrers in memory. Those on disk alone are seconds from being asked for anew: they are
    /// good for no longer than that.
    pub(in crate::cache) fn subjects_of(&self, repository: &Repository) -> Vec<Digest> {
        let listed = self.memory.keys().filter_map(|key| match key {
            ListKey::Referrers(of, subject) if of == *repository => Some(subject),
            _ => None,
        });
        listed.collect()
    }

    /// Whether the list goes to disk. No empty list of the referrers of something that is not here does: a registry gives one for any
    /// digest that a client makes up, and files would pile up that no client wants.
    pub(super) async fn is_lasting(&self, key: &ListKey, entries: &Entries) -> bool {
        let ListKey::Referrers(repository, subject) = key else { return true };
        if !matches!(entries, Entries::Descriptors(all) if all.is_empty()) {
            return true;
        }
        let media_type = self.store.manifest_type(repository, subject).await;
        let linked = log_and_ignore("read the link of", subject, media_type).flatten().is_some();
        // What was there before is replaced.
        linked || log_and_ignore("read the list of", key.registry(), self.store.list(key).await).flatten().is_some()
    }
}
