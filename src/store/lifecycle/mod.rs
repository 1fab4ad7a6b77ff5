//! From opening the folder to closing it, and the housekeeping in between.

mod count;
mod open;
mod upkeep;
mod watch;

pub(crate) use open::open;
