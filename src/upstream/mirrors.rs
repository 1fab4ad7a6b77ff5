//! What is read from an upstream, asked of its address first and of its mirrors, in their order, when that does not answer.
//!
//! The address is believed in everything it says. A mirror is believed in what it has: it may lag, so that its "not found" or its
//! refusal only means that the next one is asked, and in the end the outage stands as if there were no mirror. A login that is
//! refused is no reason to ask others.

use super::error::{ErrorKind, UpstreamError};
use super::list::{FetchedList, ListRequest};
use super::registry::{FetchedBlob, FetchedManifest, ManifestHead, Upstream};
use crate::oci::{Accept, Digest, Name, Reference};

impl Upstream {
    /// Asks whether a manifest is there, and which one a tag means.
    pub async fn head_manifest(&self, repository: &Name, reference: &Reference) -> Result<ManifestHead, UpstreamError> {
        self.first_to_answer(|at| async move { at.head_manifest_here(repository, reference).await }).await
    }

    /// Fetches a manifest; without `accept` as whatever type it is stored.
    pub async fn get_manifest(
        &self,
        repository: &Name,
        reference: &Reference,
        accept: &Accept,
    ) -> Result<FetchedManifest, UpstreamError> {
        self.first_to_answer(|at| async move { at.get_manifest_here(repository, reference, accept).await }).await
    }

    /// Asks whether a blob is there; the answer is its length, if that was said.
    pub async fn head_blob(&self, repository: &Name, digest: &Digest) -> Result<Option<u64>, UpstreamError> {
        self.first_to_answer(|at| async move { at.head_blob_here(repository, digest).await }).await
    }

    /// Fetches a blob, or the bytes from a first to a last one, inclusive and perhaps open.
    pub async fn get_blob(
        &self,
        repository: &Name,
        digest: &Digest,
        range: Option<(u64, Option<u64>)>,
    ) -> Result<FetchedBlob, UpstreamError> {
        self.first_to_answer(|at| async move { at.get_blob_here(repository, digest, range).await }).await
    }

    /// Fetches one page of a list.
    pub async fn get_list(&self, request: ListRequest) -> Result<FetchedList, UpstreamError> {
        let request = &request;
        self.first_to_answer(|at| async move { at.get_list_here(request.clone()).await }).await
    }

    async fn first_to_answer<'a, T, F>(&'a self, ask: impl Fn(&'a Self) -> F) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>> + 'a,
    {
        let outage = match ask(self).await {
            Err(error) if !self.mirrors().is_empty() && may_be_asked_elsewhere(&error) => error,
            result => return result,
        };
        for mirror in self.mirrors() {
            match ask(mirror).await {
                Ok(answer) => return Ok(answer),
                Err(error) => tracing::debug!(upstream = %self.name(), %error, "a mirror does not help"),
            }
        }
        Err(outage)
    }
}

fn may_be_asked_elsewhere(error: &UpstreamError) -> bool {
    error.is_outage() && !matches!(error.kind(), ErrorKind::CredentialRefused { .. })
}
