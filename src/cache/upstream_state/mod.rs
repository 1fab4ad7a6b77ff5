//! What the cache knows of each upstream.

pub(super) mod availability;
pub(super) mod condition;
pub(super) mod denied;
pub(super) mod state;
