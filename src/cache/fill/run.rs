use super::{End, Fill, Opened, Writer, before_digest};
use crate::cache::Inner;
use crate::cache::batch::next_batch;
use crate::cache::error::CacheError;
use crate::cache::fill::download::Download;
use crate::store::{Ingest, IngestError, StoreError, VerifyError};
use crate::telemetry::IntGauge;
use crate::upstream::ErrorKind;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Chunks (of up to 400 KiB, as hyper reads them) that may have arrived and not be written.
const CHUNKS: usize = 4;

/// Why a fill did not end in a verified blob.
enum Problem {
    Upstream(CacheError),
    /// The store refused or failed; the download, where it can still be read from its first byte, goes to a reader.
    Store(Option<Box<Download>>),
}

impl From<CacheError> for Problem {
    fn from(error: CacheError) -> Self {
        Self::Upstream(error)
    }
}

/// Runs `fill` to its end, which `writer` tells, and takes it off the list.
pub(in crate::cache) async fn run(inner: &Arc<Inner>, fill: &Arc<Fill>, mut writer: Writer) {
    let running = Running::new(inner, fill);
    let (result, end) = match fill_up(inner, fill, &mut writer).await {
        Ok(()) => ("stored", None),
        Err(Problem::Upstream(error)) => {
            let result = if matches!(error, CacheError::Mismatch { .. }) { "mismatch" } else { "failed" };
            tracing::warn!(blob.digest = %fill.digest, %error, "a download ended without its blob");
            (result, Some(End::Failed(error)))
        }
        Err(Problem::Store(download)) => ("bypassed", Some(bypassed(download))),
    };
    inner.metrics.fills.with_label_values(&[result]).inc();
    // Off the list before the end is told: who hears of a failure and tries again must not meet this fill.
    drop(running);
    if let Some(end) = end {
        writer.end(end);
    }
}

fn bypassed(download: Option<Box<Download>>) -> End {
    End::Bypassed(Arc::new(Mutex::new(download.map(|download| download.left_to_a_reader()))))
}

/// A fill under way. Takes it off the list and out of the count, also when its task is cut short.
struct Running<'a> {
    inner: &'a Inner,
    fill: &'a Fill,
    inflight: IntGauge,
}

impl<'a> Running<'a> {
    fn new(inner: &'a Inner, fill: &'a Fill) -> Self {
        let inflight = inner.metrics.fills_inflight.with_label_values(&[] as &[&str]);
        inflight.inc();
        Self { inner, fill, inflight }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.inflight.dec();
        self.inner.fills.remove(self.fill);
    }
}

async fn fill_up(inner: &Inner, fill: &Fill, writer: &mut Writer) -> Result<(), Problem> {
    let (mut download, ingest) = open(inner, fill, writer).await?;
    let Some(mut ingest) = ingest else { return Err(Problem::Store(Some(Box::new(download)))) };
    if let Err(problem) = copy(fill, writer, &mut download, &mut ingest).await {
        if let Problem::Upstream(CacheError::Mismatch { .. }) = problem {
            inner.metrics.digest_failures.with_label_values(&["fill"]).inc();
            ingest.discard().await;
        }
        return Err(problem);
    }
    let length = ingest.received();
    let verified = match ingest.verify().await {
        Ok(verified) => verified,
        Err(VerifyError::Store(error)) => return Err(store_failed(fill, &error)),
        Err(error) => return Err(download.mismatch(&error.to_string()).into()),
    };
    // A content whose length upstream did not announce is opened only now that all of it is there.
    writer.complete(|| Opened { file: verified.file(), length }, length, End::Verified);
    let proven = fill.candidates.proven();
    match verified.given_by(inner.as_givers(&proven)).commit().await {
        Ok(_) => {
            for (repository, asked) in proven {
                inner.store.came_from(&fill.digest, &repository.registry);
                inner.link_blob(&repository, &fill.digest, asked).await;
            }
        }
        Err(error) => tracing::error!(blob.digest = %fill.digest, %error, "a verified blob could not be stored"),
    }
    Ok(())
}

