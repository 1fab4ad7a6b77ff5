//! Lists (tags, catalogue, referrers) as they were fetched, one file each, what imports wait for, and what was asked for in vain.
//! What these files hold means nothing to the store.

use crate::oci::{Digest, Registry, Repository};
use crate::store::error::StoreError;
use crate::store::evict::Evictor;
use crate::store::files::{Files, Record, layout};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;
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

    fn path(&self) -> PathBuf {
        layout::list(self.kind(), &self.text())
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Catalogue(_) => "catalogue",
            Self::Tags(_) => "tags",
            Self::Referrers(..) => "referrers",
        }
    }

    /// What stands in the file: no two keys have the same, since neither names nor digests hold a blank.
    fn text(&self) -> String {
        match self {
            Self::Catalogue(registry) => format!("catalogue {registry}"),
            Self::Tags(repository) => format!("tags {} {}", repository.registry, repository.name),
            Self::Referrers(repository, digest) => {
                format!("referrers {} {} {digest}", repository.registry, repository.name)
            }
        }
    }
}

pub(crate) struct Lists {
    files: Arc<Files>,
    evictor: Arc<Evictor>,
}

impl Lists {
    pub(crate) fn new(files: Arc<Files>, evictor: Arc<Evictor>) -> Self {
        Self { files, evictor }
    }

    pub(crate) fn get(&self, key: &ListKey) -> Result<Option<StoredList>, StoreError> {
        let record = self.files.read(&key.path())?.and_then(|bytes| Record::parse(LIST, &bytes));
        let Some(record) = record.filter(|record| record.get("key") == Some(&*key.text())) else { return Ok(None) };
        let fetched = record.time("fetched");
        Ok(fetched.map(|fetched| StoredList { fetched, content: record.into_body().into() }))
    }

    pub(crate) fn set(&self, key: &ListKey, list: &StoredList) -> Result<(), StoreError> {
        let record = Record::new().with("key", &key.text()).with_time("fetched", list.fetched).with_body(&list.content);
        self.evictor.replace(&key.path(), &record.to_bytes(LIST)).map(drop)
    }

    pub(crate) fn remove(&self, key: &ListKey) -> Result<(), StoreError> {
        self.files.remove(&key.path()).map(drop)
    }

    /// What imports wait for.
    pub(crate) fn imports(&self) -> Result<Option<Bytes>, StoreError> {
        self.note(layout::IMPORTS)
    }

    pub(crate) fn set_imports(&self, content: &[u8]) -> Result<(), StoreError> {
        self.set_note(layout::IMPORTS, content)
    }

    /// What was asked for in vain.
    pub(crate) fn missing(&self) -> Result<Option<Bytes>, StoreError> {
        self.note(layout::MISSING)
    }

    pub(crate) fn set_missing(&self, content: &[u8]) -> Result<(), StoreError> {
        self.set_note(layout::MISSING, content)
    }

    /// A note's kind is its file's name.
    fn note(&self, kind: &str) -> Result<Option<Bytes>, StoreError> {
        let record = self.files.read(Path::new(kind))?.and_then(|bytes| Record::parse(kind, &bytes));
        Ok(record.map(|record| record.into_body().into()))
    }

    fn set_note(&self, kind: &str, content: &[u8]) -> Result<(), StoreError> {
        let record = Record::new().with_body(content);
        self.evictor.replace(Path::new(kind), &record.to_bytes(kind)).map(drop)
    }
}
