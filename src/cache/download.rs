//! One content being read from upstream: in order, from any offset, over as many connections and sources as it takes.

use super::error::CacheError;
use super::fill::Progress;
use super::generations::Generation;
use super::lock;
use super::outlook::Outlook;
use crate::oci::{ByteRange, Digest, Repository};
use crate::upstream::{ErrorKind, FetchedBlob, UpstreamBody, UpstreamError, in_background};
use bytes::{Buf, Bytes};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Attempts in a row that bring no byte before a download is given up.
const ATTEMPTS: u32 = 6;
/// Pause before the second attempt without progress; it doubles from there (3 s in all).
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause that is granted to a source that throttles: what clients bear in the middle of a body.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a body that has brought everything may take to say that it ends. What it then still says is of no use: the digest
/// decides.
const END_WAIT: Duration = Duration::from_millis(500);

/// A way to a content through which an allowed reader came.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) outlook: Arc<Outlook>,
    pub(super) repository: Repository,
    /// Whether a link of the repository vouches for the content.
    pub(super) member: bool,
    /// When that was found out: what upstream says is good for those who ask since then.
    pub(super) generation: Generation,
}

/// The sources of one content, shared by its readers and its download.
#[derive(Debug, Default)]
pub(super) struct Sources(Mutex<Ways>);

#[derive(Debug, Default)]
struct Ways {
    open: Vec<Source>,
    /// Repositories whose upstream has answered with the content.
    proven: Vec<(Repository, Generation)>,
    /// Repositories whose upstream would not give it, with what it said.
    closed: Vec<(Repository, Generation, UpstreamError)>,
}

impl Sources {
    pub(super) fn of(source: Source) -> Self {
        let sources = Self::default();
        sources.add(source);
        sources
    }

    /// Adds a source, unless it is known.
    pub(super) fn add(&self, source: Source) {
        let mut ways = self.lock();
        match ways.open.iter_mut().find(|known| known.repository == source.repository) {
            // What upstream said before the last write proves nothing to those who came after it.
            Some(known) if known.generation != source.generation => *known = source,
            Some(_) => {}
            None => ways.open.push(source),
        }
    }

    /// Whether upstream has given the content for `repository`, and nothing was written to it since.
    pub(super) fn is_proven(&self, repository: &Repository, now: Generation) -> bool {
        self.lock().proven.iter().any(|(proven, begun)| proven == repository && *begun == now)
    }

    /// What upstream said when it would not give the content for `repository`, if nothing was written to it since.
    pub(super) fn refusal(&self, repository: &Repository, now: Generation) -> Option<UpstreamError> {
        let ways = self.lock();
        let refusal = ways.closed.iter().find(|(closed, begun, _)| closed == repository && *begun == now);
        refusal.map(|(_, _, error)| error.clone())
    }

    /// Repositories for which upstream has given the content, and when it was asked.
    pub(super) fn proven(&self) -> Vec<(Repository, Generation)> {
        self.lock().proven.clone()
    }

    /// The source to try on attempt `attempt`: each in its turn.
    fn choose(&self, attempt: u32) -> Option<Source> {
        let ways = self.lock();
        let count = ways.open.len().max(1);
        ways.open.get(attempt as usize % count).cloned()
    }

    fn prove(&self, source: &Source) {
        let mut ways = self.lock();
        let proof = (source.repository.clone(), source.generation);
        if !ways.proven.contains(&proof) {
            ways.proven.push(proof);
        }
    }

    fn close(&self, source: &Source, error: &UpstreamError) {
        let mut ways = self.lock();
        ways.open.retain(|open| open.repository != source.repository);
        ways.closed.push((source.repository.clone(), source.generation, error.clone()));
    }

    fn lock(&self) -> MutexGuard<'_, Ways> {
        lock(&self.0)
    }
}

