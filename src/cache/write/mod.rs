//! What changes by way of larder: pushes, deletions, purges, imports. Each begins a `Write`, and changes what is stored with the
//! `Applying` that its end gives.

mod arrive;
mod forget;
mod purge;
mod put;
mod relist;
mod removal;
mod upload;

pub(super) use arrive::Arrivals;
pub use arrive::ArrivingTag;
pub(super) use forget::Forget;
pub(super) use purge::Purges;
pub use purge::{Purge, Purged};
pub(super) use put::Puts;
pub use put::{Put, Taken};
pub(super) use relist::Relist;
pub use removal::Removal;
pub(super) use removal::Removals;
pub use upload::Uploaded;
#[cfg(any(test, fuzzing))]
pub use upload::fuzz;
pub(super) use upload::{Landing, Uploads};
