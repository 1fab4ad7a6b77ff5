//! Answers to requests for blobs: from the store, from a fill under way, or from upstream.

use super::answer::{BlobAnswer, Content};
use super::query::{BlobQuery, from_file, is_sound};
use crate::cache::epochs::Epoch;
use crate::cache::error::CacheError;
use crate::cache::fill::{Fill, Fills, Opened};
use crate::cache::log::log_and_ignore;
use crate::cache::negative::{Negatives, Object};
use crate::cache::offline_misses::OfflineMisses;
use crate::cache::provenance::Provenance;
use crate::cache::single_flight::SingleFlight;
use crate::cache::tasks::Tasks;
use crate::cache::view::RepositoryView;
use crate::cache::vouch::{Standing, Vouch};
use crate::oci::{Code, Digest, Reference, Repository};
use crate::store::{Member, Store};
use crate::telemetry::CacheStatus;
use crate::upstream::{BlobHead, UpstreamError};
use std::sync::Arc;

/// How often an answer is tried again because the state of things changed under it.
const TRIES: u32 = 4;

/// Answers requests for blobs.
#[derive(Debug)]
pub(in crate::cache) struct Blobs {
    pub(in crate::cache) store: Store,
    pub(in crate::cache) vouch: Arc<Vouch>,
    pub(in crate::cache) fills: Fills,
    pub(in crate::cache) negatives: Arc<Negatives>,
    pub(in crate::cache) heads: SingleFlight<((Repository, Epoch), Digest), Result<BlobHead, UpstreamError>>,
    pub(in crate::cache) misses: Arc<OfflineMisses>,
    pub(in crate::cache) tasks: Arc<Tasks>,
}

/// One request for a blob.
pub(super) struct BlobRequest<'a> {
    pub(super) view: RepositoryView,
    pub(super) digest: &'a Digest,
    pub(super) query: BlobQuery<'a>,
    /// Why the repository has the blob, as far as is known here.
    pub(super) member: Option<Member>,
}

/// How one try to answer by way of a fill ended.
pub(super) enum Attempt {
    Done(BlobAnswer),
    /// The fill failed for the reasons of others, which are no answer to this request.
    OthersFailed,
}

impl Blobs {
    /// The blob, or what is wanted of it.
    pub(in crate::cache) async fn get(
        &self,
        view: RepositoryView,
        digest: &Digest,
        query: BlobQuery<'_>,
    ) -> Result<BlobAnswer, CacheError> {
        if view.is_denied() {
            view.upstream.head_blob(view.repository(), digest).await?;
        }
        let mut tries = 0;
        loop {
            // What was said of an earlier try may be over by now.
            let view = view.renewed();
            let member = self.member(&view, digest).await;
            let request = BlobRequest { view, digest, query, member };
            if member.is_none()
                && let Some(absence) = self.negatives.recall(&request.view, Object::Blob(*digest))
            {
                return Err(absence.into());
            }
            if let Some(answer) = self.stored(&request).await? {
                return Ok(answer);
            }
            let upstream = &request.view.upstream;
            if upstream.sealed {
                let reference = Reference::Digest(*digest);
                return Err(self.misses.refuse(request.view.repository(), &reference, Code::BlobUnknown));
            }
            if let BlobQuery::Head = query {
                return self.head(&request).await;
            }
            match self.filled(&request).await {
                Ok(Attempt::Done(answer)) => return Ok(answer),
                Ok(Attempt::OthersFailed) if tries >= TRIES => {
                    return Err(CacheError::OthersFailed { digest: *digest });
                }
                Ok(Attempt::OthersFailed) => {}
                // Nothing has gone out yet, and another address may have the right bytes.
                Err(CacheError::Mismatch { .. }) if tries < TRIES && upstream.has_another(digest) => {}
                Err(error) => return Err(error),
            }
            tries += 1;
        }
    }

    /// Why the repository has the blob: what links say, or upstream has just given it to a fill that will write one.
    async fn member(&self, view: &RepositoryView, digest: &Digest) -> Option<Member> {
        // In this order: a fill leaves the list after it has written its links.
        let fill = self.fills.running(&view.repository().registry, digest);
        let proven = fill.is_some_and(|fill| fill.candidates.is_proven(view));
        if proven { Some(Member::Own) } else { self.vouch.membership(view.repository(), digest).await }
    }

