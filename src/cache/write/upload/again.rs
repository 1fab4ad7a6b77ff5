//! Uploads of what is stored here, for an upstream that has lost it.

use crate::cache::log::log_and_ignore;
use crate::cache::upstream_state::UpstreamState;
use crate::oci::{Digest, Repository};
use crate::store::{Blob, Store};
use crate::upstream::{BodyHeaders, UploadAnswer, UploadError, UploadSource, UploadStart, UploadStep};
use bytes::Bytes;
use http::HeaderValue;
use std::io;

/// Bytes read at once.
const PIECE: u64 = 512 << 10;

/// A stored blob as the body of an upload.
struct Stored {
    blob: Blob,
    next: u64,
}

impl UploadSource for Stored {
    type Error = io::Error;

    fn length(&self) -> Option<u64> {
        Some(self.blob.len())
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, io::Error> {
        let length = (self.blob.len() - self.next).min(PIECE);
        if length == 0 {
            return Ok(None);
        }
        let range = self.next..self.next + length;
        // Damage never leaves.
        self.blob.file().check(range).await.map_err(io::Error::other)?;
        let chunk = self.blob.file().read(self.next, usize::try_from(length).unwrap_or_default()).await?;
        self.next += length;
        Ok(Some(chunk))
    }

    async fn rewind(&mut self) -> bool {
        self.next = 0;
        true
    }
}

/// Nothing, to begin with.
struct Nothing;

impl UploadSource for Nothing {
    type Error = io::Error;

    fn length(&self) -> Option<u64> {
        Some(0)
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, io::Error> {
        Ok(None)
    }

    async fn rewind(&mut self) -> bool {
        true
    }
}

/// Uploads to `repository` what the store has of `blobs`. The result: those that upstream has taken.
///
/// Only for blobs that the repository had: what is stored for others must not be pushed to it.
pub(in crate::cache) async fn push_again(
    store: &Store,
    upstream: &UpstreamState,
    repository: &Repository,
    blobs: &[Digest],
) -> Vec<Digest> {
    let mut taken = Vec::new();
    for digest in blobs {
        let Some(blob) = log_and_ignore("open", digest, store.blob(digest).await).flatten() else { continue };
        match push(repository, upstream, digest, blob).await {
            Ok(()) => {
                tracing::info!(blob.digest = %digest, repo.name = %repository, "upstream had lost a blob, and got it again");
                taken.push(*digest);
            }
            Err(error) => {
                tracing::warn!(blob.digest = %digest, repo.name = %repository, error, "upstream has lost a blob and does not take it");
            }
        }
    }
    taken
}

async fn push(repository: &Repository, upstream: &UpstreamState, digest: &Digest, blob: Blob) -> Result<(), String> {
    let (name, headers) = (&repository.name, BodyHeaders::default());
    let begun = upstream.start_upload(name, &UploadStart::default(), &headers, &mut Nothing).await.map_err(words)?;
    let UploadAnswer::Session(session) = begun else { return Ok(()) };
    let headers = BodyHeaders { media_type: Some(HeaderValue::from_static("application/octet-stream")), range: None };
    let (end, mut body) = (UploadStep::End(digest.to_string()), Stored { blob, next: 0 });
    upstream.continue_upload(name, &session.location, &end, &headers, &mut body).await.map_err(words)?;
    Ok(())
}

fn words(error: UploadError<io::Error>) -> String {
    match error {
        UploadError::Source(error) => error.to_string(),
        UploadError::Upstream(error, _) => error.to_string(),
    }
}