/// A content, or a part of it, on its way. It does not check the digest; whoever keeps or sends the bytes does.
#[derive(Debug)]
pub(super) struct Download {
    digest: Digest,
    sources: Arc<Sources>,
    /// The next byte that [`Self::chunk`] gives.
    offset: u64,
    /// One past the last byte wanted; `None`: the end of the content.
    end: Option<u64>,
    length: Option<u64>,
    body: Option<UpstreamBody>,
    /// Bytes of the body before `offset`: an upstream that ignored the range starts from the beginning.
    skip: u64,
    /// Attempts since the last byte.
    attempt: u32,
    from: Option<Source>,
    /// Where its readers follow it, if it is a fill's.
    readers: Option<watch::Sender<Progress>>,
}

impl Download {
    /// A download of the whole content, from `offset` on.
    pub(super) fn new(digest: Digest, sources: Arc<Sources>, offset: u64) -> Self {
        Self {
            digest,
            sources,
            offset,
            end: None,
            length: None,
            body: None,
            skip: 0,
            attempt: 0,
            from: None,
            readers: None,
        }
    }

    /// A download of `range` alone.
    pub(super) fn of_range(digest: Digest, sources: Arc<Sources>, range: ByteRange) -> Self {
        Self { end: Some(range.end), ..Self::new(digest, sources, range.start) }
    }

    /// What is read for whoever follows `progress`: while nobody does, it comes after everybody else's requests.
    pub(super) fn followed(mut self, progress: &watch::Sender<Progress>) -> Self {
        self.readers = Some(progress.clone());
        self
    }

    /// Length of the whole content, once upstream has answered and if it said so.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// The upstream that the bytes come from, for blame.
    pub(super) fn upstream(&self) -> String {
        self.from.as_ref().map_or_else(String::new, |source| source.repository.registry.to_string())
    }

    /// Waits until a source has answered. The first refusal of each source counts; nothing is tried twice.
    pub(super) async fn open(&mut self) -> Result<(), CacheError> {
        loop {
            let Some(source) = self.sources.choose(0) else {
                return Err(self.no_source());
            };
            match self.request(&source).await {
                Ok(()) => return Ok(()),
                // That is about the part that was asked for, not about the source.
                Err(error) if matches!(error.kind(), ErrorKind::Rejected { status: 416, .. }) => {
                    return Err(error.into());
                }
                Err(error) => self.sources.close(&source, &error),
            }
        }
    }

    /// Waits until a source may have the content, all of which is here already.
    pub(super) async fn confirm(&mut self) -> Result<(), CacheError> {
        loop {
            let Some(source) = self.sources.choose(0) else {
                return Err(self.no_source());
            };
            let answer = if source.member { Ok(()) } else { self.ask_whether(&source).await };
            match answer {
                Ok(()) => {
                    self.sources.prove(&source);
                    self.length = Some(self.offset);
                    self.from = Some(source);
                    return Ok(());
                }
                Err(error) => self.sources.close(&source, &error),
            }
        }
    }

    async fn ask_whether(&self, source: &Source) -> Result<(), UpstreamError> {
        let head = source.outlook.upstream.head_blob(&source.repository.name, &self.digest);
        source.outlook.ask(Some(&source.repository), head).await.map(drop)
    }

    /// Asks for the length if the answer did not say it (a chunked body).
    pub(super) async fn learn_length(&mut self) {
        if let (None, Some(source)) = (self.length, &self.from) {
            let head = source.outlook.upstream.head_blob(&source.repository.name, &self.digest);
            self.length = source.outlook.ask(Some(&source.repository), head).await.ok().flatten();
        }
    }