    /// From the store, if the bytes are there and may answer for the repository.
    async fn stored(&self, request: &BlobRequest<'_>) -> Result<Option<BlobAnswer>, CacheError> {
        let BlobRequest { view, digest, query, member } = request;
        let blob = log_and_ignore("open", digest, self.store.blob(digest).await).flatten();
        let blob = blob.map(|blob| Opened { file: blob.file().clone(), length: blob.len() }).or_else(|| {
            // What has just been pushed may still be on the way to its place.
            let pending = self.vouch.pending.get(digest)?;
            Some(Opened { file: pending.file, length: pending.length })
        });
        let Some(blob) = blob else { return Ok(None) };
        let status = match self.vouch.standing(view.repository(), digest, *member).await {
            Standing::Vouched => CacheStatus::Hit,
            Standing::Doubtful if !view.upstream.sealed && self.decide(request, Some(blob.length)).await? => {
                CacheStatus::Revalidated
            }
            Standing::Doubtful | Standing::Foreign => return Ok(None),
        };
        let answer = from_file(digest, blob, *query, Provenance::new(status))?;
        // Damage that is found now costs this reader nothing: the answer comes from upstream instead.
        let sound = is_sound(digest, &answer.content, self.store.is_well()).await;
        Ok(sound.then_some(answer))
    }

    /// Whether the repository has these bytes, which came through another one, by upstream's word. A word that nothing confirms as a
    /// registry's is none: then the bytes have to come from there.
    pub(super) async fn decide(&self, request: &BlobRequest<'_>, length: Option<u64>) -> Result<bool, CacheError> {
        let head = self.upstream_head(request).await?;
        let vouched = head.speaks && length.is_none_or(|length| head.vouches_for(length));
        if vouched {
            self.vouch.link_blob(&request.view, request.digest).await;
        } else {
            tracing::debug!(
                blob.digest = %request.digest, repo.name = %request.view.repository(), ?head,
                "upstream does not say as a registry does that it has these bytes: they are asked for"
            );
        }
        Ok(vouched)
    }

    /// One HEAD under way per blob and repository.
    pub(super) async fn upstream_head(&self, request: &BlobRequest<'_>) -> Result<BlobHead, CacheError> {
        let (negatives, view, digest) = (Arc::clone(&self.negatives), request.view.clone(), *request.digest);
        let waiter = self.heads.join((view.key(), digest), &self.tasks, || async move {
            let result = view.upstream.head_blob(view.repository(), &digest).await;
            if let Err(error) = &result {
                negatives.note_absence(&view, Object::Blob(digest), error).await;
            }
            result
        });
        waiter.answer().await
    }

    async fn head(&self, request: &BlobRequest<'_>) -> Result<BlobAnswer, CacheError> {
        let fill = self.fills.running(&request.view.repository().registry, request.digest);
        let fill = fill.filter(|fill| self.may_follow(request, fill));
        let (length, status) = match fill.and_then(|fill| fill.length()) {
            Some(length) => (Some(length), CacheStatus::Coalesced),
            None => (self.upstream_head(request).await?.length, CacheStatus::Miss),
        };
        let mut provenance = Provenance::new(status);
        provenance.stored = status == CacheStatus::Coalesced;
        let content = if length.is_some() { Content::Nothing } else { Content::Unmeasured };
        Ok(BlobAnswer { length: length.unwrap_or_default(), range: None, content, provenance })
    }

    /// Whether what a fill brings may answer this request, without a question upstream.
    pub(super) fn may_follow(&self, request: &BlobRequest<'_>, fill: &Fill) -> bool {
        let BlobRequest { view, member, .. } = request;
        match member {
            Some(Member::Own) => true,
            Some(Member::Named) => {
                let speaks = |giver: &RepositoryView| self.vouch.speaks_for(giver.repository(), view.repository());
                fill.candidates.proven().iter().any(speaks)
            }
            None => fill.candidates.is_proven(view),
        }
    }
}
