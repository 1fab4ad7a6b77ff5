//! The scrub: every stored blob is hashed again, one after another, at a bounded rate, so that damage is found before somebody
//! asks for what it hit.
//!
//! It goes by the order of the digests and writes down how far it has come, so that a restart goes on there. It takes its time
//! between small reads, touches no last use, and gives back the memory that its reads took from content nobody has open.

use crate::oci::Digest;
use crate::store::blobs::pieces::Rehash;
use crate::store::blobs::table::Entry;
use crate::store::disk::{Access, DiskFile};
use crate::store::files::layout;
use crate::store::files::record::Record;
use crate::store::lifecycle::upkeep::{Told, alive};
use crate::store::parts::Inner;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
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

/// Runs until the store is gone or `told` to end. `rate` is in bytes per second.
pub(crate) fn run(weak: &Weak<Inner>, told: &Told, rate: u64) {
    if rate > 0 {
        let _ = passes(weak, told, rate);
    }
}

/// `None`: the store is gone.
fn passes(weak: &Weak<Inner>, told: &Told, rate: u64) -> Option<()> {
    while !is_ready(&*alive(weak)?) {
        told.sleep(LOOK)?;
    }
    let mut place = Place::read(&*alive(weak)?);
    loop {
        let began = tokio::time::Instant::now();
        pass(weak, told, rate, &mut place)?;
        told.sleep(PASS.saturating_sub(began.elapsed()))?;
    }
}

/// Whether all that is there is known, and what an unsynced stop has put in doubt has been looked at.
fn is_ready(inner: &Inner) -> bool {
    inner.walked.load(Ordering::Acquire) && !inner.suspect.load(Ordering::Acquire)
}

/// One blob after another, from where the last process stopped.
fn pass(weak: &Weak<Inner>, told: &Told, rate: u64, place: &mut Place) -> Option<()> {
    let mut all = alive(weak)?.catalogue.all();
    all.retain(|(digest, _)| place.after.is_none_or(|after| *digest > after));
    all.sort_unstable_by_key(|(digest, _)| *digest);
    let mut noted = tokio::time::Instant::now();
    for (digest, entry) in all {
        if hash(weak, told, rate, &digest, &entry).is_none() {
            place.write(&*weak.upgrade()?);
            return None;
        }
        place.after = Some(digest);
        if noted.elapsed() >= NOTE {
            place.write(&*alive(weak)?);
            noted = tokio::time::Instant::now();
        }
    }
    *place = Place { after: None, completed: Some(SystemTime::now()) };
    let inner = alive(weak)?;
    place.write(&inner);
    place.show(&inner);
    Some(())
}

/// Hashes one blob, unless it goes away meanwhile.
fn hash(weak: &Weak<Inner>, told: &Told, rate: u64, digest: &Digest, entry: &Arc<Entry>) -> Option<()> {
    let opened = alive(weak)?.files.disk.open(&layout::blob(digest), Access::Read);
    // What cannot be opened is the next reader's to meet.
    let Ok(file) = opened else { return Some(()) };
    let mut rehash = Rehash::new(*digest);
    let mut done = 0;
    loop {
        let step = rehash.step(&*file, entry.len, STEP);
        let read = STEP.min(entry.len - done);
        done += read;
        told.sleep(Duration::from_nanos(read.saturating_mul(1_000_000_000) / rate))?;
        match step {
            Ok(false) => {}
            Ok(true) => break judge(&*alive(weak)?, digest, entry, &*file, &rehash),
            Err(_) => break set_aside(&*alive(weak)?, digest, entry),
        }
    }
    Some(())
}

fn judge(inner: &Inner, digest: &Digest, entry: &Arc<Entry>, file: &dyn DiskFile, rehash: &Rehash) {
    let Some(pieces) = rehash.pieces() else { return set_aside(inner, digest, entry) };
    if entry.holders() == 0 {
        file.forget();
    }
    let is_current = || inner.catalogue.get(digest).is_some_and(|current| Arc::ptr_eq(&current, entry));
    if inner.read_pieces(digest).as_ref() != Some(&pieces) && is_current() {
        inner.keep_pieces(digest, &pieces);
    }
}

fn set_aside(inner: &Inner, digest: &Digest, entry: &Arc<Entry>) {
    // Whoever is sending it goes on with what is checked again only.
    entry.checked.clear();
    if let Err(error) = inner.quarantine(digest, entry, "scrub") {
        tracing::warn!(blob.digest = %digest, %error, "the scrub found a damaged blob that cannot be set aside");
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
    fn read(inner: &Inner) -> Self {
        let bytes = inner.files.read(Path::new(layout::SCRUB)).ok().flatten();
        let record = bytes.and_then(|bytes| Record::parse(KIND, &bytes));
        let place = record.map_or_else(Self::default, |record| Self {
            after: record.get("after").and_then(|digest| digest.parse().ok()),
            completed: record.time("completed"),
        });
        place.show(inner);
        place
    }

    fn write(&self, inner: &Inner) {
        let mut record = Record::new();
        if let Some(after) = &self.after {
            record = record.with("after", after);
        }
        if let Some(completed) = self.completed {
            record = record.with_time("completed", completed);
        }
        if let Err(error) = inner.files.replace(Path::new(layout::SCRUB), &record.to_bytes(KIND)) {
            tracing::debug!(%error, "cannot write down how far the scrub has come; a restart begins again");
        }
    }

    fn show(&self, inner: &Inner) {
        let Some(completed) = self.completed else { return };
        let seconds = completed.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let gauge = inner.metrics.scrub_last_completed.with_label_values(&[] as &[&str]);
        gauge.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
}
