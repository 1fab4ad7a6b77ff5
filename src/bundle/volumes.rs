//! A plan as archives: one, or several of at most a given length, each of which is a tar by itself.
//!
//! Every volume begins with `oci-layout`. `index.json`, `larder.json` and all manifests stand in the first volume, so that one pass
//! from a pipe knows what is coming, and again at the end of the last one. A blob longer than a volume goes in slices.

use super::index::{self, LAYOUT};
use super::plan::Plan;
use super::tar::{END, Entry};
use bytes::Bytes;

/// What a volume must hold beside content: headers, and a slice that is worth its header.
const LEAST: u64 = 1 << 20;

/// The volume's length is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a volume must hold all manifests of the scope: give at least {needed} bytes, not {given}")]
pub struct TooSmall {
    needed: u64,
    given: u64,
}

/// One archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Its files, in order.
    pub entries: Vec<Entry>,
    length: u64,
}

impl Volume {
    fn begin() -> Self {
        let mut volume = Self { entries: Vec::new(), length: END };
        volume.push(Entry::memory("oci-layout", Bytes::from_static(LAYOUT)));
        volume
    }

    fn push(&mut self, entry: Entry) {
        self.length += entry.len();
        self.entries.push(entry);
    }

    /// The archive's bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }
}

/// Lays `plan` out. The index comes beside it: its hash is what a receiver may insist on.
pub fn volumes(plan: &Plan, limit: Option<u64>) -> Result<(Vec<Volume>, Bytes), TooSmall> {
    let limit = limit.unwrap_or(u64::MAX);
    let head = head(plan, limit);
    let head_length: u64 = head.iter().map(Entry::len).sum();
    let room = Volume::begin();
    let needed = room.length + head_length + LEAST;
    if limit < needed {
        return Err(TooSmall { needed, given: limit });
    }
    let mut done = Vec::new();
    let mut volume = room.clone();
    head.iter().cloned().for_each(|entry| volume.push(entry));
    for blob in &plan.blobs {
        let whole = Entry::blob(blob.digest, blob.size);
        if volume.length + whole.len() <= limit {
            volume.push(whole);
        } else if room.length + whole.len() <= limit {
            done.push(std::mem::replace(&mut volume, room.clone()));
            volume.push(whole);
        } else {
            slice(&mut done, &mut volume, &room, limit, (blob.digest, blob.size));
        }
    }
    if !done.is_empty() {
        if volume.length + head_length > limit {
            done.push(std::mem::replace(&mut volume, room));
        }
        head.iter().cloned().for_each(|entry| volume.push(entry));
    }
    done.push(volume);
    Ok((done, index::index(plan)))
}

/// Every volume but the last is filled to its end.
fn slice(
    done: &mut Vec<Volume>,
    volume: &mut Volume,
    room: &Volume,
    limit: u64,
    (digest, size): (crate::oci::Digest, u64),
) {
    let mut at = 0;
    while at < size {
        // A slice's head is one block, and its end is padded to another.
        let free = limit.saturating_sub(volume.length).saturating_sub(1024) / 512 * 512;
        if free < LEAST.min(size - at) {
            done.push(std::mem::replace(volume, room.clone()));
            continue;
        }
        let end = size.min(at + free);
        volume.push(Entry::slice(digest, at..end));
        at = end;
    }
}

/// What the first volume begins with.
fn head(plan: &Plan, limit: u64) -> Vec<Entry> {
    let sliced =
        plan.blobs.iter().any(|blob| Volume::begin().length + Entry::blob(blob.digest, blob.size).len() > limit);
    let files = [
        Entry::memory("index.json", index::index(plan)),
        Entry::memory("larder.json", index::notes(plan, sliced.then_some(limit))),
    ];
    let manifests = plan.manifests.iter().map(|manifest| Entry::blob(manifest.digest, manifest.size));
    files.into_iter().chain(manifests).collect()
}
