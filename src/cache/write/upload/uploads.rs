use super::kept::{Copies, Kept};
use super::landing::Landing;
use super::session_token::{Session, SessionKey};
use super::tee::Tee;
use crate::cache::error::CacheError;
use crate::cache::tasks::Tasks;
use crate::cache::upload_body::{BodyLost, UploadBody};
use crate::cache::upstream_state::UpstreamState;
use crate::oci::Repository;
use crate::store::Store;
use crate::upstream::{BodyHeaders, UploadAnswer, UploadError, UploadSession, UploadStart, UploadStep};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::OnceCell;

/// How often abandoned sessions are looked for.
const ROUND: Duration = Duration::from_secs(60);

/// Forwards uploads, and keeps a copy of what passes.
#[derive(Debug)]
pub(in crate::cache) struct Uploads {
    store: Store,
    landing: Landing,
    key: OnceCell<Option<SessionKey>>,
    copies: Arc<CopiesInUse>,
    /// How long a client may send nothing.
    stall: Duration,
    tasks: Arc<Tasks>,
}

#[derive(Debug)]
struct CopiesInUse {
    copies: Copies,
    /// Whether a task looks for abandoned ones.
    reaping: AtomicBool,
}

/// The answer to a request of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uploaded {
    /// It continues under this session.
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

impl Uploads {
    /// Keeps at most `most` copies at once.
    pub(in crate::cache) fn new(
        store: Store,
        landing: Landing,
        most: usize,
        stall: Duration,
        tasks: Arc<Tasks>,
    ) -> Self {
        let copies = Arc::new(CopiesInUse { copies: Copies::new(most), reaping: AtomicBool::new(false) });
        Self { store, landing, key: OnceCell::new(), copies, stall, tasks }
    }

    /// Begins an upload, mounts a blob, or takes one whole.
    pub(in crate::cache) async fn begin(
        &self,
        upstream: &UpstreamState,
        repository: &Repository,
        start: &UploadStart,
        headers: &BodyHeaders,
        body: impl UploadBody,
    ) -> Result<Uploaded, CacheError> {
        let Some(digest) = &start.digest else { return self.begin_empty(upstream, repository, start).await };
        let write = self.landing.begin_write(repository);
        let mut tee = Tee::new(body, self.begin_copy().await, self.stall).await;
        let answer = upstream.start_upload(&repository.name, start, headers, &mut tee).await;
        if let UploadAnswer::Session(session) = answer.map_err(failed)? {
            return self.opened(repository, session).await;
        }
        let kept = if tee.is_whole() { tee.finish().await } else { None };
        self.landing.accepted(repository, digest, kept, write).await;
        Ok(Uploaded::Created { digest: digest.clone() })
    }

    /// Without a body: a session, or a mount.
    async fn begin_empty(
        &self,
        upstream: &UpstreamState,
        repository: &Repository,
        start: &UploadStart,
    ) -> Result<Uploaded, CacheError> {
        let write = start.mount.is_some().then(|| self.landing.begin_write(repository));
        let mut nothing = Tee::new((), None, self.stall).await;
        let answer = upstream.start_upload(&repository.name, start, &BodyHeaders::default(), &mut nothing).await;
        match (answer.map_err(failed)?, &start.mount, write) {
            (UploadAnswer::Session(session), ..) => self.opened(repository, session).await,
            (_, Some((digest, _)), Some(write)) => {
                self.landing.mounted(repository, digest, write).await;
                Ok(Uploaded::Created { digest: digest.clone() })
            }
            _ => Err(odd(upstream, "it says that a blob is there of which nothing was sent")),
        }
    }

