//! The registry: a request is resolved (`request`), admitted, answered by the cache, and turned into a response that explains itself
//! (`registry`; `reads`, `uploads`, `writes`; `explain`, `lists`). Only `error` knows which error is which status code.

pub(in crate::server) mod acr;
pub(in crate::server) mod catalogue;
pub(in crate::server) mod content;
pub(in crate::server) mod error;
pub(in crate::server) mod explain;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub(in crate::server) mod lists;
pub(in crate::server) mod multipart;
pub(in crate::server) mod oauth;
pub(in crate::server) mod read_body;
pub(in crate::server) mod reads;
pub(in crate::server) mod record;
pub(in crate::server) mod reply;
pub(in crate::server) mod request;
pub(in crate::server) mod service;
pub(in crate::server) mod sites;
pub(in crate::server) mod stored;
pub(in crate::server) mod uploads;
pub(in crate::server) mod writes;
