//! Answers to requests for blobs: from the store, from a fill under way, or from upstream.

use crate::cache::answer::{BlobAnswer, Content, Provenance};
use crate::cache::blob::multi_range::{MultiRange, OWN_REQUESTS};
use crate::cache::blob::query::{BlobQuery, Selection, begins_sound, from_file, resolve};
use crate::cache::blob::vouch::Standing;
use crate::cache::epochs::Epoch;
use crate::cache::error::CacheError;
use crate::cache::fill::candidates::{Candidate, Candidates};
use crate::cache::fill::download::Download;
use crate::cache::fill::transfer::Transfer;
use crate::cache::fill::{End, Fill, Follower, HELD_BACK, Opened};
use crate::cache::negative::Object;
use crate::cache::upstream_state::state::UpstreamState;
use crate::cache::{Cache, Inner, log_and_ignore};
use crate::oci::{ByteRange, Code, Digest, Reference, Repository};
use crate::store::Member;
use crate::telemetry::CacheStatus;
use crate::upstream::{BlobHead, Relayed, UpstreamError, current_caller};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// On a blob of up to this many bytes, a range waits for the digest instead …
const SMALL: u64 = 8 << 20;
/// … for at most this long.
const VERIFY_WAIT: Duration = Duration::from_secs(1);
/// How often an answer is tried again because the state of things changed under it.
const TRIES: u32 = 4;

/// One request for a blob.
struct BlobRequest<'a> {
    repository: &'a Repository,
    digest: &'a Digest,
    want: BlobQuery<'a>,
    upstream: &'a Arc<UpstreamState>,
    /// Why the repository has the blob, as far as is known here.
    member: Option<Member>,
    /// When that was found out.
    epoch: Epoch,
}

