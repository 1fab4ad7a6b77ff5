//! The threads that do file work, and whether the disk answers them.

mod background;
mod health;
mod pools;
mod serial;
mod workers;

pub(crate) use background::{Stop, Thread};
pub use health::{Trouble, TroubleKind};
pub(crate) use pools::Jobs;
pub(crate) use serial::SerialJob;
pub(crate) use workers::{StuckWatch, Workers};
