//! Lists of names after a write: changed here as they have been upstream. Upstream is asked before one is given out again; with the
//! link down it stands in, and says what the write has done.

use crate::cache::documents::lists::{Entries, ListState};
use crate::cache::freshness::Age;
use crate::cache::{Inner, log_and_ignore};
use crate::oci::{Repository, Tag};
use crate::store::{ListKey, StoredList};
use crate::upstream::Relayed;
use std::sync::Arc;
use std::time::SystemTime;

/// Lists that are longer are forgotten: to write one anew for every push would cost more than it could be worth.
const LONGEST: usize = 10_000;

/// Each only while a write is being applied.
impl Inner {
    pub(in crate::cache) async fn relist_tags(&self, repository: &Repository, set: &[Tag], gone: &[Tag]) {
        let change = |names: &mut Vec<String>| {
            names.retain(|name| gone.iter().all(|tag| tag.as_str() != name));
            for tag in set {
                insert(names, tag.as_str());
            }
        };
        self.relist(&ListKey::Tags(repository.clone()), change).await;
    }

    /// The catalogue, of which `repository` is one from now on.
    pub(in crate::cache) async fn relist_repositories(&self, repository: &Repository) {
        let key = ListKey::Catalogue(repository.registry.clone());
        let name = repository.name.as_str();
        let known = self.lists.get(&key).and_then(|state| state.entries);
        let is_in = matches!(known.as_deref(), Some(Entries::Names(names)) if names.iter().any(|known| known == name));
        // Pages that upstream has cut are not changed here: they are asked for anew.
        if self.metadata.take_catalogue(&repository.registry) || !is_in {
            self.relist_catalogue(repository, |names| insert(names, name)).await;
        }
    }

    pub(in crate::cache) async fn relist_catalogue(
        &self,
        repository: &Repository,
        change: impl FnOnce(&mut Vec<String>),
    ) {
        let registry = &repository.registry;
        let _changing = self.epochs.change_catalogue(registry).await;
        self.relist(&ListKey::Catalogue(registry.clone()), change).await;
    }

    async fn relist(&self, key: &ListKey, change: impl FnOnce(&mut Vec<String>)) {
        let Some(mut names) = self.names(key).await.filter(|names| names.len() <= LONGEST) else {
            log_and_ignore("forget a list of", key.registry(), self.forget_list(key).await);
            return;
        };
        change(&mut names);
        let entries = Entries::Names(names);
        if let Ok(content) = serde_json::to_vec(&entries) {
            let list = StoredList { fetched: SystemTime::UNIX_EPOCH, content: content.into() };
            log_and_ignore("keep a list of", key.registry(), self.store.set_list(key, &list).await);
        }
        let (age, relayed) = (Age::unknown(), Relayed::default());
        self.lists.insert(key.clone(), ListState { entries: Some(Arc::new(entries)), age, relayed, room: None });
    }

    async fn names(&self, key: &ListKey) -> Option<Vec<String>> {
        let entries = if let Some(state) = self.lists.get(key) {
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
}

/// Where it belongs, if the list is in order, as registries give it; else at the end.
fn insert(names: &mut Vec<String>, name: &str) {
    if names.iter().any(|known| known == name) {
        return;
    }
    let at = if names.is_sorted() { names.partition_point(|known| known.as_str() < name) } else { names.len() };
    names.insert(at, name.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_goes_where_it_belongs_and_is_there_once() {
        let of = |names: &[&str], name: &str| {
            let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            insert(&mut names, name);
            names.join(" ")
        };
        assert_eq!(of(&["a", "c"], "b"), "a b c");
        assert_eq!(of(&["a", "b"], "b"), "a b");
        assert_eq!(of(&["c", "a"], "b"), "c a b");
        assert_eq!(of(&[], "b"), "b");
    }
}
