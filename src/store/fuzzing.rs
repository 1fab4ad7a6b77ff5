//! Fuzzing targets of this room; see `crate::fuzzing`.

#![allow(clippy::missing_panics_doc, reason = "that is how a target says that a property does not hold")]

use crate::oci::{Algorithm, Digest};
use crate::store::blobs::Pieces;
use crate::store::files::Record;
use crate::store::index;
use std::time::UNIX_EPOCH;

/// A small file as it lies on disk, and the same text under a checksum that holds.
pub fn record(input: &[u8]) {
    for kind in ["tag", "manifest", "blob", "list", "pieces"] {
        read(kind, input);
        let head = format!("larder-{kind} 1\ncrc32c {:08x}\n", crc32c::crc32c(input));
        read(kind, &[head.as_bytes(), input].concat());
    }
}

fn read(kind: &str, bytes: &[u8]) {
    let nobody = Digest::of(Algorithm::Sha256, b"");
    if let Some(pieces) = Pieces::parse(&nobody, bytes) {
        assert_eq!(Pieces::parse(&nobody, &pieces.to_bytes(&nobody)), Some(pieces));
    }
    let Some(record) = Record::parse(kind, bytes) else { return };
    assert_eq!(record.to_bytes(kind), bytes, "it is read as something else than it says");
    for key in ["seen", "fetched", "completed"] {
        if let Some(time) = record.time(key) {
            assert!(time >= UNIX_EPOCH);
        }
    }
    if let Some(digest) = record.get("digest").and_then(|text| text.parse::<Digest>().ok()) {
        assert_eq!(record.get("digest"), Some(&*digest.to_string()));
    }
}

/// A value of the index.
pub fn index(input: &[u8]) {
    if let Some(digest) = index::decode(input) {
        let again = index::encode(&digest);
        assert!(again.starts_with(&input[..=digest.as_bytes().len()]));
        assert_eq!(index::decode(&again), Some(digest));
    }
}
