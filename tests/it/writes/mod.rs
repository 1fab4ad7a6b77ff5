//! Writes through larder: upstream decides, larder remembers.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
#![allow(clippy::cast_possible_truncation, reason = "sizes here are small")]

mod access;
mod acr;
mod again;
mod common;
mod deletes;
mod documents;
mod exact;
mod kept;
mod lost;
mod manifests;
mod metadata;
mod mounts;
mod races;
mod refusals;
mod refused;
mod sealed;
mod uploads;
