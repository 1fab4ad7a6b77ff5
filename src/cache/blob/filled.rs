//! Answers by way of a fill, and by transfers of their own where nothing can be stored.

use super::answer::{BlobAnswer, Content};
use super::blobs::{Attempt, BlobRequest, Blobs};
use super::multi_range::{MultiRange, OWN_REQUESTS};
use super::query::{Selection, from_file, resolve};
use super::range::{Way, way_to};
use crate::cache::error::CacheError;
use crate::cache::fill::{Candidate, Candidates, Download, End, Fill, Follower, HELD_BACK, Met, Opened, Transfer};
use crate::cache::negative::Object;
use crate::cache::provenance::Provenance;
use crate::oci::ByteRange;
use crate::store::Member;
use crate::telemetry::CacheStatus;
use crate::upstream::{Relayed, UpstreamError, current_caller};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// On a blob of up to this many bytes, a range waits for the digest instead …
const SMALL: u64 = 8 << 20;
/// … for at most this long.
const VERIFY_WAIT: Duration = Duration::from_secs(1);

impl Blobs {
    /// By way of the one fill of this digest from the registry.
    pub(super) async fn filled(&self, request: &BlobRequest<'_>) -> Result<Attempt, CacheError> {
        let BlobRequest { view, digest, member, .. } = request;
        let is_own = *member == Some(Member::Own);
        let caller = view.upstream.is_asked_as_callers().then(current_caller).flatten();
        let candidate = Candidate { view: view.clone(), caller, member: is_own };
        let (fill, first) = self.fills.join(digest, candidate.clone())?;
        if is_own && !first {
            fill.candidates.add(candidate.clone());
        }
        let met = fill.met().await;
        // The upstream's answer to the fill is its answer to this repository, if it was asked for it.
        if !self.may_follow(request, &fill) {
            if let Some(refusal) = fill.candidates.refusal(view) {
                return Err(self.refused(request, refusal).await);
            }
            let length = match &met {
                Met::Open(opened) => Some(opened.length),
                Met::Ended(_, length) => *length,
            };
            if !self.decide(request, length).await? {
                let own = Arc::new(Candidates::of(candidate));
                return self.bypass(request, &own, None).await.map(Attempt::Done);
            }
        }
        if !first {
            fill.candidates.add(candidate);
        }
        let status = if first { CacheStatus::Miss } else { CacheStatus::Coalesced };
        let provenance = Provenance::new(status).relayed(fill.relayed.get().unwrap_or(&Relayed::default()));
        match met {
            Met::Open(opened) => self.follow(request, &fill, opened, provenance).await,
            Met::Ended(end, _) => self.ended(request, &fill, end, provenance).await,
        }
    }

    /// Upstream's own word to this repository.
    async fn refused(&self, request: &BlobRequest<'_>, refusal: UpstreamError) -> CacheError {
        self.negatives.note_absence(&request.view, Object::Blob(*request.digest), &refusal).await;
        refusal.into()
    }

    async fn follow(
        &self,
        request: &BlobRequest<'_>,
        fill: &Arc<Fill>,
        opened: Opened,
        provenance: Provenance,
    ) -> Result<Attempt, CacheError> {
        let length = opened.length;
        let Ok(selection) = resolve(request.query, length) else {
            // Nothing has verified that length: that the range lies outside can be said once it is.
            return self.ended(request, fill, fill.ended().await, provenance).await;
        };
        if length <= HELD_BACK {
            return self.ended(request, fill, fill.ended().await, provenance).await;
        }
        if !matches!(selection, Selection::Whole)
            && length <= SMALL
            && let Ok(end) = timeout(VERIFY_WAIT, fill.ended()).await
        {
            return self.ended(request, fill, end, provenance).await;
        }
        let (range, content, provenance) = match selection {
            Selection::Whole => {
                let follower = Follower::new(fill, opened, ByteRange { start: 0, end: length });
                (None, Content::Follow(Box::new(follower)), provenance)
            }
            Selection::Ranges(ranges) => {
                let parts = MultiRange::filling(fill, opened, ranges);
                (None, Content::Ranges(Box::new(parts)), provenance.unverified())
            }
            Selection::Range(range) => match way_to(fill, &opened, range, true).await? {
                Way::Ended(end) => return self.ended(request, fill, end, provenance).await,
                Way::Own(transfer) => {
                    let provenance = Provenance::new(CacheStatus::Bypass).relayed(transfer.relayed()).unverified();
                    (Some(range), Content::Transfer(transfer), provenance)
                }
                Way::Follow(follower) => {
                    let is_held = range.end > length - HELD_BACK;
                    let provenance = if is_held { provenance } else { provenance.unverified() };
                    (Some(range), Content::Follow(follower), provenance)
                }
            },
        };
        Ok(Attempt::Done(BlobAnswer { length, range, content, provenance }))
    }