/// Opens the download where a kept part of it ends, and the ingest. No ingest: the store has no room.
async fn open(inner: &Inner, fill: &Fill, writer: &Writer) -> Result<(Download, Option<Ingest>), Problem> {
    let mut ingest = begin(inner, fill).await;
    let mut kept = ingest.as_ref().map_or(0, Ingest::received);
    let mut download = Download::new(fill.digest, Arc::clone(&fill.candidates), kept).followed(&fill.progress);
    let whole = ingest.as_ref().is_some_and(Ingest::is_whole);
    let opened = if whole { download.confirm().await } else { download.open().await };
    match opened {
        // The kept part is all that upstream has, or more: it is not to be gone on with.
        Err(error) if kept > 0 && is_range_refused(&error) => {
            if let Some(ingest) = ingest.take() {
                ingest.discard().await;
            }
            ingest = begin(inner, fill).await;
            kept = 0;
            download = Download::new(fill.digest, Arc::clone(&fill.candidates), 0).followed(&fill.progress);
            download.open().await?;
        }
        result => result?,
    }
    // Before anybody hears that it is open. A fill is opened once.
    let _ = fill.relayed.set(download.relayed().clone());
    download.learn_length().await;
    let Some(length) = download.length() else { return Ok((download, ingest)) };
    let Some(mut open) = ingest else { return Ok((download, None)) };
    if !inner.store.fits(length - kept.min(length)).await {
        inner.probe_idle(|_| true).await;
    }
    if let Err(error) = open.expect_length(length).await {
        no_room(fill, &error);
        open.discard().await;
        // What was kept is gone: a reader must begin with the first byte.
        if kept > 0 {
            download = Download::new(fill.digest, Arc::clone(&fill.candidates), 0).followed(&fill.progress);
            download.open().await?;
        }
        return Ok((download, None));
    }
    fill.pace.begin(kept);
    writer.open(Opened { file: open.file(), length }, kept, before_digest(length));
    Ok((download, Some(open)))
}

async fn begin(inner: &Inner, fill: &Fill) -> Option<Ingest> {
    inner.store.ingest_from(&fill.registry, &fill.digest).await.inspect_err(|error| no_room(fill, error)).ok()
}

fn is_range_refused(error: &CacheError) -> bool {
    matches!(error, CacheError::Upstream(error) if matches!(error.kind(), ErrorKind::Rejected { status: 416, .. }))
}

fn no_room(fill: &Fill, error: &IngestError) {
    tracing::warn!(blob.digest = %fill.digest, %error, "the store takes no download: it passes through and is not kept");
}

/// Reads the download into the ingest: the next chunks arrive while the last ones are hashed and written. What has arrived and is
/// not written is bounded by the channel, so upstream is read no faster than the disk takes.
async fn copy(fill: &Fill, writer: &Writer, download: &mut Download, ingest: &mut Ingest) -> Result<(), Problem> {
    let (sender, mut receiver) = mpsc::channel(CHUNKS);
    let read = async move {
        while let Some(chunk) = download.chunk().await? {
            if sender.send(chunk).await.is_err() {
                break;
            }
        }
        Ok::<_, Problem>(())
    };
    let write = async {
        while let Some(batch) = next_batch(&mut receiver).await {
            let written = ingest.write(batch).await.map_err(|error| store_failed(fill, &error))?;
            writer.advance(written);
        }
        Ok::<_, Problem>(())
    };
    tokio::try_join!(read, write)?;
    Ok(())
}

fn store_failed(fill: &Fill, error: &StoreError) -> Problem {
    tracing::error!(blob.digest = %fill.digest, %error, "the store failed in the middle of a download: it goes on without being kept");
    Problem::Store(None)
}

#[cfg(test)]
mod tests {
    use super::super::Watermark;
    use super::*;
    use crate::cache::fill::candidates::Candidates;
    use crate::oci::{Algorithm, Hasher};

    #[test]
    fn a_download_that_nobody_takes_is_dropped_with_its_fill() {
        let candidates = Arc::new(Candidates::default());
        let digest = Hasher::new(Algorithm::Sha256).finish();
        let (mut writer, mark) = Watermark::new(End::Failed(CacheError::Aborted));
        let download = Download::new(digest, Arc::clone(&candidates), 0).followed(&mark);
        writer.end(bypassed(Some(Box::new(download))));
        assert_eq!(Arc::strong_count(&candidates), 2);
        drop((writer, mark));
        assert_eq!(Arc::strong_count(&candidates), 1, "the download holds the fill that holds it");
    }
}
