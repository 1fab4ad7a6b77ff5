//! The threads that do file work, and whether the disk answers them.

pub(crate) mod health;
pub(crate) mod serial;
pub(crate) mod workers;
