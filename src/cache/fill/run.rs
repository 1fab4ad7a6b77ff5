use super::download::Download;
use super::shared::{End, Fill, Opened, Writer, before_digest};
use crate::cache::batch::next_batch;
use crate::cache::error::CacheError;
use crate::cache::single_flight::Entry;
use crate::cache::upstream_state::Probes;
use crate::cache::vouch::Vouch;
use crate::oci::{Digest, Registry};
use crate::store::{Ingest, IngestError, Store, StoreError, VerifyError};
use crate::telemetry::{IntGauge, Metrics};
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

/// What fills work with.
#[derive(Debug)]
pub(in crate::cache) struct FillContext {
    pub(in crate::cache) store: Store,
    pub(in crate::cache) vouch: Arc<Vouch>,
    pub(in crate::cache) probes: Arc<Probes>,
    pub(in crate::cache) metrics: Arc<Metrics>,
}

/// Runs the fill of `entry` to its end, which `writer` tells.
pub(super) async fn run(context: &FillContext, entry: Entry<(Registry, Digest), Fill>, mut writer: Writer) {
    // Dropped before the writer, also when the task is cut short.
    let listed = (entry, Counted::new(context.metrics.fills_inflight.with_label_values(&[] as &[&str])));
    let fill = Arc::clone(listed.0.value());
    let (result, end) = match fill_up(context, &fill, &mut writer).await {
        Ok(()) => ("stored", None),
        Err(Problem::Upstream(error)) => {
            let result = if matches!(error, CacheError::Mismatch { .. }) { "mismatch" } else { "failed" };
            tracing::warn!(blob.digest = %fill.digest, %error, "a download ended without its blob");
            (result, Some(End::Failed(error)))
        }
        Err(Problem::Store(download)) => ("bypassed", Some(bypassed(download))),
    };
    context.metrics.fills.with_label_values(&[result]).inc();
    // Off the list before the end is told: a request that hears of a failure and tries again must not meet this fill.
    drop(listed);
    if let Some(end) = end {
        writer.end(end);
    }
}

fn bypassed(download: Option<Box<Download>>) -> End {
    End::Bypassed(Arc::new(Mutex::new(download.map(|download| download.left_to_a_reader()))))
}

/// A fill in the count of those under way, also when its task is cut short.
struct Counted(IntGauge);

impl Counted {
    fn new(inflight: IntGauge) -> Self {
        inflight.inc();
        Self(inflight)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn fill_up(context: &FillContext, fill: &Fill, writer: &mut Writer) -> Result<(), Problem> {
    let (mut download, ingest) = open(context, fill, writer).await?;
    let Some(mut ingest) = ingest else { return Err(Problem::Store(Some(Box::new(download)))) };
    if let Err(problem) = copy(fill, writer, &mut download, &mut ingest).await {
        if let Problem::Upstream(CacheError::Mismatch { .. }) = problem {
            context.metrics.digest_failures.with_label_values(&["fill"]).inc();
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
    let opened = Opened { file: verified.file(), length };
    writer.complete(|| opened.clone(), length, End::Verified(opened.clone()));
    let proven = fill.candidates.proven();
    let givers = proven.iter().map(|view| context.vouch.as_giver(view.repository())).collect();
    match verified.given_by(givers).commit().await {
        Ok(_) => {
            for view in proven {
                context.store.came_from(&fill.digest, &view.repository().registry);
                context.vouch.link_blob(&view, &fill.digest).await;
            }
        }
        Err(error) => tracing::error!(blob.digest = %fill.digest, %error, "a verified blob could not be stored"),
    }
    Ok(())
}

/// Opens the download where a kept part of it ends, and the ingest. No ingest: the store has no room.
async fn open(context: &FillContext, fill: &Fill, writer: &Writer) -> Result<(Download, Option<Ingest>), Problem> {
    let mut ingest = begin(context, fill).await;
    let mut kept = ingest.as_ref().map_or(0, Ingest::received);
    let mut download = Download::new(fill.digest, Arc::clone(&fill.candidates), kept).followed(&fill.progress);
    let whole = ingest.as_ref().is_some_and(Ingest::is_whole);
    let opened = if whole { download.confirm().await } else { download.open().await };
    match opened {
        // The kept part is all that upstream has, or more: it cannot be continued.
        Err(error) if kept > 0 && is_range_refused(&error) => {
            if let Some(ingest) = ingest.take() {
                ingest.discard().await;
            }
            ingest = begin(context, fill).await;
            kept = 0;
            download = Download::new(fill.digest, Arc::clone(&fill.candidates), 0).followed(&fill.progress);
            download.open().await?;
        }
        result => result?,
    }
    // Set before a reader hears that it is open. A fill is opened once.
    let _ = fill.relayed.set(download.relayed().clone());
    download.learn_length().await;
    let Some(length) = download.length() else { return Ok((download, ingest)) };
    let Some(mut open) = ingest else { return Ok((download, None)) };
    if !context.store.fits(length - kept.min(length)).await {
        context.probes.probe_idle(false).await;
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

async fn begin(context: &FillContext, fill: &Fill) -> Option<Ingest> {
    context.store.ingest_from(&fill.registry, &fill.digest).await.inspect_err(|error| no_room(fill, error)).ok()
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
    use super::super::candidates::Candidates;
    use super::super::shared::Watermark;
    use super::*;
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
