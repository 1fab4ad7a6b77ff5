//! Answers to requests for blobs: whole, in part and in several parts; from the store, by following a fill, or passing through.

mod answer;
mod blobs;
mod filled;
mod multi_range;
mod query;
mod range;

pub use answer::{BlobAnswer, Content};
pub(super) use blobs::Blobs;
pub use multi_range::MultiRange;
pub use query::BlobQuery;
