//! The store as the other rooms see it: on a real folder, and on a simulated disk that crashes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod blobs;
mod common;
mod crash;
mod index;
mod ingests;
mod links;
mod older;
mod opening;
mod pieces;
mod pressure;
mod scrub;
mod space;
mod trouble;
mod uploads;
