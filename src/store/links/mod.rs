//! What repositories have: tags, manifests, blobs and lists, and what can be told from them.

mod inventory;
mod lists;
mod members;
mod membership;
mod pinning;
mod reader;
mod references;
mod visitors;
mod walk;
mod write;

pub(crate) use inventory::Inventory;
pub use inventory::RepositoryLinks;
pub(crate) use lists::Lists;
pub use lists::{ListKey, StoredList};
pub use members::Member;
pub(crate) use members::Members;
pub(crate) use membership::Membership;
pub(crate) use pinning::Pinning;
pub(crate) use reader::LinkReader;
pub use reader::TagLink;
pub(crate) use references::References;
pub use references::StoredReference;
pub(crate) use visitors::{IndexVisitor, OriginVisitor};
pub(crate) use walk::{Folder, Visitor, walk};
pub(crate) use write::LinkWriter;
