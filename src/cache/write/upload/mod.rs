//! Pushing blobs: upstream decides, larder remembers.
//!
//! Every request of an upload is upstream's to answer. The client holds upstream's moving address sealed (`session_token`), so that any
//! larder with the same key can go on; the bytes are copied to the store while they pass (`tee`), by session and offset
//! (`kept`): where the copy is missing or out of step, the upload goes on without. Once upstream has taken the blob, and only
//! then, the copy becomes a blob here, if it has that digest, and the repository has it.

mod again;
mod kept;
mod session_token;
mod tee;

pub(in crate::cache) use kept::PendingCommits;
pub use tee::{BodyLost, UploadBody};

use crate::cache::epochs::{Write, WriteScope};
use crate::cache::error::CacheError;
use crate::cache::negative::Object;
use crate::cache::upstream_state::state::UpstreamState;
use crate::cache::{Cache, Inner, log_and_ignore};
use crate::oci::{Digest, Repository};
use crate::store::VerifyError;
use crate::upstream::{BodyHeaders, UploadAnswer, UploadError, UploadSession, UploadStart, UploadStep};
use kept::{Copies, Kept, PendingCommit};
use session_token::{Session, SessionKey};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tee::Tee;
use tokio::sync::OnceCell;

/// How often abandoned sessions are looked for.
const ROUND: Duration = Duration::from_secs(60);

/// What the cache knows of uploads.
#[derive(Debug)]
pub(in crate::cache) struct Uploads {
    session_key: OnceCell<Option<SessionKey>>,
    copies: Copies,
    pub(in crate::cache) pending_commits: PendingCommits,
    reaping: AtomicBool,
}

impl Uploads {
    /// Keeps at most `most` copies at once.
    pub(in crate::cache) fn new(most: usize) -> Self {
        let pending_commits = PendingCommits::default();
        Self {
            session_key: OnceCell::new(),
            copies: Copies::new(most),
            pending_commits,
            reaping: AtomicBool::new(false),
        }
    }
}

/// The answer to a request of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uploaded {
    /// It goes on under this session.
    Session {
        /// One path component, for larder alone to read.
        session: String,
        /// Upstream's `Range`.
        range: Option<String>,
        /// Upstream's `Docker-Upload-UUID`.
        uuid: Option<String>,
        /// Upstream's `OCI-Chunk-Min-Length`.
        chunk_min_length: Option<String>,
    },
    /// The repository has the blob.
    Created {
        /// Its digest, as the client wrote it.
        digest: String,
    },
    /// The session is over.
    Cancelled,
}

impl Cache {
    /// Begins an upload, mounts a blob, or takes one whole.
    pub async fn begin_upload(
        &self,
        repository: &Repository,
        start: &UploadStart,
        headers: &BodyHeaders,
        body: impl UploadBody,
    ) -> Result<Uploaded, CacheError> {
        let upstream = self.0.writable(&repository.registry)?;
        let (name, stall) = (&repository.name, self.0.limits.stall_timeout);
        let Some(digest) = &start.digest else {
            let write = start.mount.is_some().then(|| self.0.begin_write(repository));
            let mut nothing = Tee::new((), None, stall).await;
            let answer = upstream.client.start_upload(name, start, &BodyHeaders::default(), &mut nothing).await;
            return match (heeded(upstream, answer)?, &start.mount, write) {
                (UploadAnswer::Session(session), ..) => self.0.opened(repository, session).await,
                (_, Some((digest, _)), Some(write)) => {
                    self.0.mounted(repository, digest, write).await;
                    Ok(Uploaded::Created { digest: digest.clone() })
                }
                // Nothing was sent that could have been made.
                _ => Err(CacheError::Aborted),
            };
        };
        let write = self.0.begin_write(repository);
        let mut tee = Tee::new(body, self.0.begin_copy().await, stall).await;
        let answer = upstream.client.start_upload(name, start, headers, &mut tee).await;
        if let UploadAnswer::Session(session) = heeded(upstream, answer)? {
            return self.0.opened(repository, session).await;
        }
        let kept = if tee.is_whole() { tee.finish().await } else { None };
        self.0.accepted(repository, digest, kept, write).await;
        Ok(Uploaded::Created { digest: digest.clone() })
    }