impl Cache {
    /// The blob, or what is wanted of it.
    pub async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        want: BlobQuery<'_>,
    ) -> Result<BlobAnswer, CacheError> {
        let upstream = self.0.upstream(repository)?;
        if upstream.is_denied(repository) {
            upstream.ask(Some(repository), upstream.client.head_blob(&repository.name, digest)).await?;
        }
        let mut tries = 0;
        loop {
            let epoch = self.0.epochs.current(repository);
            let member = self.0.member(repository, digest, epoch).await;
            let request = BlobRequest { repository, digest, want, upstream, member, epoch };
            if member.is_none()
                && let Some(absence) = self.0.negatives.recall(repository, Object::Blob(*digest))
            {
                return Err(absence.into());
            }
            if let Some(answer) = self.stored(&request).await? {
                return Ok(answer);
            }
            if upstream.sealed {
                return Err(self.0.sealed(repository, &Reference::Digest(*digest), Code::BlobUnknown));
            }
            if let BlobQuery::Head = want {
                return self.head(&request).await;
            }
            match self.filled(&request).await {
                // Another repository's failure is not this one's answer.
                Err(CacheError::Aborted) if tries < TRIES => tries += 1,
                // Nothing has gone out yet, and another address may have the right bytes.
                Err(CacheError::Mismatch { .. }) if tries < TRIES && upstream.client.has_another(digest) => tries += 1,
                result => return result,
            }
        }
    }

    /// From the store, if the bytes are there and may answer for the repository.
    async fn stored(&self, request: &BlobRequest<'_>) -> Result<Option<BlobAnswer>, CacheError> {
        let blob = log_and_ignore("open", request.digest, self.0.store.blob(request.digest).await).flatten();
        let blob = blob.map(|blob| (blob.file().clone(), blob.len())).or_else(|| {
            // What has just been pushed may still be on the way to its place.
            let pending = self.0.uploads.pending_commits.get(request.digest)?;
            Some((pending.file, pending.length))
        });
        let Some((file, length)) = blob else { return Ok(None) };
        let status = match self.0.standing(request.repository, request.digest, request.member).await {
            Standing::Vouched => CacheStatus::Hit,
            Standing::Doubtful if !request.upstream.sealed && self.decide(request, Some(length)).await? => {
                CacheStatus::Revalidated
            }
            Standing::Doubtful | Standing::Foreign => return Ok(None),
        };
        let answer = from_file(request.digest, &file, length, request.want, Provenance::new(status))?;
        // Damage that is found now costs this reader nothing: the answer comes from upstream instead.
        let well = self.0.store.is_well();
        let sound = match &answer.content {
            Content::File(file, range) => begins_sound(request.digest, file, &[*range], well).await,
            Content::Ranges(parts) => match parts.file() {
                Some(file) => begins_sound(request.digest, file, parts.ranges(), well).await,
                None => true,
            },
            _ => true,
        };
        Ok(sound.then_some(answer))
    }

    /// Whether the repository has these bytes, which came through another one, by upstream's word. A word that nobody can rely on is
    /// none: then the bytes have to come from there.
    async fn decide(&self, request: &BlobRequest<'_>, length: Option<u64>) -> Result<bool, CacheError> {
        let head = self.upstream_head(request).await?;
        let vouched = head.speaks && length.is_none_or(|length| head.vouches_for(length));
        if vouched {
            self.0.link_blob(request.repository, request.digest, request.epoch).await;
        } else {
            tracing::debug!(
                blob.digest = %request.digest, repo.name = %request.repository, ?head,
                "upstream does not say as a registry does that it has these bytes: they are request for"
            );
        }
        Ok(vouched)
    }

    /// One HEAD under way per blob and repository.
    async fn upstream_head(&self, request: &BlobRequest<'_>) -> Result<BlobHead, CacheError> {
        let key = (request.repository.clone(), *request.digest, request.epoch);
        let (inner, upstream) = (Arc::clone(&self.0), Arc::clone(request.upstream));
        let (repository, digest, begun) = key.clone();
        let waiter = self.0.head_flights.join(key, &self.0.tasks, || async move {
            let head = upstream.client.head_blob(&repository.name, &digest);
            let result = upstream.ask(Some(&repository), head).await;
            if let Err(error) = &result {
                inner.note_absence(&repository, Object::Blob(digest), error, begun).await;
            }
            result
        });
        Ok(waiter.result().await.ok_or(CacheError::Aborted)??)
    }

    async fn head(&self, request: &BlobRequest<'_>) -> Result<BlobAnswer, CacheError> {
        let fill = self.0.fills.running(&request.repository.registry, request.digest);
        let fill = fill.filter(|fill| self.0.may_follow(request, fill));
        let opened = fill.and_then(|fill| fill.progress.now(|progress| progress.opened.clone()));
        let (length, status) = match opened {
            Some(opened) => (Some(opened.length), CacheStatus::Coalesced),
            None => (self.upstream_head(request).await?.length, CacheStatus::Miss),
        };
        let mut provenance = Provenance::new(status);
        provenance.stored = status == CacheStatus::Coalesced;
        let content = if length.is_some() { Content::Nothing } else { Content::Unmeasured };
        Ok(BlobAnswer { length: length.unwrap_or_default(), range: None, content, provenance })
    }

    /// By way of the one fill of this digest from the registry.
    async fn filled(&self, request: &BlobRequest<'_>) -> Result<BlobAnswer, CacheError> {
        let epoch = request.epoch;
        let candidate = || Candidate {
            upstream: Arc::clone(request.upstream),
            repository: request.repository.clone(),
            caller: request.upstream.client.is_asked_as_callers().then(current_caller).flatten(),
            member: request.member == Some(Member::Own),
            epoch,
        };
        let (fill, first) = self.0.fills.join(&self.0, request.digest, candidate())?;
        if request.member == Some(Member::Own) && !first {
            fill.candidates.add(candidate());
        }
        let (opened, end) = fill.opened().await;
        // The upstream's answer to the fill is its answer to this repository, if it was request for it.
        if !self.0.may_follow(request, &fill) {
            if let Some(refusal) = fill.candidates.refusal(request.repository, epoch) {
                self.note_absence(request, &refusal).await;
                return Err(refusal.into());
            }
            if !self.decide(request, opened.as_ref().map(|opened| opened.length)).await? {
                return self.bypass(request, &Arc::new(Candidates::of(candidate())), None).await;
            }
        }
        if !first {
            fill.candidates.add(candidate());
        }
        let status = if first { CacheStatus::Miss } else { CacheStatus::Coalesced };
        let provenance = Provenance::new(status).relayed(fill.relayed.get().unwrap_or(&Relayed::default()));
        match (opened, end) {
            (opened, Some(end)) => self.ended(request, &fill, opened, end, provenance).await,
            (Some(opened), None) => self.follow(request, &fill, opened, provenance).await,
            (None, None) => Err(CacheError::Aborted),
        }
    }

    /// A fill that failed for others' reasons alone is to be tried anew.
    async fn failure(&self, request: &BlobRequest<'_>, fill: &Fill, error: CacheError) -> CacheError {
        match fill.candidates.refusal(request.repository, request.epoch) {
            Some(refusal) => {
                self.note_absence(request, &refusal).await;
                refusal.into()
            }
            None if matches!(error, CacheError::Upstream(_))
                && !fill.candidates.is_proven(request.repository, request.epoch) =>
            {
                CacheError::Aborted
            }
            None => error,
        }
    }

    async fn note_absence(&self, request: &BlobRequest<'_>, refusal: &UpstreamError) {
        self.0.note_absence(request.repository, Object::Blob(*request.digest), refusal, request.epoch).await;
    }

    async fn follow(
        &self,
        request: &BlobRequest<'_>,
        fill: &Arc<Fill>,
        opened: Opened,
        provenance: Provenance,
    ) -> Result<BlobAnswer, CacheError> {
        let Opened { file, length } = opened;
        let Ok(wanted) = resolve(request.want, length) else {
            // Nobody has verified that length: that the range lies outside can be said once it is.
            return self.ended(request, fill, Some(Opened { file, length }), fill.ended().await, provenance).await;
        };
        if length <= HELD_BACK {
            let opened = Some(Opened { file, length });
            return self.ended(request, fill, opened, fill.ended().await, provenance).await;
        }
        let reached = match &wanted {
            Selection::Range(range) => fill.gets_to(range.start).await,
            Selection::Whole | Selection::Ranges(_) => true,
        };
        if !matches!(wanted, Selection::Whole)
            && length <= SMALL
            && let Ok(end) = timeout(VERIFY_WAIT, fill.ended()).await
        {
            return self.ended(request, fill, Some(Opened { file, length }), end, provenance).await;
        }
        let mut provenance = provenance;
        let range = match wanted {
            Selection::Whole => None,
            Selection::Range(range) => Some(range),
            Selection::Ranges(ranges) => {
                let parts = MultiRange::filling(fill, Opened { file, length }, ranges);
                let provenance = provenance.unverified();
                return Ok(BlobAnswer { length, range: None, content: Content::Ranges(Box::new(parts)), provenance });
            }
        };
        let wanted = range.unwrap_or(ByteRange { start: 0, end: length });
        if range.is_some() {
            if !reached && let Ok(permit) = Arc::clone(&fill.beside).try_acquire_owned() {
                let mut download = Download::of_range(*request.digest, Arc::clone(&fill.candidates), wanted);
                download.open().await?;
                let relayed = download.relayed().clone();
                let transfer = Transfer::of_range(download, wanted).holding(permit);
                let provenance = Provenance::new(CacheStatus::Bypass).relayed(&relayed).unverified();
                return Ok(BlobAnswer { length, range, content: Content::Transfer(Box::new(transfer)), provenance });
            }
            if wanted.end <= length - HELD_BACK {
                provenance = provenance.unverified();
            }
        }
        let follower = Follower::new(fill, Opened { file, length }, wanted);
        Ok(BlobAnswer { length, range, content: Content::Follow(Box::new(follower)), provenance })
    }

    /// The answer once it is known how the fill ended.
    async fn ended(
        &self,
        request: &BlobRequest<'_>,
        fill: &Fill,
        opened: Option<Opened>,
        end: End,
        provenance: Provenance,
    ) -> Result<BlobAnswer, CacheError> {
        match end {
            End::Verified => {
                let Opened { file, length } = opened.ok_or(CacheError::Aborted)?;
                from_file(request.digest, &file, length, request.want, provenance)
            }
            End::Failed(error) => Err(self.failure(request, fill, error).await),
            End::Bypassed(spare) => {
                let spare = spare.lock().take();
                self.bypass(request, &fill.candidates, spare).await
            }
        }
    }

    /// A download for this reader alone. `spare` is the fill's own, at its first byte, if nobody has taken it.
    async fn bypass(
        &self,
        request: &BlobRequest<'_>,
        candidates: &Arc<Candidates>,
        spare: Option<Download>,
    ) -> Result<BlobAnswer, CacheError> {
        let is_open = spare.is_some();
        let mut download = spare.unwrap_or_else(|| Download::new(*request.digest, Arc::clone(candidates), 0));
        if !is_open {
            download.open().await?;
        }
        download.learn_length().await;
        let length = download.length().ok_or_else(|| download.mismatch("no length, to HEAD and to GET"))?;
        let wanted = match resolve(request.want, length) {
            Ok(wanted) => wanted,
            // Nobody will verify that length: the registry is log_and_ignore, too, before the range is refused.
            Err(refused) => {
                let said = self.upstream_head(request).await?.length;
                let differs = said.is_some_and(|said| said != length);
                return Err(if differs { download.mismatch("another length to GET than to HEAD") } else { refused });
            }
        };
        let provenance = Provenance::new(CacheStatus::Bypass).relayed(download.relayed());
        match wanted {
            Selection::Range(range) => {
                let mut part = Download::of_range(*request.digest, Arc::clone(candidates), range);
                part.open().await?;
                let content = Content::Transfer(Box::new(Transfer::of_range(part, range)));
                Ok(BlobAnswer { length, range: Some(range), content, provenance: provenance.unverified() })
            }
            Selection::Ranges(ranges) if ranges.len() <= OWN_REQUESTS => {
                let parts = MultiRange::passing(*request.digest, Arc::clone(candidates), length, ranges);
                let (content, provenance) = (Content::Ranges(Box::new(parts)), provenance.unverified());
                Ok(BlobAnswer { length, range: None, content, provenance })
            }
            // One request for all of it is better than very many.
            Selection::Whole | Selection::Ranges(_) => {
                let mut transfer = Transfer::verified(download, *request.digest, ByteRange { start: 0, end: length });
                let content = if length <= HELD_BACK {
                    Content::Memory(transfer.collect().await?)
                } else {
                    Content::Transfer(Box::new(transfer))
                };
                Ok(BlobAnswer { length, range: None, content, provenance })
            }
        }
    }
}

