//! What changes by way of larder: pushes, deletions, purges, imports.

pub(super) mod arrive;
pub(super) mod purge;
pub(super) mod put;
pub(super) mod relist;
pub(super) mod removal;
pub(super) mod upload;