    /// Goes on with a session.
    pub async fn continue_upload(
        &self,
        repository: &Repository,
        session: &str,
        step: &UploadStep,
        headers: &BodyHeaders,
        body: impl UploadBody,
    ) -> Result<Uploaded, CacheError> {
        let upstream = self.0.writable(&repository.registry)?;
        let session_key = self.0.session_key().await?;
        let session = session_key.decrypt(repository, session).ok_or(CacheError::NoSession)?;
        let kept = match step {
            UploadStep::Chunk | UploadStep::End(_) => self.0.copy_of(&session, headers).await,
            UploadStep::Status => None,
            UploadStep::Cancel => {
                drop(self.0.uploads.copies.take(session.id));
                None
            }
        };
        let is_kept = kept.is_some();
        let write = matches!(step, UploadStep::End(_)).then(|| self.0.begin_write(repository));
        let mut tee = Tee::new(body, kept, self.0.limits.stall_timeout).await;
        let (name, location) = (&repository.name, session.location.as_str());
        let answer = upstream.client.continue_upload(name, location, step, headers, &mut tee).await;
        let (taken, is_whole) = (tee.taken(), tee.is_whole());
        let answer = match heeded(upstream, answer) {
            Ok(answer) => answer,
            Err(error) => {
                // A request of which no byte was taken changes nothing: the client may repeat it.
                if is_kept && taken == 0 {
                    self.put_back(session.id, tee.finish().await);
                }
                return Err(error);
            }
        };
        match answer {
            UploadAnswer::Created(_) => {
                let (UploadStep::End(digest), Some(write)) = (step, write) else { return Err(CacheError::Aborted) };
                let kept = if is_whole { tee.finish().await } else { None };
                self.0.accepted(repository, digest, kept, write).await;
                Ok(Uploaded::Created { digest: digest.clone() })
            }
            UploadAnswer::Session(answer) => {
                let offset = match step {
                    UploadStep::Status => offset_of(answer.range.as_deref(), session.offset),
                    _ => session.offset.filter(|_| is_whole).map(|offset| offset + taken),
                };
                if is_kept && is_whole {
                    self.put_back(session.id, tee.finish().await);
                }
                let session = Session { offset, location: answer.location.clone(), ..session };
                given(session_key, repository, &session, answer)
            }
            UploadAnswer::Cancelled => Ok(Uploaded::Cancelled),
        }
    }

    fn put_back(&self, id: u128, kept: Option<Kept>) {
        let Some(kept) = kept else { return };
        self.0.uploads.copies.put_back(id, kept);
        if !self.0.uploads.reaping.swap(true, Ordering::AcqRel) {
            self.0.tasks.spawn(reap(Arc::downgrade(&self.0)));
        }
    }
}

impl Inner {
    /// A store that has no key does not keep anybody from pushing: then the sessions are good for this process alone.
    async fn session_key(&self) -> Result<&SessionKey, CacheError> {
        let made = self.uploads.session_key.get_or_init(|| async {
            let key = self.store.upload_key().await.inspect_err(|error| {
                tracing::error!(%error, "the store has no key for uploads: none that runs now outlives a restart");
            });
            let mut own = [0; 32];
            let key = key.or_else(|_| aws_lc_rs::rand::fill(&mut own).map(|()| own));
            key.ok().and_then(|key| SessionKey::new(&key))
        });
        made.await.as_ref().ok_or(CacheError::Aborted)
    }

