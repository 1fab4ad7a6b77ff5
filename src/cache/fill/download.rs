//! One content being read from upstream: in order, from any offset, over as many connections and candidates as it takes.

use super::candidates::{Candidate, Candidates};
use super::resume_backoff::ResumeBackoff;
use super::shared::Watermark;
use crate::cache::error::CacheError;
use crate::oci::{ByteRange, Digest};
use crate::upstream::{ErrorKind, FetchedBlob, Relayed, UpstreamBody, UpstreamError, in_background};
use bytes::{Buf, Bytes};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// A body that ends early without an error says that its source has no more. That often, in a row, is believed.
const EARLY_ENDS: u32 = 6;
/// An address whose bodies end so often in a row without a byte is left for the upstream's next one.
const BARREN: u32 = 2;
/// So many bodies in a row that are too slow end a download.
const SLOW: u32 = 5;
/// How long a body that has brought everything may take to say that it ends. What it then still says does not matter: the
/// digest decides.
const END_WAIT: Duration = Duration::from_millis(500);

/// A content, or a part of it, on its way. It does not check the digest: what keeps or sends the bytes does.
#[derive(Debug)]
pub(in crate::cache) struct Download {
    digest: Digest,
    candidates: Arc<Candidates>,
    /// The next byte that [`Self::chunk`] gives.
    offset: u64,
    /// One past the last byte wanted; `None`: the end of the content.
    end: Option<u64>,
    length: Option<u64>,
    body: Option<UpstreamBody>,
    /// What it is if the bytes are wrong: a page for people.
    page: Option<UpstreamError>,
    /// Bytes of the body before `offset`: an upstream that ignored the range starts from the beginning.
    skip: u64,
    /// The rest was refused as lying outside the content (416): the next request is for all of it.
    from_the_beginning: bool,
    /// How long it may gain nothing.
    backoff: ResumeBackoff,
    /// Bodies in a row that ended early without an error and without a byte.
    early_ends: u32,
    from: Option<Candidate>,
    /// Whose bytes it has: candidates, and which of their addresses.
    givers: Vec<(Candidate, usize)>,
    /// The number of the upstream's address that the body comes from, and bodies in a row that brought nothing from there.
    address: usize,
    barren: u32,
    /// Bodies in a row that came too slowly.
    slow: u32,
    /// The number of the address that is asked first: those before it have had their chance.
    first: usize,
    /// What caches on the way said of the first answer.
    relayed: Relayed,
    /// Where its readers follow it, if it is a fill's.
    readers: Option<Watermark>,
}

impl Download {
    /// A download of the whole content, from `offset` on.
    pub(in crate::cache) fn new(digest: Digest, candidates: Arc<Candidates>, offset: u64) -> Self {
        Self {
            digest,
            candidates,
            offset,
            end: None,
            length: None,
            body: None,
            page: None,
            skip: 0,
            from_the_beginning: false,
            backoff: ResumeBackoff::default(),
            early_ends: 0,
            from: None,
            givers: Vec::new(),
            address: 0,
            barren: 0,
            slow: 0,
            first: 0,
            relayed: Relayed::default(),
            readers: None,
        }
    }

    /// A download of `range` alone.
    pub(in crate::cache) fn of_range(digest: Digest, candidates: Arc<Candidates>, range: ByteRange) -> Self {
        Self { end: Some(range.end), ..Self::new(digest, candidates, range.start) }
    }

    /// A download for the readers of `progress`. While there are none, its requests come after all others.
    pub(in crate::cache) fn followed(mut self, progress: &Watermark) -> Self {
        self.readers = Some(progress.clone());
        self
    }

    /// A download that is left to one reader, which waits for it. It drops its handle on the fill: the fill's end will own this
    /// download, so keeping it would leak both, with the connection.
    pub(in crate::cache) fn left_to_a_reader(self) -> Self {
        Self { readers: None, ..self }
    }

    /// The same, of a content that upstream gave the beginning of: an outage is waited out from the first request on.
    pub(in crate::cache) fn going_on(self, length: u64) -> Self {
        Self { length: Some(length), ..self }
    }

    /// Length of the whole content, once upstream has answered and if it said so.
    pub(in crate::cache) fn length(&self) -> Option<u64> {
        self.length
    }