    /// Continues a session.
    pub(in crate::cache) async fn proceed(
        &self,
        upstream: &UpstreamState,
        repository: &Repository,
        session: &str,
        step: &UploadStep,
        headers: &BodyHeaders,
        body: impl UploadBody,
    ) -> Result<Uploaded, CacheError> {
        let session = self.key().await?.decrypt(repository, session).ok_or(CacheError::NoSession)?;
        let kept = match step {
            UploadStep::Chunk | UploadStep::End(_) => self.copy_of(&session, headers).await,
            UploadStep::Status => None,
            UploadStep::Cancel => {
                drop(self.copies.copies.take(session.id));
                None
            }
        };
        let is_kept = kept.is_some();
        let write = matches!(step, UploadStep::End(_)).then(|| self.landing.begin_write(repository));
        let mut tee = Tee::new(body, kept, self.stall).await;
        let location = session.location.as_str();
        let answer = upstream.continue_upload(&repository.name, location, step, headers, &mut tee).await;
        let (taken, is_whole) = (tee.taken(), tee.is_whole());
        match answer {
            // A request of which no byte was taken changes nothing: the client may repeat it.
            Err(error) => {
                if is_kept && taken == 0 {
                    self.put_back(session.id, tee.finish().await);
                }
                Err(failed(error))
            }
            Ok(UploadAnswer::Created(_)) => {
                let (UploadStep::End(digest), Some(write)) = (step, write) else {
                    return Err(odd(upstream, "it says that a blob is there whose upload has not ended"));
                };
                let kept = if is_whole { tee.finish().await } else { None };
                self.landing.accepted(repository, digest, kept, write).await;
                Ok(Uploaded::Created { digest: digest.clone() })
            }
            Ok(UploadAnswer::Session(answer)) => {
                let offset = match step {
                    UploadStep::Status => offset_of(answer.range.as_deref(), session.offset),
                    _ => session.offset.filter(|_| is_whole).map(|offset| offset + taken),
                };
                if is_kept && is_whole {
                    self.put_back(session.id, tee.finish().await);
                }
                let session = Session { offset, location: answer.location.clone(), ..session };
                self.given(repository, &session, answer).await
            }
            Ok(UploadAnswer::Cancelled) => Ok(Uploaded::Cancelled),
        }
    }

    fn put_back(&self, id: u128, kept: Option<Kept>) {
        let Some(kept) = kept else { return };
        self.copies.copies.put_back(id, kept);
        if !self.copies.reaping.swap(true, Ordering::AcqRel) {
            self.tasks.spawn(reap(Arc::downgrade(&self.copies)));
        }
    }

    /// A store that has no key stops no push: then the sessions are good for this process alone.
    async fn key(&self) -> Result<&SessionKey, CacheError> {
        let made = self.key.get_or_init(|| async {
            let key = self.store.upload_key().await.inspect_err(|error| {
                tracing::error!(%error, "the store has no key for uploads: none that runs now outlives a restart");
            });
            let mut own = [0; 32];
            let key = key.or_else(|_| aws_lc_rs::rand::fill(&mut own).map(|()| own));
            key.ok().and_then(|key| SessionKey::new(&key))
        });
        made.await.as_ref().ok_or(CacheError::NoRandomness)
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
        match self.copies.copies.take(session.id) {
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
        let Some(place) = self.copies.copies.place() else {
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
        self.given(repository, &session, answer).await
    }

    async fn given(
        &self,
        repository: &Repository,
        session: &Session,
        answer: UploadSession,
    ) -> Result<Uploaded, CacheError> {
        let UploadSession { location: _, range, uuid, chunk_min_length } = answer;
        let session = self.key().await?.encrypt(repository, session).ok_or_else(|| CacheError::Unreadable {
            upstream: repository.registry.to_string(),
            what: "upload session",
            problem: "its address is longer than 16 KiB".to_owned(),
        })?;
        Ok(Uploaded::Session { session, range, uuid, chunk_min_length })
    }
}

/// Removes the copies of abandoned sessions for as long as there are any.
async fn reap(copies: Weak<CopiesInUse>) {
    loop {
        tokio::time::sleep(ROUND).await;
        let Some(copies) = copies.upgrade() else { return };
        // Before the look: a request that puts a copy back after it begins another one of these.
        copies.reaping.store(false, Ordering::Release);
        if !copies.copies.reap() || copies.reaping.swap(true, Ordering::AcqRel) {
            return;
        }
    }
}

fn failed(error: UploadError<BodyLost>) -> CacheError {
    match error {
        UploadError::Source(lost) => CacheError::BodyLost(lost),
        UploadError::Upstream(error, range) => CacheError::Upload { error, range },
    }
}

/// An answer that does not fit its request.
fn odd(upstream: &UpstreamState, problem: &str) -> CacheError {
    let (upstream, problem) = (upstream.name().to_string(), problem.to_owned());
    CacheError::Unreadable { upstream, what: "answer to an upload", problem }
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

/// A number that cannot be guessed and that no other session has.
fn new_id() -> Result<u128, CacheError> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| CacheError::NoRandomness)?;
    Ok(u128::from_be_bytes(id))
}

/// A session of an upload as a client or another larder has written it, and how far an upstream says that it has come.
///
/// # Panics
///
/// Where a property does not hold.
#[cfg(any(test, fuzzing))]
pub fn fuzz(input: &[u8]) {
    super::session_token::fuzz(input);
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