impl Inner {
    /// Why the repository has the blob: what links say, or upstream has just given it to a fill that will write one.
    async fn member(&self, repository: &Repository, digest: &Digest, now: Epoch) -> Option<Member> {
        // In this order: a fill leaves the list after it has written its links.
        let fill = self.fills.running(&repository.registry, digest);
        let proven = fill.is_some_and(|fill| fill.candidates.is_proven(repository, now));
        if proven { Some(Member::Own) } else { self.membership(repository, digest).await }
    }

    /// Whether what a fill brings may go to who request, without a question upstream.
    fn may_follow(&self, request: &BlobRequest<'_>, fill: &Fill) -> bool {
        let BlobRequest { repository, epoch, .. } = request;
        match request.member {
            Some(Member::Own) => true,
            Some(Member::Named) => fill.candidates.proven().iter().any(|(giver, _)| self.speaks_for(giver, repository)),
            None => fill.candidates.is_proven(repository, *epoch),
        }
    }

    /// Notes that upstream has the blob for `repository`, unless it answers there anyway or there was a write since upstream was
    /// request.
    pub(in crate::cache) async fn link_blob(&self, repository: &Repository, digest: &Digest, begun: Epoch) {
        let Some(_keeping) = self.epochs.keep(repository, begun).await else { return };
        self.negatives.forget(repository, Object::Blob(*digest));
        if !self.is_vouched(repository, digest).await {
            log_and_ignore("link", digest, self.store.link_blob(repository, digest).await);
        }
    }
}
