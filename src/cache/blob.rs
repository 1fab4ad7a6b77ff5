//! Answers to requests for blobs: from the store, from a fill under way, or from upstream.

use super::answer::{BlobAnswer, Content, Provenance};
use super::download::Download;
use super::error::CacheError;
use super::fill::{End, Fill, Follower, HELD_BACK, Opened};
use super::generations::Generation;
use super::negative::Object;
use super::outlook::Outlook;
use super::parts::{OWN_REQUESTS, Parts};
use super::sources::{Source, Sources};
use super::transfer::Transfer;
use super::vouch::Standing;
use super::want::{Want, Wanted, begins_sound, from_file, resolve};
use super::{Cache, Inner, heard};
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
struct Asked<'a> {
    repository: &'a Repository,
    digest: &'a Digest,
    want: Want<'a>,
    outlook: &'a Arc<Outlook>,
    /// Why the repository has the blob, as far as is known here.
    member: Option<Member>,
    /// When that was found out.
    generation: Generation,
}

impl Cache {
    /// The blob, or what is wanted of it.
    pub async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        want: Want<'_>,
    ) -> Result<BlobAnswer, CacheError> {
        let outlook = self.0.outlook(repository)?;
        if outlook.is_withdrawn(repository) {
            outlook.ask(Some(repository), outlook.upstream.head_blob(&repository.name, digest)).await?;
        }
        let mut tries = 0;
        loop {
            let generation = self.0.generations.current(repository);
            let member = self.0.member(repository, digest, generation).await;
            let asked = Asked { repository, digest, want, outlook, member, generation };
            if member.is_none()
                && let Some(absence) = self.0.negatives.recall(repository, Object::Blob(*digest))
            {
                return Err(absence.into());
            }
            if let Some(answer) = self.stored(&asked).await? {
                return Ok(answer);
            }
            if outlook.sealed {
                return Err(self.0.sealed(repository, &Reference::Digest(*digest), Code::BlobUnknown));
            }
            if let Want::Head = want {
                return self.head(&asked).await;
            }
            match self.filled(&asked).await {
                // Another repository's failure is not this one's answer.
                Err(CacheError::Aborted) if tries < TRIES => tries += 1,
                // Nothing has gone out yet, and another address may have the right bytes.
                Err(CacheError::Mismatch { .. }) if tries < TRIES && outlook.upstream.has_another(digest) => tries += 1,
                result => return result,
            }
        }
    }

    /// From the store, if the bytes are there and may answer for the repository.
    async fn stored(&self, asked: &Asked<'_>) -> Result<Option<BlobAnswer>, CacheError> {
        let blob = heard("open", asked.digest, self.0.store.blob(asked.digest).await).flatten();
        let blob = blob.map(|blob| (blob.file().clone(), blob.len())).or_else(|| {
            // What has just been pushed may still be on the way to its place.
            let landing = self.0.uploads.landings.get(asked.digest)?;
            Some((landing.file, landing.length))
        });
        let Some((file, length)) = blob else { return Ok(None) };
        let status = match self.0.standing(asked.repository, asked.digest, asked.member).await {
            Standing::Vouched => CacheStatus::Hit,
            Standing::Doubtful if !asked.outlook.sealed && self.decide(asked, Some(length)).await? => {
                CacheStatus::Revalidated
            }
            Standing::Doubtful | Standing::Foreign => return Ok(None),
        };
        let answer = from_file(asked.digest, &file, length, asked.want, Provenance::new(status))?;
        // Damage that is found now costs this reader nothing: the answer comes from upstream instead.
        let well = self.0.store.is_well();
        let sound = match &answer.content {
            Content::File(file, range) => begins_sound(asked.digest, file, &[*range], well).await,
            Content::Parts(parts) => match parts.file() {
                Some(file) => begins_sound(asked.digest, file, parts.ranges(), well).await,
                None => true,
            },
            _ => true,
        };
        Ok(sound.then_some(answer))
    }

    /// Whether the repository has these bytes, which came through another one, by upstream's word. A word that nobody can rely on is
    /// none: then the bytes have to come from there.
    async fn decide(&self, asked: &Asked<'_>, length: Option<u64>) -> Result<bool, CacheError> {
        let head = self.upstream_head(asked).await?;
        let vouched = head.speaks && length.is_none_or(|length| head.vouches_for(length));
        if vouched {
            self.0.link_blob(asked.repository, asked.digest, asked.generation).await;
        } else {
            tracing::debug!(
                blob.digest = %asked.digest, repo.name = %asked.repository, ?head,
                "upstream does not say as a registry does that it has these bytes: they are asked for"
            );
        }
        Ok(vouched)
    }

    /// One HEAD under way per blob and repository.
    async fn upstream_head(&self, asked: &Asked<'_>) -> Result<BlobHead, CacheError> {
        let key = (asked.repository.clone(), *asked.digest, asked.generation);
        let (inner, outlook) = (Arc::clone(&self.0), Arc::clone(asked.outlook));
        let (repository, digest, begun) = key.clone();
        let seat = self.0.head_flights.board(key, &self.0.tasks, || async move {
            let head = outlook.upstream.head_blob(&repository.name, &digest);
            let result = outlook.ask(Some(&repository), head).await;
            if let Err(error) = &result {
                inner.note_absence(&repository, Object::Blob(digest), error, begun).await;
            }
            result
        });
        Ok(seat.result().await.ok_or(CacheError::Aborted)??)
    }

    async fn head(&self, asked: &Asked<'_>) -> Result<BlobAnswer, CacheError> {
        let fill = self.0.fills.running(&asked.repository.registry, asked.digest);
        let fill = fill.filter(|fill| self.0.may_follow(asked, fill));
        let opened = fill.and_then(|fill| fill.progress.now(|progress| progress.opened.clone()));
        let (length, status) = match opened {
            Some(opened) => (Some(opened.length), CacheStatus::Coalesced),
            None => (self.upstream_head(asked).await?.length, CacheStatus::Miss),
        };
        let mut provenance = Provenance::new(status);
        provenance.stored = status == CacheStatus::Coalesced;
        let content = if length.is_some() { Content::Nothing } else { Content::Unmeasured };
        Ok(BlobAnswer { length: length.unwrap_or_default(), range: None, content, provenance })
    }

    /// By way of the one fill of this digest from the registry.
    async fn filled(&self, asked: &Asked<'_>) -> Result<BlobAnswer, CacheError> {
        let generation = asked.generation;
        let source = || Source {
            outlook: Arc::clone(asked.outlook),
            repository: asked.repository.clone(),
            caller: asked.outlook.upstream.is_asked_as_callers().then(current_caller).flatten(),
            member: asked.member == Some(Member::Own),
            generation,
        };
        let (fill, first) = self.0.fills.join(&self.0, asked.digest, source())?;
        if asked.member == Some(Member::Own) && !first {
            fill.sources.add(source());
        }
        let (opened, end) = fill.opened().await;
        // The upstream's answer to the fill is its answer to this repository, if it was asked for it.
        if !self.0.may_follow(asked, &fill) {
            if let Some(refusal) = fill.sources.refusal(asked.repository, generation) {
                self.note_absence(asked, &refusal).await;
                return Err(refusal.into());
            }
            if !self.decide(asked, opened.as_ref().map(|opened| opened.length)).await? {
                return self.bypass(asked, &Arc::new(Sources::of(source())), None).await;
            }
        }
        if !first {
            fill.sources.add(source());
        }
        let status = if first { CacheStatus::Miss } else { CacheStatus::Coalesced };
        let provenance = Provenance::new(status).relayed(fill.relayed.get().unwrap_or(&Relayed::default()));
        match (opened, end) {
            (opened, Some(end)) => self.ended(asked, &fill, opened, end, provenance).await,
            (Some(opened), None) => self.follow(asked, &fill, opened, provenance).await,
            (None, None) => Err(CacheError::Aborted),
        }
    }

    /// A fill that failed for others' reasons alone is to be tried anew.
    async fn failure(&self, asked: &Asked<'_>, fill: &Fill, error: CacheError) -> CacheError {
        match fill.sources.refusal(asked.repository, asked.generation) {
            Some(refusal) => {
                self.note_absence(asked, &refusal).await;
                refusal.into()
            }
            None if matches!(error, CacheError::Upstream(_))
                && !fill.sources.is_proven(asked.repository, asked.generation) =>
            {
                CacheError::Aborted
            }
            None => error,
        }
    }

    async fn note_absence(&self, asked: &Asked<'_>, refusal: &UpstreamError) {
        self.0.note_absence(asked.repository, Object::Blob(*asked.digest), refusal, asked.generation).await;
    }

    async fn follow(
        &self,
        asked: &Asked<'_>,
        fill: &Arc<Fill>,
        opened: Opened,
        provenance: Provenance,
    ) -> Result<BlobAnswer, CacheError> {
        let Opened { file, length } = opened;
        let Ok(wanted) = resolve(asked.want, length) else {
            // Nobody has verified that length: that the range lies outside can be said once it is.
            return self.ended(asked, fill, Some(Opened { file, length }), fill.ended().await, provenance).await;
        };
        if length <= HELD_BACK {
            let opened = Some(Opened { file, length });
            return self.ended(asked, fill, opened, fill.ended().await, provenance).await;
        }
        let reached = match &wanted {
            Wanted::Range(range) => fill.gets_to(range.start).await,
            Wanted::Whole | Wanted::Parts(_) => true,
        };
        if !matches!(wanted, Wanted::Whole)
            && length <= SMALL
            && let Ok(end) = timeout(VERIFY_WAIT, fill.ended()).await
        {
            return self.ended(asked, fill, Some(Opened { file, length }), end, provenance).await;
        }
        let mut provenance = provenance;
        let range = match wanted {
            Wanted::Whole => None,
            Wanted::Range(range) => Some(range),
            Wanted::Parts(ranges) => {
                let parts = Parts::filling(fill, Opened { file, length }, ranges);
                let provenance = provenance.unverified();
                return Ok(BlobAnswer { length, range: None, content: Content::Parts(Box::new(parts)), provenance });
            }
        };
        let wanted = range.unwrap_or(ByteRange { start: 0, end: length });
        if range.is_some() {
            if !reached && let Ok(permit) = Arc::clone(&fill.beside).try_acquire_owned() {
                let mut download = Download::of_range(*asked.digest, Arc::clone(&fill.sources), wanted);
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
        asked: &Asked<'_>,
        fill: &Fill,
        opened: Option<Opened>,
        end: End,
        provenance: Provenance,
    ) -> Result<BlobAnswer, CacheError> {
        match end {
            End::Verified => {
                let Opened { file, length } = opened.ok_or(CacheError::Aborted)?;
                from_file(asked.digest, &file, length, asked.want, provenance)
            }
            End::Failed(error) => Err(self.failure(asked, fill, error).await),
            End::Bypassed(spare) => {
                let spare = spare.lock().take();
                self.bypass(asked, &fill.sources, spare).await
            }
        }
    }

    /// A download for this reader alone. `spare` is the fill's own, at its first byte, if nobody has taken it.
    async fn bypass(
        &self,
        asked: &Asked<'_>,
        sources: &Arc<Sources>,
        spare: Option<Download>,
    ) -> Result<BlobAnswer, CacheError> {
        let is_open = spare.is_some();
        let mut download = spare.unwrap_or_else(|| Download::new(*asked.digest, Arc::clone(sources), 0));
        if !is_open {
            download.open().await?;
        }
        download.learn_length().await;
        let length = download.length().ok_or_else(|| download.mismatch("no length, to HEAD and to GET"))?;
        let wanted = match resolve(asked.want, length) {
            Ok(wanted) => wanted,
            // Nobody will verify that length: the registry is heard, too, before the range is refused.
            Err(refused) => {
                let said = self.upstream_head(asked).await?.length;
                let differs = said.is_some_and(|said| said != length);
                return Err(if differs { download.mismatch("another length to GET than to HEAD") } else { refused });
            }
        };
        let provenance = Provenance::new(CacheStatus::Bypass).relayed(download.relayed());
        match wanted {
            Wanted::Range(range) => {
                let mut part = Download::of_range(*asked.digest, Arc::clone(sources), range);
                part.open().await?;
                let content = Content::Transfer(Box::new(Transfer::of_range(part, range)));
                Ok(BlobAnswer { length, range: Some(range), content, provenance: provenance.unverified() })
            }
            Wanted::Parts(ranges) if ranges.len() <= OWN_REQUESTS => {
                let parts = Parts::passing(*asked.digest, Arc::clone(sources), length, ranges);
                let (content, provenance) = (Content::Parts(Box::new(parts)), provenance.unverified());
                Ok(BlobAnswer { length, range: None, content, provenance })
            }
            // One request for all of it is better than very many.
            Wanted::Whole | Wanted::Parts(_) => {
                let mut transfer = Transfer::verified(download, *asked.digest, ByteRange { start: 0, end: length });
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
    async fn member(&self, repository: &Repository, digest: &Digest, now: Generation) -> Option<Member> {
        // In this order: a fill leaves the list after it has written its links.
        let fill = self.fills.running(&repository.registry, digest);
        let proven = fill.is_some_and(|fill| fill.sources.is_proven(repository, now));
        if proven { Some(Member::Own) } else { self.membership(repository, digest).await }
    }

    /// Whether what a fill brings may go to who asked, without a question upstream.
    fn may_follow(&self, asked: &Asked<'_>, fill: &Fill) -> bool {
        let Asked { repository, generation, .. } = asked;
        match asked.member {
            Some(Member::Own) => true,
            Some(Member::Named) => fill.sources.proven().iter().any(|(giver, _)| self.speaks_for(giver, repository)),
            None => fill.sources.is_proven(repository, *generation),
        }
    }

    /// Notes that upstream has the blob for `repository`, unless it answers there anyway or there was a write since upstream was
    /// asked.
    pub(super) async fn link_blob(&self, repository: &Repository, digest: &Digest, begun: Generation) {
        let Some(_keeping) = self.generations.keep(repository, begun).await else { return };
        self.negatives.forget(repository, Object::Blob(*digest));
        if !self.is_vouched(repository, digest).await {
            heard("link", digest, self.store.link_blob(repository, digest).await);
        }
    }
}
