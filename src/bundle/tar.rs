//! A tar whose bytes follow from its entries alone: times are 0, owners are root, names longer than the old format's 100 bytes stand
//! in pax headers. Its length is known before it is written, and it can be written from any offset, so that an interrupted export
//! is continued.

use crate::oci::Digest;
use bytes::{Bytes, BytesMut};
use std::ops::Range;

const BLOCK: u64 = 512;
/// The same, as the length of a header.
const HEADER: usize = 512;
/// The longest name that the old header holds.
const NAME: usize = 100;
/// The largest size that the old header's eleven octal digits hold.
const LARGEST: u64 = 0o777_7777_7777;

/// What an entry's file contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Memory(Bytes),
    /// A range of a stored blob.
    Blob(Digest, Range<u64>),
}

/// A file of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path.
    pub name: String,
    /// Its content.
    pub content: Content,
}

impl Entry {
    /// A small file.
    pub(super) fn memory(name: &str, content: Bytes) -> Self {
        Self { name: name.to_owned(), content: Content::Memory(content) }
    }

    /// A blob at its place in an image layout.
    pub(super) fn blob(digest: Digest, size: u64) -> Self {
        Self {
            name: format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex()),
            content: Content::Blob(digest, 0..size),
        }
    }

    /// A part of a blob that is longer than a volume.
    pub(super) fn slice(digest: Digest, range: Range<u64>) -> Self {
        let name = format!("larder-slices/{}/{}/{}", digest.algorithm().as_str(), digest.hex(), range.start);
        Self { name, content: Content::Blob(digest, range) }
    }

    /// The content's bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.content {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::Blob(_, range) => range.end - range.start,
        }
    }

    /// The header, or the headers, that stand before the content.
    #[must_use]
    pub fn head(&self) -> Bytes {
        let (size, mut head) = (self.size(), BytesMut::new());
        let mut records = String::new();
        if self.name.len() > NAME {
            records.push_str(&record("path", &self.name));
        }
        if size > LARGEST {
            records.push_str(&record("size", &size.to_string()));
        }
        if !records.is_empty() {
            head.extend_from_slice(&header("pax", records.len() as u64, b'x'));
            head.extend_from_slice(records.as_bytes());
            head.resize(head.len() + padding(records.len() as u64), 0);
        }
        let short = self.name.get(..NAME).unwrap_or(&self.name);
        head.extend_from_slice(&header(short, if size > LARGEST { 0 } else { size }, b'0'));
        head.freeze()
    }

    /// Zeros that stand behind the content.
    #[must_use]
    pub fn padding(&self) -> usize {
        padding(self.size())
    }

    /// Everything that the entry takes in the archive.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.head().len() as u64 + self.size() + self.padding() as u64
    }

    /// Never: an entry has a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// What stands behind the last entry.
pub(super) const END: u64 = 2 * BLOCK;

fn padding(size: u64) -> usize {
    // Below 512, so it fits.
    usize::try_from(size.next_multiple_of(BLOCK) - size).unwrap_or_default()
}

/// A pax record: its own length, key and value. The length counts its own digits.
fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    format!("{length} {key}={value}\n")
}

fn header(name: &str, size: u64, kind: u8) -> [u8; HEADER] {
    let mut block = [0; HEADER];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    /// What the system's tar makes of an archive: names and contents, in order.
    fn read_back(entries: &[Entry]) -> Vec<(String, Vec<u8>)> {
        let mut bytes = Vec::new();
        for entry in entries {
            let before = bytes.len() as u64;
            bytes.extend_from_slice(&entry.head());
            let Content::Memory(content) = &entry.content else { panic!("only small files here") };
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len() + entry.padding(), 0);
            assert_eq!(bytes.len() as u64 - before, entry.len());
        }
        bytes.resize(bytes.len() + usize::try_from(END).unwrap(), 0);
        let mut archive = ::tar::Archive::new(&*bytes);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().to_str().unwrap().to_owned(), content)
        });
        entries.collect()
    }

    #[test]
    fn names_of_every_length_come_back() {
        for length in [1, 99, 100, 101, 141, 255] {
            let name = "n".repeat(length);
            let read =
                read_back(&[Entry::memory(&name, Bytes::from(vec![7; length])), Entry::memory("b", Bytes::new())]);
            assert_eq!(read, [(name, vec![7; length]), ("b".to_owned(), Vec::new())]);
        }
    }

    #[test]
    fn a_size_beyond_eleven_octal_digits_stands_in_a_pax_record() {
        let digest = Digest::of(crate::oci::Algorithm::Sha256, b"x");
        let head = Entry::blob(digest, LARGEST + 1).head();
        assert!(String::from_utf8_lossy(&head).contains("19 size=8589934592\n"), "{head:?}");
    }
}
