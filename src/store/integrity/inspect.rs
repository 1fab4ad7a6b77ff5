//! Every stored blob hashed again at once, at an operator's word, while the store is in use.
//!
//! What is found damaged is checked again before it is next sent, and set aside if a repair was asked for. One such look runs at a
//! time, on a thread of its own, as fast as the disk gives; it touches no last use.

use crate::oci::Digest;
use crate::store::blobs::pieces::Rehash;
use crate::store::blobs::table::Entry;
use crate::store::disk::Access;
use crate::store::error::StoreError;
use crate::store::files::layout;
use crate::store::files::small::is_absent;
use crate::store::lifecycle::upkeep::{Background, Told, alive};
use crate::store::parts::Inner;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Bytes read and hashed before it is asked whether the store is still there.
const STEP: u64 = 4 << 20;
/// Damaged blobs that are named; more are counted.
const NAMED: usize = 1000;

/// How far a look at all blobs has come, and what it has found.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// Whether it has come to its end.
    pub done: bool,
    /// Blobs hashed.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of all blobs that there were when it began.
    pub of_bytes: u64,
    /// How many are damaged.
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

impl Inner {
    /// Begins to look at all blobs. `false`: that goes on already.
    pub(crate) fn begin_inspection(self: &Arc<Self>, repair: bool) -> Result<bool, StoreError> {
        let mut state = self.inspection.lock();
        if state.as_ref().is_some_and(|inspection| !inspection.done) {
            return Ok(false);
        }
        let all = self.catalogue.all();
        let of_bytes = all.iter().map(|(_, entry)| entry.len).sum();
        *state = Some(Inspection { of_bytes, ..Inspection::default() });
        drop(state);
        let begun = Background::start("larder-verify", self, move |weak, told| {
            inspect(weak, told, all, repair);
            if let Some(inner) = weak.upgrade()
                && let Some(inspection) = &mut *inner.inspection.lock()
            {
                inspection.done = true;
            }
        });
        let thread = begun.map_err(StoreError::io("start a thread for", Path::new(layout::BLOBS)))?;
        let mut threads = self.background.lock();
        threads.retain_mut(|thread| !thread.has_ended());
        threads.push(thread);
        Ok(true)
    }

    pub(crate) fn inspection(&self) -> Option<Inspection> {
        self.inspection.lock().clone()
    }

    fn note(&self, found: impl FnOnce(&mut Inspection)) {
        self.inspection.lock().as_mut().map(found);
    }
}

fn inspect(weak: &Weak<Inner>, told: &Told, mut all: Vec<(Digest, Arc<Entry>)>, repair: bool) {
    all.sort_unstable_by_key(|(digest, _)| *digest);
    for (digest, entry) in all {
        if look_at(weak, told, &digest, &entry, repair).is_none() {
            return;
        }
    }
}

/// `None`: the store is gone.
fn look_at(weak: &Weak<Inner>, told: &Told, digest: &Digest, entry: &Arc<Entry>, repair: bool) -> Option<()> {
    let opened = alive(weak)?.files.disk.open(&layout::blob(digest), Access::Read);
    let file = match opened {
        Ok(file) => file,
        // It was removed meanwhile.
        Err(error) if is_absent(&error) => return Some(()),
        Err(error) => return damaged(weak, digest, entry, &format!("it cannot be read: {error}"), repair),
    };
    let mut rehash = Rehash::new(*digest);
    loop {
        told.sleep(Duration::ZERO)?;
        match rehash.step(&*file, entry.len, STEP) {
            Ok(false) => {}
            Ok(true) => break,
            Err(error) => return damaged(weak, digest, entry, &format!("it cannot be read: {error}"), repair),
        }
    }
    if rehash.pieces().is_none() {
        let problem = format!("its {} bytes have another digest", entry.len);
        return damaged(weak, digest, entry, &problem, repair);
    }
    alive(weak)?.note(|inspection| {
        inspection.blobs += 1;
        inspection.bytes += entry.len;
    });
    Some(())
}

fn damaged(weak: &Weak<Inner>, digest: &Digest, entry: &Arc<Entry>, problem: &str, repair: bool) -> Option<()> {
    let inner = alive(weak)?;
    // Whoever is sending it goes on with what is checked again only.
    entry.checked.clear();
    let set_aside = repair
        && inner
            .quarantine(digest, entry, "scrub")
            .inspect_err(|error| tracing::warn!(blob.digest = %digest, %error, "a damaged blob cannot be set aside"))
            .is_ok();
    inner.note(|inspection| {
        inspection.blobs += 1;
        inspection.bytes += entry.len;
        inspection.damaged += 1;
        if inspection.named.len() < NAMED {
            inspection.named.push(DamagedBlob { digest: *digest, problem: problem.to_owned(), set_aside });
        }
    });
    Some(())
}
