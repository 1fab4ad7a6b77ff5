//! Hits while a download has 100,000 blobs removed to make room, beside hits before it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::Result;
use super::client::{Connection, Sink, paced, percentile};
use super::content::{Artifact, Blob};
use super::origin::Origin;
use super::peers::{LARDER, counted, larder_with, store_of};
use super::report::Figure;

/// What is removed at least, of so many small blobs.
const REMOVED: usize = 100_000;
const BLOBS: usize = 110_000;
const SIZE: usize = 1 << 10;
/// As many bytes as the small blobs need not to be over the watermark that has some of them removed beforehand.
const LIMIT: usize = 125_000_000;
/// The download that needs their room.
const LARGE: usize = LIMIT / 100 * 90;
const PER_SECOND: u32 = 1_000;
const ALONE: Duration = Duration::from_secs(3);
/// The hits before the removal.
const BEFORE: &str = "before";

pub(super) fn measure(rounds: usize) -> Result<Vec<Figure>> {
    let mut tail = Figure::new("hit beside the removal of 100,000 blobs, p99", "ms").at_most_times(LARDER, BEFORE, 2.0);
    let mut middle = Figure::new("hit beside the removal of 100,000 blobs, p50", "ms");
    let mut took = Figure::new("removal of 100,000 blobs", "s");
    let origin = Origin::start(0)?;
    let (hot, large) = (Artifact::fresh("bench/evict", &[64 << 10]), Artifact::fresh("bench/evict", &[LARGE]));
    origin.add(&hot);
    origin.add(&large);
    for _ in 0..rounds {
        let folder = tempfile::tempdir()?;
        let start = || larder_with(folder.path(), origin.port, ("LARDER_STORE__MAX_SIZE", &format!("\"{LIMIT}B\"")));
        let paths = [hot.manifest_path(), hot.blob_path(&hot.blobs[1])];
        let first = start()?;
        for path in &paths {
            Connection::open(first.port)?.get(path, Sink::Discard)?;
        }
        drop(first);
        let blobs = store_of(folder.path()).join("blobs/sha256");
        fill(&blobs)?;

        let server = start()?;
        counted(folder.path())?;
        // A client has the manifest before it asks for what it names.
        Connection::open(server.port)?.get(&large.manifest_path(), Sink::Discard)?;
        let began = Instant::now();
        let mut before = paced(server.port, &paths, PER_SECOND, || began.elapsed() > ALONE)?;
        let had = fs::read_dir(&blobs)?.count();
        let mut beside = std::thread::scope(|scope| {
            let download = scope.spawn(|| {
                let began = Instant::now();
                Connection::open(server.port)?.begin(&large.blob_path(&large.blobs[1]))?;
                Ok(began.elapsed())
            });
            let beside = paced(server.port, &paths, PER_SECOND, || download.is_finished());
            let removed: Result<Duration> = download.join().map_err(|_| "the download panicked")?;
            took.add(LARDER, removed?.as_secs_f64());
            beside
        })
        .map_err(|error| format!("{error}\n{}", server.last_words()))?;
        let removed = had.saturating_sub(fs::read_dir(&blobs)?.count());
        if removed < REMOVED {
            return Err(format!("no more than {removed} blobs of {had} were removed for the download").into());
        }
        for (name, times) in [(BEFORE, &mut before), (LARDER, &mut beside)] {
            tail.add(name, percentile(times, 99));
            middle.add(name, percentile(times, 50));
        }
    }
    Ok(vec![tail, middle, took])
}

/// Blobs that no upstream is known to have given, as an operator may have put them there.
fn fill(folder: &Path) -> Result<()> {
    for _ in 0..BLOBS {
        let blob = Blob::fresh(SIZE);
        fs::write(folder.join(&blob.digest["sha256:".len()..]), &blob.bytes)?;
    }
    Ok(())
}
