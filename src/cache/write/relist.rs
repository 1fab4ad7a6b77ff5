use crate::cache::documents::{ListTable, Metadata};
use crate::cache::epochs::{Applying, Epochs};
use crate::oci::{Repository, Tag};
use crate::store::ListKey;
use std::sync::Arc;

/// Changes lists of names here as a write has changed them upstream. Upstream is asked before one is given out again. In an outage it
/// stands in, and says what the write has done.
#[derive(Debug)]
pub(in crate::cache) struct Relist {
    pub(in crate::cache) lists: Arc<ListTable>,
    pub(in crate::cache) metadata: Arc<Metadata>,
    pub(in crate::cache) epochs: Arc<Epochs>,
}

impl Relist {
    pub(super) async fn tags(&self, applying: &Applying, repository: &Repository, set: &[Tag], gone: &[Tag]) {
        let change = |names: &mut Vec<String>| {
            names.retain(|name| gone.iter().all(|tag| tag.as_str() != name));
            for tag in set {
                insert(names, tag.as_str());
            }
        };
        self.lists.change(&applying.store_permit(), &ListKey::Tags(repository.clone()), change).await;
    }

    /// The catalogue, of which `repository` is one from now on.
    pub(super) async fn add_repository(&self, applying: &Applying, repository: &Repository) {
        let name = repository.name.as_str();
        let is_in = self.lists.has_name(&ListKey::Catalogue(repository.registry.clone()), name);
        // Pages that upstream has cut are not changed here: they are asked for anew.
        if self.metadata.take_catalogue(&repository.registry) || !is_in {
            self.catalogue(applying, repository, |names| insert(names, name)).await;
        }
    }

    pub(super) async fn catalogue(
        &self,
        _applying: &Applying,
        repository: &Repository,
        change: impl FnOnce(&mut Vec<String>),
    ) {
        let changing = self.epochs.change_catalogue(&repository.registry).await;
        self.lists.change(&changing.store_permit(), &ListKey::Catalogue(repository.registry.clone()), change).await;
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