    /// What caches on the way said of the first answer.
    pub(in crate::cache) fn relayed(&self) -> &Relayed {
        &self.relayed
    }

    /// Where the bytes come from, for blame.
    fn upstream(&self) -> String {
        let names = self.givers.iter().map(|(candidate, address)| candidate.view.upstream.address(*address));
        match names.collect::<Vec<_>>()[..] {
            [] => self
                .from
                .as_ref()
                .map_or_else(String::new, |candidate| candidate.view.repository().registry.to_string()),
            ref names => names.join(" and "),
        }
    }

    /// Waits until a candidate has answered. The first refusal of each candidate counts; nothing is tried twice.
    pub(in crate::cache) async fn open(&mut self) -> Result<(), CacheError> {
        loop {
            let Some(candidate) = self.candidates.choose(0) else {
                return Err(self.no_source());
            };
            match self.request(&candidate).await {
                Ok(()) => return Ok(()),
                // That is about the part that was asked for, not about the candidate.
                Err(error) if is_range_refused(&error) => return Err(error.into()),
                Err(error) => self.candidates.close(&candidate, &error),
            }
        }
    }

    /// Waits until a candidate may have the content, all of which is here already.
    pub(in crate::cache) async fn confirm(&mut self) -> Result<(), CacheError> {
        loop {
            let Some(candidate) = self.candidates.choose(0) else {
                return Err(self.no_source());
            };
            let answer = if candidate.member { Ok(()) } else { self.ask_whether(&candidate).await };
            match answer {
                Ok(()) => {
                    self.candidates.prove(&candidate);
                    self.length = Some(self.offset);
                    self.from = Some(candidate);
                    return Ok(());
                }
                Err(error) => self.candidates.close(&candidate, &error),
            }
        }
    }

    async fn ask_whether(&self, candidate: &Candidate) -> Result<(), UpstreamError> {
        candidate.ask(candidate.view.upstream.head_blob(candidate.view.repository(), &self.digest)).await.map(drop)
    }

    /// Asks for the length if the answer did not say it (a chunked body).
    pub(in crate::cache) async fn learn_length(&mut self) {
        if let (None, Some(candidate)) = (self.length, &self.from) {
            let head = candidate.view.upstream.head_blob(candidate.view.repository(), &self.digest);
            let head = candidate.ask(head).await;
            self.length = head.ok().and_then(|head| head.length);
        }
    }

    /// The next bytes; `None` at the end of what is wanted. A cut transfer continues where it was cut.
    pub(in crate::cache) async fn chunk(&mut self) -> Result<Option<Bytes>, CacheError> {
        loop {
            if self.end.or(self.length).is_some_and(|end| self.offset >= end) {
                return self.at_end().await;
            }
            let problem = match self.read().await {
                Ok(Some(chunk)) => {
                    self.backoff = ResumeBackoff::default();
                    (self.early_ends, self.barren) = (0, 0);
                    self.offset += chunk.len() as u64;
                    if self.length.is_some_and(|length| self.offset > length) {
                        return Err(self.mismatch("more bytes than it announced"));
                    }
                    return Ok(Some(chunk));
                }
                Ok(None) if self.length.is_none() => return Ok(None),
                Ok(None) => {
                    self.early_ends += u32::from(self.body.is_some());
                    None
                }
                Err(error) => Some(error),
            };
            let body = self.body.take();
            self.barren += u32::from(body.is_some());
            if let (Some(body), Some(error)) = (&body, &problem)
                && body.is_too_slow()
            {
                self.slow = if body.was_in_pace() { 1 } else { self.slow + 1 };
                self.first = self.address + 1;
                if self.slow >= SLOW {
                    return Err(error.clone().into());
                }
            }
            if self.barren >= BARREN {
                (self.first, self.barren) = (self.address + 1, 0);
            }
            self.resume(problem).await?;
        }
    }

    /// Everything wanted is there. A body that continues is longer than it said, so it is not the content.
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

