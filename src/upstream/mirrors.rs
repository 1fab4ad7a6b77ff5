//! What is read from an upstream, asked of its address first and of its mirrors, in their order, when that does not answer.
//!
//! The address is believed in everything it says. A mirror is believed in what it has: it may lag, so that its "not found" or its
//! refusal only means that the next one is asked, and in the end the outage stands as if there were no mirror. A login that is
//! refused is no reason to ask others. What the address has refused, or said to be gone, no mirror is asked for until the address has
//! given it again. Who has given wrong bytes for a content is asked last for it, for a while.

use super::answers::{BlobHead, FetchedBlob, FetchedManifest, ManifestHead};
use super::denials::Denied;
use super::error::{ErrorKind, UpstreamError};
use super::registry::Upstream;
use crate::oci::{Accept, Digest, Name, Reference};
use crate::upstream::protocol::list::{FetchedList, ListRequest};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// How long wrong bytes are held against an address …
const HELD_AGAINST: Duration = Duration::from_secs(600);
/// … and how many of them at once.
const MOST_BLAMED: usize = 256;

/// Addresses that have given wrong bytes for a content lately.
#[derive(Default)]
pub(super) struct Blamed(Mutex<VecDeque<(Digest, usize, Instant)>>);

impl Blamed {
    fn add(&self, digest: &Digest, address: usize) {
        let mut blamed = self.0.lock();
        blamed.retain(|(of, who, since)| since.elapsed() < HELD_AGAINST && !(of == digest && *who == address));
        if blamed.len() >= MOST_BLAMED {
            blamed.pop_front();
        }
        blamed.push_back((*digest, address, Instant::now()));
    }

    fn is(&self, digest: &Digest, address: usize) -> bool {
        let blamed = self.0.lock();
        blamed.iter().any(|(of, who, since)| of == digest && *who == address && since.elapsed() < HELD_AGAINST)
    }
}

impl Upstream {
    /// Asks whether a manifest is there, and which one a tag means.
    pub async fn head_manifest(&self, repository: &Name, reference: &Reference) -> Result<ManifestHead, UpstreamError> {
        let about = Some((repository, Denied::Manifest(reference.clone())));
        self.first_to_answer(about, |at| async move { at.head_manifest_here(repository, reference).await }).await
    }

    /// Fetches a manifest; without `accept` as whatever type it is stored.
    pub async fn get_manifest(
        &self,
        repository: &Name,
        reference: &Reference,
        accept: &Accept,
    ) -> Result<FetchedManifest, UpstreamError> {
        let about = Some((repository, Denied::Manifest(reference.clone())));
        self.first_to_answer(about, |at| async move { at.get_manifest_here(repository, reference, accept).await }).await
    }

    /// Asks whether a blob is there.
    pub async fn head_blob(&self, repository: &Name, digest: &Digest) -> Result<BlobHead, UpstreamError> {
        let about = Some((repository, Denied::Blob(*digest)));
        self.first_to_answer(about, |at| async move { at.head_blob_here(repository, digest).await }).await
    }

    /// Fetches a blob, or the bytes from a first to a last one, inclusive and perhaps open.
    pub async fn get_blob(
        &self,
        repository: &Name,
        digest: &Digest,
        range: Option<(u64, Option<u64>)>,
    ) -> Result<FetchedBlob, UpstreamError> {
        self.get_blob_from(0, repository, digest, range).await
    }

    /// The same, of the address with the number `first` before the others ([`FetchedBlob::address`]): for who has had enough of those
    /// before it, which have shown that the repository may be read.
    pub async fn get_blob_from(
        &self,
        first: usize,
        repository: &Name,
        digest: &Digest,
        range: Option<(u64, Option<u64>)>,
    ) -> Result<FetchedBlob, UpstreamError> {
        let count = self.mirrors().len() + 1;
        let mut order: Vec<usize> = (0..count).map(|step| (first + step) % count).collect();
        order.sort_by_key(|address| self.blamed().is(digest, *address));
        let ask = |at: &'_ Self| {
            let at = at.clone();
            async move { at.get_blob_here(repository, digest, range).await }
        };
        let (address, fetched) = self.first_of(&order, Some((repository, Denied::Blob(*digest))), ask).await?;
        Ok(FetchedBlob { address, ..fetched })
    }

    /// The bytes that an address gave are not the content's: it is asked last for it from now on.
    pub fn blame(&self, digest: &Digest, address: usize) {
        if !self.mirrors().is_empty() {
            tracing::warn!(blob.digest = %digest, from = self.address(address), "wrong bytes: others are asked first for it now");
            self.blamed().add(digest, address);
        }
    }

    /// Whether there is an address that has not given wrong bytes for this content.
    #[must_use]
    pub fn has_another(&self, digest: &Digest) -> bool {
        !self.mirrors().is_empty() && (0..=self.mirrors().len()).any(|address| !self.blamed().is(digest, address))
    }

    /// What an address is called in messages.
    #[must_use]
    pub fn address(&self, address: usize) -> &str {
        let mirror = address.checked_sub(1).and_then(|number| self.mirrors().get(number));
        mirror.unwrap_or(self).shown()
    }

    /// Fetches one page of a list.
    pub async fn get_list(&self, request: ListRequest) -> Result<FetchedList, UpstreamError> {
        let request = &request;
        let about = request.repository().map(|repository| (repository, Denied::Repository));
        self.first_to_answer(about, |at| async move { at.get_list_here(request.clone()).await }).await
    }

    async fn first_to_answer<'a, T, F>(
        &'a self,
        about: Option<(&Name, Denied)>,
        ask: impl Fn(&'a Self) -> F,
    ) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>> + 'a,
    {
        let order: Vec<usize> = (0..=self.mirrors().len()).collect();
        self.first_of(&order, about, ask).await.map(|(_, answer)| answer)
    }

    /// Asks the addresses in this order, of which 0 is its own and one of them; and which one has answered.
    async fn first_of<'a, T, F>(
        &'a self,
        order: &[usize],
        about: Option<(&Name, Denied)>,
        ask: impl Fn(&'a Self) -> F,
    ) -> Result<(usize, T), UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>> + 'a,
    {
        let denied = || about.as_ref().is_some_and(|(repository, what)| self.denials().stands(repository, what));
        let mut outage = None;
        for address in order {
            let mirror = address.checked_sub(1).and_then(|number| self.mirrors().get(number));
            if mirror.is_some() && denied() {
                continue;
            }
            let answer = ask(mirror.unwrap_or(self)).await;
            if let (None, Some((repository, what)), true) = (mirror, &about, order.len() > 1) {
                self.denials().note(repository, what, &answer);
            }
            match (answer, mirror) {
                (Ok(answer), _) => return Ok((*address, answer)),
                (Err(error), None) if order.len() == 1 || !may_be_asked_elsewhere(&error) => return Err(error),
                (Err(error), None) => outage = Some(error),
                (Err(error), Some(_)) => tracing::debug!(upstream = %self.name(), %error, "a mirror does not help"),
            }
        }
        match outage {
            Some(outage) => Err(outage),
            None => ask(self).await.map(|answer| (0, answer)),
        }
    }
}

fn may_be_asked_elsewhere(error: &UpstreamError) -> bool {
    error.is_outage() && !matches!(error.kind(), ErrorKind::CredentialRefused { .. })
}
