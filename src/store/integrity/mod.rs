//! Looking for damage: all the time, at an operator's word, and from outside.

pub(crate) mod inspect;
pub(crate) mod scrub;
pub(crate) mod verify;
