//! Fuzzing targets of this room; see `crate::fuzzing`.

pub use super::upload::fuzz as session;
