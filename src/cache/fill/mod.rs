//! Fills: one download from upstream into the store, and any number of readers that follow the growing file.
//!
//! There is at most one fill per digest and registry in the process, whatever repository or tag led to it: a registry that is slow
//! or sends something else holds up no request for another's. It runs on a task of its own: no reader, the first included, can slow
//! it down or end it. Readers learn of its progress from its watermark and read the fill's own open file, below the mark of what
//! is written. The last bytes of the content are released only when the digest of the whole holds; until then an answer cannot
//! end cleanly.

mod candidates;
mod download;
mod fills;
mod follower;
#[cfg(test)]
mod modelled;
mod pace;
mod resume_backoff;
mod run;
mod shared;
mod transfer;
mod watermark;

/// What the watermark is made of; in `modelled`, a model checker's take their place.
mod sync {
    pub(in crate::cache) use std::sync::{Arc, Mutex, MutexGuard};
}

pub(super) use candidates::{Candidate, Candidates};
pub(super) use download::Download;
pub(super) use fills::Fills;
pub use follower::{Follower, Step};
pub(super) use run::FillContext;
pub(super) use shared::{End, Fill, HELD_BACK, Met, Opened};
pub use transfer::Transfer;
