//! Making room: what may be removed, what is kept from that, and removing it.

pub(crate) mod evictor;
pub(crate) mod holds;
pub(crate) mod origins;
pub(crate) mod pins;
