//! The registry protocol: one request per operation, and what an answer means.

pub(in crate::upstream) mod answer;
pub(in crate::upstream) mod classify;
pub(in crate::upstream) mod client;
pub(in crate::upstream) mod document;
pub(in crate::upstream) mod error_body;
pub(in crate::upstream) mod fetch;
pub(in crate::upstream) mod link;
pub(in crate::upstream) mod list;
pub(in crate::upstream) mod relayed;
pub(in crate::upstream) mod upload;
pub(in crate::upstream) mod write;
