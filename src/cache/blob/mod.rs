//! Answers to requests for blobs, and whom bytes may answer for.

pub(super) mod blobs;
pub(super) mod multi_range;
pub(super) mod query;
pub(super) mod vouch;