    /// What there is of the upload here, if that is all that upstream has, and this body is what comes next.
    async fn copy_of(&self, session: &Session, headers: &BodyHeaders) -> Option<Kept> {
        let offset = session.offset?;
        // A chunk that says of itself that it belongs elsewhere is upstream's to refuse; it does not touch the copy.
        if let Some(range) = &headers.range
            && range.to_str().ok().and_then(|range| range.split('-').next()?.trim().parse().ok()) != Some(offset)
        {
            return None;
        }
        match self.uploads.copies.take(session.id) {
            Some(kept) if kept.upload.received() == offset => Some(kept),
            Some(kept) => {
                kept.upload.discard().await;
                None
            }
            None if offset == 0 => self.begin_copy().await,
            None => None,
        }
    }

    async fn begin_copy(&self) -> Option<Kept> {
        let Some(place) = self.uploads.copies.place() else {
            tracing::debug!(
                "as many uploads as [server.limits] uploads allows are kept: one more is pushed and not kept"
            );
            return None;
        };
        let begun = self.store.upload().await;
        let upload = begun.inspect_err(
            |error| tracing::warn!(%error, "the store takes no copy of an upload: it is pushed and not kept"),
        );
        Some(Copies::begun(upload.ok()?, place))
    }

    /// Upstream has begun a session.
    async fn opened(&self, repository: &Repository, answer: UploadSession) -> Result<Uploaded, CacheError> {
        let session = Session { id: new_id()?, offset: Some(0), location: answer.location.clone() };
        given(self.session_key().await?, repository, &session, answer)
    }

    /// A request that may give the repository a blob is about to be forwarded.
    fn begin_write(&self, repository: &Repository) -> Write {
        // It sets no tag, and content that it adds harms nobody.
        self.epochs.begin(repository, WriteScope::Tags(Vec::new()))
    }

    /// Upstream has taken the blob from another of its repositories.
    async fn mounted(&self, repository: &Repository, digest: &str, write: Write) {
        let Ok(digest) = digest.parse() else { return };
        self.own(repository, &digest, write, true).await;
        self.count_upload(repository, "mounted");
    }

    /// Upstream has taken the blob: it is there for this repository, and what is here of it becomes a blob.
    async fn accepted(self: &Arc<Self>, repository: &Repository, digest: &str, kept: Option<Kept>, write: Write) {
        let Ok(digest) = digest.parse::<Digest>() else { return };
        let result = match kept {
            Some(kept) => self.land(repository, digest, kept).await,
            None if log_and_ignore("open", digest, self.store.blob(&digest).await).flatten().is_some() => "present",
            None => "unkept",
        };
        self.own(repository, &digest, write, result != "mismatch").await;
        self.count_upload(repository, result);
    }

    /// Notes that the repository has the blob: it was pushed there. If it is not `sure` that it is this one, upstream is asked when
    /// somebody wants it.
    async fn own(&self, repository: &Repository, digest: &Digest, write: Write, sure: bool) {
        let applying = write.apply().await;
        self.negatives.forget(repository, Object::Blob(*digest));
        if sure && !applying.is_conflicted() && !self.is_vouched(repository, digest).await {
            log_and_ignore("link", digest, self.store.link_blob(repository, digest).await);
        }
    }

    fn count_upload(&self, repository: &Repository, result: &str) {
        self.metrics.uploads.with_label_values(&[repository.registry.as_str(), result]).inc();
    }

    /// Verifies the copy and has it put in its place, which the client need not wait for.
    async fn land(self: &Arc<Self>, repository: &Repository, digest: Digest, kept: Kept) -> &'static str {
        let verified = match kept.upload.verify(&digest).await {
            Ok(verified) => verified,
            Err(error) => {
                tracing::error!(
                    blob.digest = %digest, repo.name = %repository, %error,
                    "upstream took a blob whose copy here is another: nothing was kept"
                );
                return if matches!(error, VerifyError::Digest { .. }) { "mismatch" } else { "unkept" };
            }
        };
        let giver = self.as_giver(repository);
        if log_and_ignore("open", digest, self.store.blob(&digest).await).flatten().is_some() {
            log_and_ignore("note who has", digest, self.store.given_by(&digest, giver).await);
            return "present";
        }
        let pending = PendingCommit { file: verified.file(), length: verified.received(), giver: giver.clone() };
        let verified = verified.given_by(vec![giver]);
        if !self.uploads.pending_commits.begin(digest, pending) {
            log_and_ignore("store", digest, verified.commit().await);
            return "stored";
        }
        let inner = Arc::downgrade(self);
        self.tasks.spawn(async move {
            log_and_ignore("store", digest, verified.commit().await);
            if let Some(inner) = inner.upgrade() {
                inner.uploads.pending_commits.end(&digest);
            }
        });
        "stored"
    }
}

