//! The scrub: every stored blob is hashed again, one after another, at a bounded rate, so that damage is found before a client asks
//! for the blob.
//!
//! It goes in the order of the digests and writes down how far it has come, so that a restart continues there. It pauses between
//! small reads, touches no last use, and gives back the memory that its reads took from content that no reader has open.

use crate::oci::Digest;
use crate::store::blobs::{BlobEntry, Blobs, Rehash};
use crate::store::disk::{Access, DiskFile};
use crate::store::files::{Files, Record, layout};
use crate::store::jobs::Stop;
use crate::telemetry::Metrics;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes read and hashed at a time.
const STEP: u64 = 1 << 20;
/// From the beginning of one pass to that of the next, at least.
const PASS: Duration = Duration::from_secs(3600);
/// How often it is written down how far the pass has come.
const NOTE: Duration = Duration::from_secs(60);
/// How often it is asked whether the store has been counted.
const LOOK: Duration = Duration::from_millis(200);
const KIND: &str = "scrub";

pub(crate) struct Scrub {
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: Arc<Stop>,
    /// Whether all that is there has been counted.
    pub(crate) counted: Arc<AtomicBool>,
    /// Bytes per second.
    pub(crate) rate: u64,
}

impl Scrub {
    /// Runs until the store is closed.
    pub(crate) fn run(&self) {
        if self.rate > 0 {
            let _ = self.passes();
        }
    }

    fn passes(&self) -> Option<()> {
        while !self.is_ready() {
            self.stop.sleep(LOOK)?;
        }
        let mut place = Place::read(&self.blobs.files, &self.metrics);
        loop {
            let began = tokio::time::Instant::now();
            self.pass(&mut place)?;
            self.stop.sleep(PASS.saturating_sub(began.elapsed()))?;
        }
    }

    /// Whether all blobs are known, and what an unsynced stop has put in doubt has been looked at.
    fn is_ready(&self) -> bool {
        self.counted.load(Ordering::Acquire) && !self.blobs.is_suspect()
    }

    /// One blob after another, from where the last process stopped.
    fn pass(&self, place: &mut Place) -> Option<()> {
        let mut all = self.blobs.table.all();
        all.retain(|(digest, _)| place.after.is_none_or(|after| *digest > after));
        all.sort_unstable_by_key(|(digest, _)| *digest);
        let mut noted = tokio::time::Instant::now();
        for (digest, entry) in all {
            if self.hash(&digest, &entry).is_none() {
                place.write(&self.blobs.files);
                return None;
            }
            place.after = Some(digest);
            if noted.elapsed() >= NOTE {
                place.write(&self.blobs.files);
                noted = tokio::time::Instant::now();
            }
        }
        *place = Place { after: None, completed: Some(SystemTime::now()) };
        place.write(&self.blobs.files);
        place.show(&self.metrics);
        Some(())
    }

    /// Hashes one blob, unless it is removed meanwhile.
    fn hash(&self, digest: &Digest, entry: &Arc<BlobEntry>) -> Option<()> {
        self.stop.check()?;
        // What cannot be opened is left to the next reader.
        let Ok(file) = self.blobs.files.disk.open(&layout::blob(digest), Access::Read) else { return Some(()) };
        let mut rehash = Rehash::new(*digest);
        let mut done = 0;
        loop {
            let step = rehash.step(&*file, entry.len, STEP);
            let read = STEP.min(entry.len - done);
            done += read;
            self.stop.sleep(Duration::from_nanos(read.saturating_mul(1_000_000_000) / self.rate))?;
            match step {
                Ok(false) => {}
                Ok(true) => break self.judge(digest, entry, &*file, &rehash),
                Err(_) => break self.set_aside(digest, entry),
            }
        }
        Some(())
    }

    fn judge(&self, digest: &Digest, entry: &Arc<BlobEntry>, file: &dyn DiskFile, rehash: &Rehash) {
        let Some(pieces) = rehash.pieces() else { return self.set_aside(digest, entry) };
        if entry.holders() == 0 {
            file.forget();
        }
        let soundness = &self.blobs.soundness;
        let is_current = || self.blobs.table.get(digest).is_some_and(|current| Arc::ptr_eq(&current, entry));
        if soundness.pieces(digest).as_ref() != Some(&pieces) && is_current() {
            soundness.keep_pieces(digest, &pieces);
        }
    }

    fn set_aside(&self, digest: &Digest, entry: &Arc<BlobEntry>) {
        // A reader that is sending it sends only what is checked again.
        entry.checked.clear();
        if let Err(error) = self.blobs.soundness.set_aside_if(digest, entry, "scrub") {
            tracing::warn!(blob.digest = %digest, %error, "the scrub found a damaged blob that cannot be set aside");
        }
    }
}

/// How far the pass has come, and when the last one was complete.
#[derive(Default)]
struct Place {
    after: Option<Digest>,
    completed: Option<SystemTime>,
}

impl Place {
    /// What cannot be read means a pass from the beginning.
    fn read(files: &Files, metrics: &Metrics) -> Self {
        let bytes = files.read(Path::new(layout::SCRUB)).ok().flatten();
        let record = bytes.and_then(|bytes| Record::parse(KIND, &bytes));
        let place = record.map_or_else(Self::default, |record| Self {
            after: record.get("after").and_then(|digest| digest.parse().ok()),
            completed: record.time("completed"),
        });
        place.show(metrics);
        place
    }

    fn write(&self, files: &Files) {
        let mut record = Record::new();
        if let Some(after) = &self.after {
            record = record.with("after", after);
        }
        if let Some(completed) = self.completed {
            record = record.with_time("completed", completed);
        }
        if let Err(error) = files.replace(Path::new(layout::SCRUB), &record.to_bytes(KIND)) {
            tracing::debug!(%error, "cannot write down how far the scrub has come; a restart begins again");
        }
    }

    fn show(&self, metrics: &Metrics) {
        let Some(completed) = self.completed else { return };
        let seconds = completed.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let gauge = metrics.scrub_last_completed.with_label_values(&[] as &[&str]);
        gauge.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
}
