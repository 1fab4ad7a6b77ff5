//! Fuzzing targets of this room; see `crate::fuzzing`.

pub use super::write::fuzz as session;
