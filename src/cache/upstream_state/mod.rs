//! What the cache knows of each upstream, and the one way to ask it.
//!
//! A request goes through a method of `UpstreamState`, which notes how it ended: in the upstream's one `Availability`, and among
//! the repositories that are denied. So no outage is met without being known everywhere.

mod availability;
mod condition;
mod denied;
mod probe;
mod state;
mod upstreams;

pub use condition::Condition;
pub(super) use probe::Probes;
pub(super) use state::UpstreamState;
pub(super) use upstreams::Upstreams;
