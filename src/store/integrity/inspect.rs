//! Every stored blob hashed again at once, at an operator's word, while the store is in use.
//!
//! A damaged blob is checked again before it is next sent, and set aside if a repair was asked for. One inspection runs at a time,
//! on a thread of its own, as fast as the disk gives; it touches no last use.

use crate::oci::Digest;
use crate::store::blobs::{BlobEntry, Blobs, Rehash};
use crate::store::disk::{Access, is_absent};
use crate::store::error::StoreError;
use crate::store::files::layout;
use crate::store::jobs::{Stop, Thread};
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;

/// Bytes read and hashed before it is asked whether the store was closed.
const STEP: u64 = 4 << 20;
/// Damaged blobs that are named; more are counted.
const NAMED: usize = 1000;

/// How far a look at all blobs has come, and what it has found.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// Whether it has come to its end.
    pub done: bool,
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of all blobs that there were when it began.
    pub of_bytes: u64,
    pub damaged: u64,
    /// Which, as far as their number allows.
    pub named: Vec<DamagedBlob>,
}

/// A blob that is not as it was stored.
#[derive(Clone, Debug)]
pub struct DamagedBlob {
    /// The digest that it should have.
    pub digest: Digest,
    /// What is wrong.
    pub problem: String,
    /// Whether it was set aside, so that the next pull fetches it.
    pub set_aside: bool,
}

/// What a look at one blob has shown.
enum Look {
    /// It is sound, or was removed meanwhile.
    Fine,
    Damaged(String),
}

pub(crate) struct Inspector {
    blobs: Arc<Blobs>,
    stop: Arc<Stop>,
    /// The last inspection.
    state: Mutex<Option<Inspection>>,
}

impl Inspector {
    pub(crate) fn new(blobs: Arc<Blobs>, stop: Arc<Stop>) -> Self {
        Self { blobs, stop, state: Mutex::default() }
    }

    pub(crate) fn state(&self) -> Option<Inspection> {
        self.state.lock().clone()
    }

    /// Begins an inspection. `None`: one is running already.
    pub(crate) fn begin(self: &Arc<Self>, repair: bool) -> Result<Option<Thread>, StoreError> {
        let mut state = self.state.lock();
        if state.as_ref().is_some_and(|inspection| !inspection.done) {
            return Ok(None);
        }
        let all = self.blobs.table.all();
        let of_bytes = all.iter().map(|(_, entry)| entry.len).sum();
        *state = Some(Inspection { of_bytes, ..Inspection::default() });
        drop(state);
        let theirs = Arc::clone(self);
        let begun = Thread::start("larder-verify", move || {
            let _ = theirs.inspect(all, repair);
            theirs.note(|inspection| inspection.done = true);
        });
        Ok(Some(begun.map_err(StoreError::io("start a thread for", Path::new(layout::BLOBS)))?))
    }

    fn note(&self, found: impl FnOnce(&mut Inspection)) {
        self.state.lock().as_mut().map(found);
    }

    fn inspect(&self, mut all: Vec<(Digest, Arc<BlobEntry>)>, repair: bool) -> Option<()> {
        all.sort_unstable_by_key(|(digest, _)| *digest);
        for (digest, entry) in all {
            let Look::Damaged(problem) = self.look_at(&digest, &entry)? else { continue };
            // A reader that is sending it sends only what is checked again.
            entry.checked.clear();
            let set_aside = repair && self.set_aside(&digest, &entry);
            self.note(|inspection| {
                inspection.blobs += 1;
                inspection.bytes += entry.len;
                inspection.damaged += 1;
                if inspection.named.len() < NAMED {
                    inspection.named.push(DamagedBlob { digest, problem, set_aside });
                }
            });
        }
        Some(())
    }

    /// Hashes a blob, and notes it if it is sound. `None`: the store was closed.
    fn look_at(&self, digest: &Digest, entry: &BlobEntry) -> Option<Look> {
        let unreadable = |error: &std::io::Error| Some(Look::Damaged(format!("it cannot be read: {error}")));
        let file = match self.blobs.files.disk.open(&layout::blob(digest), Access::Read) {
            Ok(file) => file,
            // It was removed meanwhile.
            Err(error) if is_absent(&error) => return Some(Look::Fine),
            Err(error) => return unreadable(&error),
        };
        let mut rehash = Rehash::new(*digest);
        loop {
            self.stop.check()?;
            match rehash.step(&*file, entry.len, STEP) {
                Ok(false) => {}
                Ok(true) => break,
                Err(error) => return unreadable(&error),
            }
        }
        if rehash.pieces().is_none() {
            return Some(Look::Damaged(format!("its {} bytes have another digest", entry.len)));
        }
        self.note(|inspection| {
            inspection.blobs += 1;
            inspection.bytes += entry.len;
        });
        Some(Look::Fine)
    }

    fn set_aside(&self, digest: &Digest, entry: &Arc<BlobEntry>) -> bool {
        let set_aside = self.blobs.soundness.set_aside_if(digest, entry, "scrub");
        set_aside
            .inspect_err(|error| tracing::warn!(blob.digest = %digest, %error, "a damaged blob cannot be set aside"))
            .is_ok()
    }
}
