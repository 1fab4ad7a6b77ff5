//! From opening the folder to closing it, and the housekeeping in between.

mod count;
mod folder;
mod open;
mod upkeep;
mod watch;

pub(crate) use folder::Opening;
pub(crate) use open::open;