    /// Finds a candidate that gives the rest, after `problem` (`None`: the body ended early without one).
    async fn resume(&mut self, mut problem: Option<UpstreamError>) -> Result<(), CacheError> {
        loop {
            if self.early_ends >= EARLY_ENDS {
                return Err(self.mismatch("the body ends early, each time"));
            }
            let Some(candidate) = self.candidates.choose(self.backoff.attempts() + self.slow.max(1)) else {
                return Err(problem.map_or_else(|| self.no_source(), CacheError::from));
            };
            let waited_for = self.readers.as_ref().is_none_or(|readers| readers.readers() > 0);
            let asked = problem.as_ref().and_then(pause_asked_for);
            let limit = candidate.view.upstream.resume_timeout;
            let Some(pause) = self.backoff.next(limit, waited_for, self.candidates.count(), asked) else {
                return Err(problem.map_or_else(|| self.mismatch("the body ends early, each time"), CacheError::from));
            };
            sleep(pause).await;
            let labels = [candidate.view.repository().registry.as_str()];
            let metrics = &candidate.view.upstream.metrics;
            metrics.upstream_retries.with_label_values(&[labels[0], "resume"]).inc();
            let attempt = self.backoff.attempts();
            if attempt.is_power_of_two() {
                tracing::info!(
                    blob.digest = %self.digest, repo.name = %candidate.view.repository(), offset_bytes = self.offset, attempt,
                    error = problem.as_ref().map(tracing::field::display), "a transfer was cut and goes on"
                );
            }
            let request = self.request(&candidate);
            let requested = if waited_for { request.await } else { Box::pin(in_background(request)).await };
            match requested {
                Ok(()) => {
                    if self.skip == 0 {
                        metrics.upstream_resumed_bytes.with_label_values(&labels).inc_by(self.offset);
                    }
                    return Ok(());
                }
                Err(error) => {
                    // The same candidate has begun a content of this length, or one like it has: only its ranges are not to be had.
                    self.from_the_beginning = self.end.is_none() && is_range_refused(&error);
                    if !self.from_the_beginning && !error.is_outage() {
                        self.candidates.close(&candidate, &error);
                    }
                    problem = Some(error);
                }
            }
        }
    }

    /// Asks `candidate` for the bytes from `offset` on.
    async fn request(&mut self, candidate: &Candidate) -> Result<(), UpstreamError> {
        let range = match (self.offset, self.end) {
            _ if std::mem::take(&mut self.from_the_beginning) => None,
            (0, None) => None,
            (start, end) => Some((start, end.map(|end| end - 1))),
        };
        if self.from.as_ref().is_none_or(|from| from.view.repository().registry != candidate.view.repository().registry)
        {
            (self.first, self.barren) = (0, 0);
        }
        let request = candidate.view.upstream.get_blob(self.first, candidate.view.repository(), &self.digest, range);
        let FetchedBlob { start, length, body, address, page, relayed } = candidate.ask(request).await?;
        if address != self.address {
            (self.address, self.barren) = (address, 0);
        }
        if self.from.is_none() {
            self.relayed = relayed;
        }
        self.candidates.prove(candidate);
        self.skip = self.offset.saturating_sub(start);
        // The first answer's length is what readers were told; it stays, and the digest decides.
        self.length = self.length.or(length);
        self.page = page;
        self.body = Some(body);
        self.from = Some(candidate.clone());
        let known =
            |(giver, at): &(Candidate, usize)| *at == address && giver.view.repository() == candidate.view.repository();
        if !self.givers.iter().any(known) {
            self.givers.push((candidate.clone(), address));
        }
        Ok(())
    }

    /// An error that blames the candidate for the bytes; where it has other addresses, they are asked first from now on.
    pub(in crate::cache) fn mismatch(&self, problem: &str) -> CacheError {
        for (candidate, address) in &self.givers {
            candidate.view.upstream.blame(&self.digest, *address);
        }
        if let Some(page) = &self.page {
            return page.clone().into();
        }
        CacheError::Mismatch { upstream: self.upstream(), digest: self.digest, problem: problem.to_owned() }
    }

    fn no_source(&self) -> CacheError {
        self.candidates.last_refusal().map_or(CacheError::Aborted, CacheError::from)
    }
}

fn is_range_refused(error: &UpstreamError) -> bool {
    matches!(error.kind(), ErrorKind::Rejected { status: 416, .. })
}

/// A candidate that throttles is not asked before its time: nothing would be sent.
fn pause_asked_for(error: &UpstreamError) -> Option<Duration> {
    match error.kind() {
        ErrorKind::Throttled { retry_after } => *retry_after,
        _ => None,
    }
}
