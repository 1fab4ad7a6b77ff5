//! Looking for damage: all the time, at an operator's word, and from outside.

mod inspect;
mod scrub;
mod verify;

pub(crate) use inspect::Inspector;
pub use inspect::{DamagedBlob, Inspection};
pub(crate) use scrub::Scrub;
pub use verify::{Verdict, Verifier};
