//! A plan as archives: one, or several of at most a given length, each of which is a tar by itself.
//!
//! Every volume begins with `oci-layout`. `index.json`, `larder.json` and all manifests stand in the first volume, so that one pass
//! from a pipe knows what is coming, and again at the end of the last one. A blob longer than a volume goes in slices. Where there
//! may be several volumes, each says which one it is, before its first content.

use super::index::{self, FORMAT, LAYOUT, VolumeNotes};
use super::plan::{Item, Plan};
use super::tar::{Content, END, Entry};
use crate::oci::{Algorithm, Digest};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;

/// What a volume must hold beside content: headers, and a slice that is worth its header.
const LEAST: u64 = 1 << 20;
/// The file in which a volume says which one it is.
const NOTES: &str = "larder-volume.json";

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
    /// The whole length of each blob of which it has a slice.
    slices: BTreeMap<String, u64>,
}

impl Volume {
    fn begin() -> Self {
        let mut volume = Self { length: END, ..Self::default() };
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

    /// What it begins with, before the first stored content: no other bundle begins so.
    #[must_use]
    pub fn opening(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        for entry in &self.entries {
            let Content::Memory(content) = &entry.content else { break };
            bytes.extend_from_slice(&entry.head());
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len() + entry.padding(), 0);
        }
        bytes.freeze()
    }
}

/// Lays `plan` out. The index comes beside it: its hash is what a receiver may insist on.
pub fn volumes(plan: &Plan, limit: Option<u64>) -> Result<(Vec<Volume>, Bytes), TooSmall> {
    let (index, notes) = (index::index(plan), index::notes(plan, limit));
    let files = [Entry::memory("index.json", index.clone()), Entry::memory("larder.json", notes.clone())];
    let manifests: Vec<Entry> =
        plan.manifests.iter().map(|manifest| Entry::blob(manifest.digest, manifest.size)).collect();
    let head_length: u64 = files.iter().chain(&manifests).map(Entry::len).sum();
    let mut layout = Layout::begin(limit);
    let needed = layout.room() + head_length + LEAST;
    if layout.limit < needed {
        return Err(TooSmall { needed, given: layout.limit });
    }
    // The first volume says what it is behind the index, which stands where every reader looks for it.
    layout.current = Volume::begin();
    files.iter().cloned().for_each(|entry| layout.current.push(entry));
    layout.number();
    manifests.iter().cloned().for_each(|entry| layout.current.push(entry));
    plan.blobs.iter().for_each(|blob| layout.add(*blob));
    if !layout.done.is_empty() {
        if layout.current.length + head_length > layout.limit {
            layout.next();
        }
        files.into_iter().chain(manifests).for_each(|entry| layout.current.push(entry));
    }
    Ok((layout.finish(&index, &notes), index))
}

/// Volumes being filled.
struct Layout {
    limit: u64,
    /// Whether each says which one it is.
    numbered: bool,
    done: Vec<Volume>,
    current: Volume,
}

impl Layout {
    fn begin(limit: Option<u64>) -> Self {
        let (numbered, limit) = (limit.is_some(), limit.unwrap_or(u64::MAX));
        let mut layout = Self { limit, numbered, done: Vec::new(), current: Volume::begin() };
        layout.number();
        layout
    }

    /// The length of a volume without content.
    fn room(&self) -> u64 {
        let notes = Entry::memory(NOTES, VolumeNotes::placeholder()).len();
        Volume::begin().length + if self.numbered { notes } else { 0 }
    }

    fn number(&mut self) {
        if self.numbered {
            self.current.push(Entry::memory(NOTES, VolumeNotes::placeholder()));
        }
    }

    fn next(&mut self) {
        self.done.push(std::mem::replace(&mut self.current, Volume::begin()));
        self.number();
    }

    fn add(&mut self, blob: Item) {
        let whole = Entry::blob(blob.digest, blob.size);
        if self.current.length + whole.len() <= self.limit {
            self.current.push(whole);
        } else if self.room() + whole.len() <= self.limit {
            self.next();
            self.current.push(whole);
        } else {
            self.slice(blob);
        }
    }

