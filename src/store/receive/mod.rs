//! Content on its way in: downloads and uploads.

pub(crate) mod ingest;
pub(crate) mod partials;
pub(crate) mod upload;
