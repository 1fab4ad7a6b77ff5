//! The index: from a repository and a blob to a manifest that may name it, so that a start does not read every link.
//!
//! It is a hint. Its answers are checked in the files, so a lost, stale or wrong entry costs time and nothing
//! else. The engine may panic, hang or lose keys on damaged files: it lives on a thread of its own, is watched by the upkeep,
//! and is removed and filled again from the files, while the store serves without it.

mod engine;
mod guard;

pub(crate) use guard::Index;

use crate::oci::{Algorithm, Digest, Repository};
use std::fmt::Write as _;

/// Keys and values have fixed lengths: a hash of the repository and a digest; a digest.
type Key = [u8; 32 + DIGEST];
type Value = [u8; DIGEST];
const DIGEST: usize = 65;

/// Written last by a rebuild: an index without it is not complete.
const COMPLETE: &[u8] = b"complete";

fn key(repository: &Repository, digest: &Digest) -> Key {
    let name = Digest::of(Algorithm::Sha256, repository.to_string().as_bytes());
    let mut key = [0; 32 + DIGEST];
    key[..32].copy_from_slice(name.as_bytes());
    key[32..].copy_from_slice(&encode(digest));
    key
}

pub(super) fn encode(digest: &Digest) -> Value {
    let mut value = [0; DIGEST];
    value[0] = match digest.algorithm() {
        Algorithm::Sha256 => 1,
        Algorithm::Sha512 => 2,
    };
    let bytes = digest.as_bytes();
    value[1..=bytes.len()].copy_from_slice(bytes);
    value
}

pub(super) fn decode(value: &[u8]) -> Option<Digest> {
    let algorithm = match value.first()? {
        1 => Algorithm::Sha256,
        2 => Algorithm::Sha512,
        _ => return None,
    };
    let mut text = format!("{}:", algorithm.as_str());
    for byte in value.get(1..=algorithm.hash_len())? {
        write!(text, "{byte:02x}").ok()?;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_both_algorithms_come_back() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, b"x");
            assert_eq!(decode(&encode(&digest)), Some(digest));
        }
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[9; DIGEST]), None);
        assert_eq!(decode(&[2; 40]), None);
    }
}