    /// The answer once it is known how the fill ended.
    async fn ended(
        &self,
        request: &BlobRequest<'_>,
        fill: &Fill,
        end: End,
        provenance: Provenance,
    ) -> Result<Attempt, CacheError> {
        let error = match end {
            End::Verified(opened) => {
                return from_file(request.digest, opened, request.query, provenance).map(Attempt::Done);
            }
            End::Bypassed(spare) => {
                let spare = spare.lock().take();
                return self.bypass(request, &fill.candidates, spare).await.map(Attempt::Done);
            }
            End::Failed(error) => error,
        };
        if let Some(refusal) = fill.candidates.refusal(&request.view) {
            return Err(self.refused(request, refusal).await);
        }
        let others = matches!(error, CacheError::Upstream(_)) && !fill.candidates.is_proven(&request.view);
        if others { Ok(Attempt::OthersFailed) } else { Err(error) }
    }

    /// A download for this reader alone. `spare` is the fill's own, at its first byte, if no reader has taken it.
    async fn bypass(
        &self,
        request: &BlobRequest<'_>,
        candidates: &Arc<Candidates>,
        spare: Option<Download>,
    ) -> Result<BlobAnswer, CacheError> {
        let digest = *request.digest;
        let is_open = spare.is_some();
        let mut download = spare.unwrap_or_else(|| Download::new(digest, Arc::clone(candidates), 0));
        if !is_open {
            download.open().await?;
        }
        download.learn_length().await;
        let length = download.length().ok_or_else(|| download.mismatch("no length, to HEAD and to GET"))?;
        let selection = match resolve(request.query, length) {
            Ok(selection) => selection,
            Err(refused) => return Err(self.outside(request, &download, length, refused).await),
        };
        let provenance = Provenance::new(CacheStatus::Bypass).relayed(download.relayed());
        let (range, content, provenance) = match selection {
            Selection::Range(range) => {
                let part = Transfer::of_range(digest, candidates, range).await?;
                (Some(range), Content::Transfer(Box::new(part)), provenance.unverified())
            }
            Selection::Ranges(ranges) if ranges.len() <= OWN_REQUESTS => {
                let parts = MultiRange::passing(digest, Arc::clone(candidates), length, ranges);
                (None, Content::Ranges(Box::new(parts)), provenance.unverified())
            }
            // One request for all of it is better than very many.
            Selection::Whole | Selection::Ranges(_) => {
                let mut transfer = Transfer::verified(download, digest, ByteRange { start: 0, end: length });
                let content = if length <= HELD_BACK {
                    Content::Memory(transfer.collect().await?)
                } else {
                    Content::Transfer(Box::new(transfer))
                };
                (None, content, provenance)
            }
        };
        Ok(BlobAnswer { length, range, content, provenance })
    }

    /// A range lies outside a length that nothing will verify: what the registry says to HEAD is compared before the range is
    /// refused.
    async fn outside(
        &self,
        request: &BlobRequest<'_>,
        download: &Download,
        length: u64,
        refused: CacheError,
    ) -> CacheError {
        match self.upstream_head(request).await {
            Err(error) => error,
            Ok(head) if head.length.is_some_and(|said| said != length) => {
                download.mismatch("another length to GET than to HEAD")
            }
            Ok(_) => refused,
        }
    }
}
