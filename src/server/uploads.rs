//! Blob uploads: from their beginning to the blob.
#![expect(clippy::unused_async, reason = "nothing is forwarded yet")]

use super::error::Problem;
use super::registry::{Asked, Inner};
use super::reply::Reply;
use crate::oci::{Code, Repository};
use http::StatusCode;
use hyper::body::Incoming;

impl Inner {
    pub(super) async fn begin_upload(
        &self,
        repository: &Repository,
        _asked: &Asked<'_>,
        _body: Incoming,
    ) -> Result<Reply, Problem> {
        Err(unavailable(repository))
    }

    pub(super) async fn upload(
        &self,
        repository: &Repository,
        _session: &str,
        _asked: &Asked<'_>,
        _body: Incoming,
    ) -> Result<Reply, Problem> {
        Err(unavailable(repository))
    }
}

fn unavailable(repository: &Repository) -> Problem {
    let message = format!("larder takes no uploads yet: push to {} itself", repository.registry);
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, &message)
}
