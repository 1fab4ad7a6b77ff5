//! Lists (tags, catalogue, referrers) as they were fetched: one file each, whose content means nothing to the store.

use crate::oci::{Digest, Registry, Repository};
use crate::store::error::StoreError;
use crate::store::files::layout;
use crate::store::files::record::Record;
use crate::store::parts::Inner;
use bytes::Bytes;
use std::time::SystemTime;

const LIST: &str = "list";

/// What a list is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListKey {
    /// The repositories of an upstream.
    Catalogue(Registry),
    /// The tags of a repository.
    Tags(Repository),
    /// The manifests attached to a manifest.
    Referrers(Repository, Digest),
}

/// A list's content and age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredList {
    /// When upstream gave it.
    pub fetched: SystemTime,
    /// The content, opaque to the store.
    pub content: Bytes,
}

impl ListKey {
    /// The upstream.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        match self {
            Self::Catalogue(registry) => registry,
            Self::Tags(repository) | Self::Referrers(repository, _) => &repository.registry,
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Catalogue(_) => "catalogue",
            Self::Tags(_) => "tags",
            Self::Referrers(..) => "referrers",
        }
    }

    /// What stands in the file: no two keys have the same, since neither names nor digests hold a blank.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Catalogue(registry) => format!("catalogue {registry}"),
            Self::Tags(repository) => format!("tags {} {}", repository.registry, repository.name),
            Self::Referrers(repository, digest) => {
                format!("referrers {} {} {digest}", repository.registry, repository.name)
            }
        }
    }
}

impl Inner {
    pub(crate) fn list(&self, key: &ListKey) -> Result<Option<StoredList>, StoreError> {
        let record = self.files.read(&layout::list(key))?.and_then(|bytes| Record::parse(LIST, &bytes));
        let Some(record) = record.filter(|record| record.get("key") == Some(&*key.text())) else { return Ok(None) };
        let fetched = record.time("fetched");
        Ok(fetched.map(|fetched| StoredList { fetched, content: record.into_body().into() }))
    }

    pub(crate) fn set_list(&self, key: &ListKey, list: &StoredList) -> Result<(), StoreError> {
        let record = Record::new().with("key", &key.text()).with_time("fetched", list.fetched).with_body(&list.content);
        self.replace(&layout::list(key), &record.to_bytes(LIST)).map(|_| ())
    }

    pub(crate) fn remove_list(&self, key: &ListKey) -> Result<(), StoreError> {
        self.files.remove(&layout::list(key)).map(|_| ())
    }
}
