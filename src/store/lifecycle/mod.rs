//! From opening the folder to closing it, and the housekeeping in between.

pub(crate) mod open;
pub(crate) mod upkeep;
