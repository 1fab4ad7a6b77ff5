//! Complete blobs: which there are, opening and reading them, what shows that they are sound, and who gave them.

pub(crate) mod blob;
pub(crate) mod check;
pub(crate) mod clock;
pub(crate) mod givers;
pub(crate) mod pieces;
pub(crate) mod policy;
pub(crate) mod shelf;
pub(crate) mod table;
