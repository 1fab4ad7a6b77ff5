//! The pieces of a blob: one CRC32C for every MiB, so that a part of a large blob can be checked without reading all of it.
//!
//! They are summed while content is written and hashed, kept in a small file beside the blob, and made anew by a full hash when
//! that file is missing or damaged. They find what a disk does to content; they prove nothing about who made it: that is what
//! the digest is for.

use crate::oci::{Digest, Hasher};
use crate::store::disk::{DiskFile, read_exact_at};
use crate::store::files::Record;
use std::fmt::Write as _;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes that one checksum stands for. A blob of no more is checked by its digest.
pub(crate) const PIECE: u64 = 1 << 20;
/// Bytes read at a time: small enough to be still in the processor's cache when they are summed.
const BUFFER: usize = 128 << 10;
const KIND: &str = "pieces";

/// The numbers of the pieces that `range` touches.
fn touched(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() { 0..0 } else { range.start / PIECE..range.end.div_ceil(PIECE) }
}

/// The checksums of a content on its way.
#[derive(Default)]
pub(crate) struct Summing {
    sums: Vec<u32>,
    crc: u32,
    filled: u64,
}

impl Summing {
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(PIECE - self.filled).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.crc = crc32c::crc32c_append(self.crc, now);
            self.filled += now.len() as u64;
            if self.filled == PIECE {
                self.sums.push(self.crc);
                (self.crc, self.filled) = (0, 0);
            }
            bytes = rest;
        }
    }

    /// The pieces of what has come so far, as if that were all.
    pub(crate) fn pieces(&self) -> Pieces {
        let mut sums = self.sums.clone();
        if self.filled > 0 {
            sums.push(self.crc);
        }
        Pieces { len: self.sums.len() as u64 * PIECE + self.filled, sums }
    }
}

/// The checksums of a complete blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pieces {
    pub(crate) len: u64,
    sums: Vec<u32>,
}

impl Pieces {
    pub(crate) fn to_bytes(&self, digest: &Digest) -> Vec<u8> {
        let mut body = String::with_capacity(self.sums.len() * 9);
        for sum in &self.sums {
            let _ = writeln!(body, "{sum:08x}");
        }
        Record::new().with("digest", digest).with("length", &self.len).with_body(body.as_bytes()).to_bytes(KIND)
    }

    pub(crate) fn parse(digest: &Digest, bytes: &[u8]) -> Option<Self> {
        let record = Record::parse(KIND, bytes)?;
        let len: u64 = record.get("length")?.parse().ok()?;
        if record.get("digest")?.parse().ok() != Some(*digest) {
            return None;
        }
        let body = String::from_utf8(record.into_body()).ok()?;
        let sums: Vec<u32> = body.lines().map(|line| u32::from_str_radix(line, 16).ok()).collect::<Option<_>>()?;
        (sums.len() as u64 == len.div_ceil(PIECE)).then_some(Self { len, sums })
    }

    /// Whether the piece with this number is in `file` as it was written. One that cannot be read is not.
    pub(crate) fn holds(&self, file: &dyn DiskFile, number: u64) -> bool {
        let Some(sum) = usize::try_from(number).ok().and_then(|number| self.sums.get(number)) else { return false };
        let (start, end) = (number * PIECE, self.len.min((number + 1) * PIECE));
        let mut crc = 0;
        read_range(file, start..end, |bytes| crc = crc32c::crc32c_append(crc, bytes)).is_ok() && crc == *sum
    }
}

/// Reads `range` of a file from its first byte to its last.
fn read_range(file: &dyn DiskFile, range: Range<u64>, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut at = range.start;
    while at < range.end {
        let length = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(BUFFER);
        read_exact_at(file, &mut buffer[..length], at)?;
        each(&buffer[..length]);
        at += length as u64;
    }
    Ok(())
}

/// Which pieces of a blob this process has written or checked. Asking whether all are is one load.
pub(crate) struct Checked {
    all: AtomicBool,
    bits: Box<[AtomicU64]>,
    count: u64,
}

