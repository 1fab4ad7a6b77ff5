//! An answer of an upstream whose body has not been read.

use crate::oci::{Digest, MediaType};
use crate::upstream::error::Failure;
use crate::upstream::limits::documents::Documents;
use crate::upstream::transport::body::Body;
use crate::upstream::transport::origin::Origin;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode, Uri};
use std::time::Duration;

/// An answer whose body has not been read.
pub(in crate::upstream) struct Answer {
    pub(in crate::upstream) status: StatusCode,
    pub(in crate::upstream) headers: HeaderMap,
    pub(in crate::upstream) body: Body,
    pub(in crate::upstream) url: Uri,
    pub(in crate::upstream) origin: Origin,
    /// For a 429: when the next request of its kind may be sent.
    pub(in crate::upstream) retry_after: Option<Duration>,
    /// Whether the upstream itself has shown, here or where it led on from, that it is a registry.
    pub(in crate::upstream) spoken: bool,
}

impl Answer {
    /// A header as text.
    pub(in crate::upstream) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The whole body, bounded.
    pub(in crate::upstream) async fn collect(self, limit: usize) -> Result<Bytes, Failure> {
        self.body.collect(limit).await
    }

    /// The same of a document, with what is made of it: where it is large, there has to be room.
    pub(in crate::upstream) async fn collect_document(
        self,
        limit: usize,
        documents: &Documents,
    ) -> Result<Bytes, Failure> {
        self.body.collect_document(limit, documents).await
    }

    /// The digest that the registry names, if it can be verified.
    pub(in crate::upstream) fn digest(&self) -> Option<Digest> {
        self.header("docker-content-digest")?.trim().parse().ok()
    }

    pub(in crate::upstream) fn media_type(&self) -> Option<MediaType> {
        self.header(CONTENT_TYPE)?.parse().ok()
    }

    pub(in crate::upstream) fn length(&self) -> Option<u64> {
        self.header(CONTENT_LENGTH)?.trim().parse().ok()
    }
}
