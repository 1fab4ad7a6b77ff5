//! What repositories have: tags, manifests, blobs and lists, and what can be told from them.

pub(crate) mod imports;
pub(crate) mod inventory;
pub(crate) mod lists;
pub(crate) mod membership;
pub(crate) mod platform;
pub(crate) mod write;