impl Checked {
    pub(crate) fn new(len: u64, all: bool) -> Self {
        let count = len.div_ceil(PIECE);
        let bits = (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { all: AtomicBool::new(all), bits, count }
    }

    pub(crate) fn is_all(&self) -> bool {
        self.all.load(Ordering::Acquire)
    }

    pub(crate) fn set_all(&self) {
        self.all.store(true, Ordering::Release);
    }

    /// Forgets what was checked.
    pub(crate) fn clear(&self) {
        self.bits.iter().for_each(|word| word.store(0, Ordering::Release));
        self.all.store(false, Ordering::Release);
    }

    pub(crate) fn covers(&self, range: &Range<u64>) -> bool {
        self.is_all() || self.missing(range).next().is_none()
    }

    /// The numbers of the pieces in `range` that are not checked.
    pub(crate) fn missing(&self, range: &Range<u64>) -> impl Iterator<Item = u64> {
        touched(range).filter(|number| !self.has(*number))
    }

    pub(crate) fn set(&self, number: u64) {
        if let Some((word, bit)) = self.bit(number) {
            word.fetch_or(bit, Ordering::AcqRel);
            if (0..self.count).all(|number| self.has(number)) {
                self.set_all();
            }
        }
    }

    fn has(&self, number: u64) -> bool {
        self.bit(number).is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    fn bit(&self, number: u64) -> Option<(&AtomicU64, u64)> {
        Some((self.bits.get(usize::try_from(number / 64).ok()?)?, 1 << (number % 64)))
    }
}

/// A hash of a whole file, in steps.
pub(crate) struct Rehash {
    digest: Digest,
    hasher: Hasher,
    sums: Summing,
    done: u64,
}

impl Rehash {
    pub(crate) fn new(digest: Digest) -> Self {
        Self { digest, hasher: Hasher::new(digest.algorithm()), sums: Summing::default(), done: 0 }
    }

    /// Hashes at most `most` more bytes of a file of `len`. `true`: all is hashed.
    pub(crate) fn step(&mut self, file: &dyn DiskFile, len: u64, most: u64) -> io::Result<bool> {
        let end = len.min(self.done.saturating_add(most));
        let (hasher, sums) = (&mut self.hasher, &mut self.sums);
        read_range(file, self.done..end, |bytes| {
            hasher.update(bytes);
            sums.update(bytes);
        })?;
        self.done = end;
        Ok(end == len)
    }

    /// The pieces, if the content has its digest.
    pub(crate) fn pieces(&self) -> Option<Pieces> {
        (self.hashed() == self.digest).then(|| self.sums.pieces())
    }

    /// The digest of what has been hashed so far.
    pub(crate) fn hashed(&self) -> Digest {
        self.hasher.clone().finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;
    use proptest::prelude::*;

    const LEN: usize = 2 * (1 << 20) + 5;

    fn pieces(content: &[u8], step: usize) -> Pieces {
        let mut summing = Summing::default();
        content.chunks(step).for_each(|chunk| summing.update(chunk));
        summing.pieces()
    }

    #[test]
    fn come_back_as_they_were_written_and_only_for_their_blob() {
        let content: Vec<u8> = (0..LEN).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let (digest, other) = (Digest::of(Algorithm::Sha256, b"a"), Digest::of(Algorithm::Sha256, b"b"));
        let pieces = pieces(&content, 4096);
        assert_eq!((pieces.len, pieces.sums.len()), (LEN as u64, 3));
        let bytes = pieces.to_bytes(&digest);
        assert_eq!(Pieces::parse(&digest, &bytes), Some(pieces.clone()));
        assert_eq!(Pieces::parse(&other, &bytes), None);
        let short = Pieces { sums: pieces.sums[..2].to_vec(), ..pieces };
        assert_eq!(Pieces::parse(&digest, &short.to_bytes(&digest)), None);
    }

    #[test]
    fn all_are_checked_once_the_last_one_is() {
        let checked = Checked::new(130 * PIECE + 1, false);
        for number in (0..131).rev() {
            assert!(!checked.is_all());
            assert!(!checked.covers(&(number * PIECE..number * PIECE + 1)));
            checked.set(number);
            assert!(checked.covers(&(number * PIECE..(number + 1) * PIECE)));
        }
        assert!(checked.is_all());
        checked.clear();
        assert!(!checked.is_all() && !checked.covers(&(0..1)));
        assert_eq!(checked.missing(&(PIECE - 1..2 * PIECE + 1)).collect::<Vec<_>>(), [0, 1, 2]);
    }

    proptest! {
        #[test]
        fn do_not_depend_on_how_the_content_came(step in 1_usize..3_000_000) {
            let content = vec![7; LEN];
            prop_assert_eq!(pieces(&content, step), pieces(&content, LEN));
        }
    }
}