/// Removes the copies of abandoned sessions for as long as there are any.
async fn reap(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(ROUND).await;
        let Some(inner) = inner.upgrade() else { return };
        // Before the look: who puts a copy back after it begins another one of these.
        inner.uploads.reaping.store(false, Ordering::Release);
        if !inner.uploads.copies.reap() || inner.uploads.reaping.swap(true, Ordering::AcqRel) {
            return;
        }
    }
}

/// What an answer says about the upstream. A login that may not push says nothing about who may pull.
fn heeded(
    upstream: &UpstreamState,
    answer: Result<UploadAnswer, UploadError<BodyLost>>,
) -> Result<UploadAnswer, CacheError> {
    match answer {
        Ok(answer) => {
            upstream.record_result(None);
            Ok(answer)
        }
        Err(UploadError::Source(lost)) => Err(CacheError::BodyLost(lost)),
        Err(UploadError::Upstream(error, range)) => {
            upstream.record_result(Some(&error));
            Err(CacheError::Upload { error, range })
        }
    }
}

fn given(
    session_key: &SessionKey,
    repository: &Repository,
    session: &Session,
    answer: UploadSession,
) -> Result<Uploaded, CacheError> {
    let UploadSession { location: _, range, uuid, chunk_min_length } = answer;
    let session = session_key.encrypt(repository, session).ok_or(CacheError::Aborted)?;
    Ok(Uploaded::Session { session, range, uuid, chunk_min_length })
}

/// Bytes that upstream has by its `Range`. `0-0` stands for none or for one: then it is what was known before.
fn offset_of(range: Option<&str>, known: Option<u64>) -> Option<u64> {
    let range = range?.trim();
    let last: u64 = range.strip_prefix("bytes=").unwrap_or(range).strip_prefix("0-")?.parse().ok()?;
    match last {
        0 => known.filter(|known| *known <= 1),
        last => last.checked_add(1),
    }
}

/// What nobody can guess and no other session has.
fn new_id() -> Result<u128, CacheError> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| CacheError::Aborted)?;
    Ok(u128::from_be_bytes(id))
}

/// A session of an upload as a client or another larder has written it, and how far an upstream says that it has come.
///
/// # Panics
///
/// Where a property does not hold.
#[cfg(any(test, fuzzing))]
pub fn fuzz(input: &[u8]) {
    session_token::fuzz(input);
    let Ok(text) = std::str::from_utf8(input) else { return };
    for known in [None, Some(0), Some(1), Some(u64::MAX)] {
        let offset = offset_of(Some(text), known);
        assert!(offset.is_none_or(|offset| offset > 1 || known == Some(offset)), "{text} is {offset:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_an_upload_has_come() {
        for (range, known, want) in [
            (Some("0-99"), Some(0), Some(100)),
            (Some("bytes=0-99"), None, Some(100)),
            (Some("0-0"), Some(0), Some(0)),
            (Some("0-0"), Some(1), Some(1)),
            (Some("0-0"), Some(7), None),
            (Some("0-0"), None, None),
            (Some("5-9"), Some(0), None),
            (Some("0--1"), Some(0), None),
            (Some("0-18446744073709551615"), Some(0), None),
            (None, Some(3), None),
        ] {
            assert_eq!(offset_of(range, known), want, "{range:?} {known:?}");
        }
    }
}