    /// The next bytes; `None` at the end of what is wanted. A cut transfer goes on where it was cut.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, CacheError> {
        loop {
            if self.end.or(self.length).is_some_and(|end| self.offset >= end) {
                return self.at_end().await;
            }
            let problem = match self.read().await {
                Ok(Some(chunk)) => {
                    self.attempt = 0;
                    self.offset += chunk.len() as u64;
                    if self.length.is_some_and(|length| self.offset > length) {
                        return Err(self.mismatch("more bytes than it announced"));
                    }
                    return Ok(Some(chunk));
                }
                Ok(None) if self.length.is_none() => return Ok(None),
                Ok(None) => None,
                Err(error) => Some(error),
            };
            self.body = None;
            self.resume(problem).await?;
        }
    }

    /// Everything wanted is there. A body that goes on regardless is longer than it said, and somebody is wrong about the content.
    async fn at_end(&mut self) -> Result<Option<Bytes>, CacheError> {
        if self.end.is_none()
            && let Some(body) = &mut self.body
            && let Ok(Ok(Some(chunk))) = timeout(END_WAIT, body.chunk()).await
            && !chunk.is_empty()
        {
            return Err(self.mismatch("more bytes than it announced"));
        }
        self.body = None;
        Ok(None)
    }

    async fn read(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let Some(body) = &mut self.body else { return Ok(None) };
        while let Some(mut chunk) = body.chunk().await? {
            let skipped = self.skip.min(chunk.len() as u64);
            self.skip -= skipped;
            chunk.advance(usize::try_from(skipped).unwrap_or(chunk.len()));
            if let Some(end) = self.end {
                let left = usize::try_from(end - self.offset).unwrap_or(usize::MAX);
                chunk.truncate(left);
            }
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    /// Finds a source that gives the rest, after `problem` (`None`: the body ended early without one).
    async fn resume(&mut self, mut problem: Option<UpstreamError>) -> Result<(), CacheError> {
        loop {
            self.attempt += 1;
            if self.attempt > ATTEMPTS {
                return Err(match problem {
                    Some(error) => error.into(),
                    None => self.mismatch("the body ends early, each time"),
                });
            }
            let Some(source) = self.sources.choose(self.attempt) else {
                return Err(problem.map_or_else(|| self.no_source(), CacheError::from));
            };
            if self.attempt > 1 {
                let asked = problem.as_ref().and_then(pause_asked_for).unwrap_or_default();
                sleep(asked.max(PAUSE * 2u32.pow(self.attempt - 2))).await;
            }
            let labels = [source.repository.registry.as_str()];
            let metrics = &source.outlook.metrics;
            metrics.upstream_retries.with_label_values(&[labels[0], "resume"]).inc();
            tracing::info!(
                blob.digest = %self.digest, repo.name = %source.repository, offset_bytes = self.offset, attempt = self.attempt,
                error = problem.as_ref().map(tracing::field::display), "a transfer was cut and goes on"
            );
            let unread = self.readers.as_ref().is_some_and(|readers| readers.receiver_count() == 0);
            let request = self.request(&source);
            let requested = if unread { Box::pin(in_background(request)).await } else { request.await };
            match requested {
                Ok(()) => {
                    if self.skip == 0 {
                        metrics.upstream_resumed_bytes.with_label_values(&labels).inc_by(self.offset);
                    }
                    return Ok(());
                }
                Err(error) => {
                    if !error.is_outage() {
                        self.sources.close(&source, &error);
                    }
                    problem = Some(error);
                }
            }
        }
    }

    /// Asks `source` for the bytes from `offset` on.
    async fn request(&mut self, source: &Source) -> Result<(), UpstreamError> {
        let range = match (self.offset, self.end) {
            (0, None) => None,
            (start, end) => Some((start, end.map(|end| end - 1))),
        };
        let request = source.outlook.upstream.get_blob(&source.repository.name, &self.digest, range);
        let FetchedBlob { start, length, body } = source.outlook.ask_for_bytes(&source.repository, request).await?;
        self.sources.prove(source);
        self.skip = self.offset.saturating_sub(start);
        // The first answer's length is what readers were told; it stays, and the digest decides.
        self.length = self.length.or(length);
        self.body = Some(body);
        self.from = Some(source.clone());
        Ok(())
    }

    /// An error that blames the source for the bytes.
    pub(super) fn mismatch(&self, problem: &str) -> CacheError {
        CacheError::Mismatch { upstream: self.upstream(), digest: self.digest, problem: problem.to_owned() }
    }

    fn no_source(&self) -> CacheError {
        let ways = self.sources.lock();
        ways.closed.last().map_or(CacheError::Aborted, |(_, _, error)| error.clone().into())
    }
}

/// A source that throttles is not asked before its time: nothing would be sent.
fn pause_asked_for(error: &UpstreamError) -> Option<Duration> {
    match error.kind() {
        ErrorKind::Throttled { retry_after } => retry_after.map(|after| after.min(LONGEST_PAUSE)),
        _ => None,
    }
}
