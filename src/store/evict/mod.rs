//! Making room: what may be removed, what is kept from that, and removing it.

mod candidates;
mod evictor;
mod holds;
mod leftovers;
mod origins;
mod pin;
mod pins;

pub(crate) use candidates::Candidates;
pub(crate) use evictor::Evictor;
pub use holds::Hold;
pub(crate) use holds::Holds;
pub(crate) use leftovers::Leftovers;
pub use origins::AwayRegistries;
pub(crate) use origins::Origins;
pub use pin::{InvalidPin, Pin};
pub(crate) use pins::{KIND as PINS_KIND, Pins};
