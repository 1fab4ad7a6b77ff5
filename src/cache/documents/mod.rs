//! Manifests, lists and ACR metadata: what is small, kept whole and fetched by one flight at a time.
//!
//! `ManifestTable` and `ListTable` are what is stored. `ManifestFetcher` and `ListFetcher` get what is not. `Manifests`, `Presences`,
//! `Lists` and `Metadata` answer requests.

mod answer;
mod entries;
mod fetch;
mod list_fetch;
mod list_key;
mod list_table;
mod lists;
mod local_lists;
mod manifest_table;
mod manifests;
mod memory;
mod metadata;
mod named;
mod presence;
mod verify;

pub use answer::{ManifestAnswer, ManifestPresence, MetadataAnswer, StoredManifest};
pub use entries::{Entries, List, ListAnswer, ListPage};
pub(super) use fetch::ManifestFetcher;
pub(super) use list_table::ListTable;
pub(super) use lists::Lists;
pub(super) use manifest_table::ManifestTable;
pub use manifests::ManifestRequest;
pub(super) use manifests::Manifests;
pub(super) use metadata::{Metadata, Question};
pub(super) use named::Named;
pub(super) use presence::Presences;