    /// Every volume but the last is filled to its end.
    fn slice(&mut self, Item { digest, size }: Item) {
        let mut at = 0;
        while at < size {
            let left = self.limit.saturating_sub(self.current.length);
            // A long digest or a long slice has a longer header.
            let head = Entry::slice(digest, at..at.saturating_add(left)).head().len() as u64;
            let free = left.saturating_sub(head) / 512 * 512;
            // A whole volume has more than this, whatever its header: see `volumes`.
            if free < (LEAST / 2).min(size - at) {
                self.next();
                continue;
            }
            let end = size.min(at + free);
            self.current.push(Entry::slice(digest, at..end));
            self.current.slices.insert(digest.to_string(), size);
            at = end;
        }
    }

    fn finish(mut self, index: &[u8], notes: &[u8]) -> Vec<Volume> {
        self.done.push(self.current);
        let of = u32::try_from(self.done.len()).unwrap_or(u32::MAX);
        let bundle = index::fingerprint(index, notes).hex();
        let index = Digest::of(Algorithm::Sha256, index).hex();
        for (volume, archive) in (1..).zip(&mut self.done) {
            let slices = std::mem::take(&mut archive.slices);
            let notes =
                VolumeNotes { larder: FORMAT, bundle: bundle.clone(), index: index.clone(), volume, of, slices };
            for entry in archive.entries.iter_mut().filter(|entry| entry.name == NOTES) {
                entry.content = Content::Memory(notes.to_bytes());
            }
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(sizes: &[u64]) -> Plan {
        let digest = |number: usize| {
            let algorithm = if number % 3 == 2 { Algorithm::Sha512 } else { Algorithm::Sha256 };
            Digest::of(algorithm, &number.to_le_bytes())
        };
        let blobs = sizes.iter().enumerate().map(|(number, size)| Item { digest: digest(number), size: *size });
        let manifests = vec![Item { digest: digest(1 << 20), size: 5000 }];
        Plan { blobs: blobs.collect(), manifests, ..Plan::default() }
    }

    /// Every byte of every blob once, in order, and no volume longer than it may be.
    fn check(plan: &Plan, limit: u64) -> Vec<Volume> {
        let (volumes, _) = volumes(plan, Some(limit)).unwrap();
        let mut parts: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        for volume in &volumes {
            let length: u64 = volume.entries.iter().map(Entry::len).sum();
            assert_eq!(length + END, volume.length());
            assert!(volume.length() <= limit, "{} of {limit}", volume.length());
            for entry in &volume.entries {
                if let Content::Blob(digest, range) = &entry.content {
                    parts.entry(digest.to_string()).or_default().push((range.start, range.end));
                }
            }
            let notes = volume.entries.iter().find(|entry| entry.name == NOTES).unwrap();
            let Content::Memory(notes) = &notes.content else { panic!("in memory") };
            let notes: VolumeNotes = serde_json::from_slice(notes).unwrap();
            assert_eq!(notes.of as usize, volumes.len());
        }
        for blob in &plan.blobs {
            let mut at = 0;
            for (start, end) in &parts[&blob.digest.to_string()] {
                assert_eq!(*start, at);
                at = *end;
            }
            assert_eq!(at, blob.size);
        }
        volumes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_byte_is_in_one_volume_and_no_volume_is_too_long(
            sizes in prop::collection::vec(1..20_u64 << 20, 1..12),
            limit in (1_u64 << 20) + 20_000..9 << 20,
        ) {
            check(&plan(&sizes), limit);
        }
    }

    #[test]
    fn slices_beyond_eight_gibibytes_fit_their_volume() {
        let volumes = check(&plan(&[100 << 30, 100 << 30, 100 << 30]), 9 << 30);
        assert!(volumes.len() >= 34 && volumes[1].entries.iter().any(|entry| entry.name.starts_with("larder-slices/")));
    }

    #[test]
    fn a_volume_that_holds_no_manifests_says_what_it_needs() {
        let error = volumes(&plan(&[1]), Some(1000)).unwrap_err();
        assert!(error.to_string().contains("at least 105"), "{error}");
    }
}
