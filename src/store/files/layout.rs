//! Where everything lies below the store's folder; `docs/disk.md` describes each file.
//!
//! Names are encoded so that two of them never meet in one file, whatever the file system folds or forbids. The encoding is
//! injective but is never decoded: the exact name stands inside the file and is compared.

use crate::oci::{Algorithm, Digest, Registry, Repository, Tag};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

pub(crate) const VERSION: &str = "version";
pub(crate) const UNSYNCED: &str = "unsynced";
pub(crate) const DEFAULT_SIZE: &str = "default-size";
pub(crate) const SCRUB: &str = "scrub";
pub(crate) const PINS: &str = "pins";
pub(crate) const IMPORTS: &str = "imports";
pub(crate) const MISSING: &str = "missing";
pub(crate) const UPLOAD_KEY: &str = "upload-key";
pub(crate) const BLOBS: &str = "blobs";
pub(crate) const PIECES: &str = "pieces";
pub(crate) const GIVERS: &str = "givers";
pub(crate) const EARLIER: &str = "earlier-giver";
pub(crate) const INGEST: &str = "ingest";
pub(crate) const TEMPORARY: &str = "ingest/tmp";
pub(crate) const REPOSITORIES: &str = "repositories";
pub(crate) const LISTS: &str = "lists";
pub(crate) const INDEX: &str = "index";
pub(crate) const QUARANTINE: &str = "quarantine";

/// The folders that are there as long as a store is open, parents first.
pub(crate) const FOLDERS: [&str; 16] = [
    BLOBS,
    "blobs/sha256",
    "blobs/sha512",
    PIECES,
    "pieces/sha256",
    "pieces/sha512",
    GIVERS,
    "givers/sha256",
    "givers/sha512",
    INGEST,
    "ingest/sha256",
    "ingest/sha512",
    TEMPORARY,
    REPOSITORIES,
    LISTS,
    QUARANTINE,
];

pub(crate) const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

pub(crate) fn blobs(algorithm: Algorithm) -> PathBuf {
    Path::new(BLOBS).join(algorithm.as_str())
}

pub(crate) fn blob(digest: &Digest) -> PathBuf {
    blobs(digest.algorithm()).join(digest.hex())
}

pub(crate) fn pieces(digest: &Digest) -> PathBuf {
    Path::new(PIECES).join(digest.algorithm().as_str()).join(digest.hex())
}

pub(crate) fn givers(digest: &Digest) -> PathBuf {
    Path::new(GIVERS).join(digest.algorithm().as_str()).join(digest.hex())
}

pub(crate) fn temporary(number: u64) -> PathBuf {
    Path::new(TEMPORARY).join(number.to_string())
}

pub(crate) fn quarantined(digest: &Digest, number: u128) -> PathBuf {
    Path::new(QUARANTINE).join(format!("{}-{}-{number}", digest.algorithm().as_str(), digest.hex()))
}

/// The digest that a file below `blobs/` or `ingest/` is named after.
pub(crate) fn digest(algorithm: Algorithm, file_name: &str) -> Option<Digest> {
    format!("{}:{file_name}", algorithm.as_str()).parse().ok()
}

pub(crate) fn tags(repository: &Repository) -> PathBuf {
    folder(repository).join("_tags")
}

pub(crate) fn tag(repository: &Repository, tag: &Tag) -> PathBuf {
    tags(repository).join(encode(tag.as_str()))
}

pub(crate) fn manifests(repository: &Repository, algorithm: Algorithm) -> PathBuf {
    folder(repository).join("_manifests").join(algorithm.as_str())
}

pub(crate) fn manifest(repository: &Repository, digest: &Digest) -> PathBuf {
    manifests(repository, digest.algorithm()).join(digest.hex())
}

pub(crate) fn blob_links(repository: &Repository, algorithm: Algorithm) -> PathBuf {
    folder(repository).join("_blobs").join(algorithm.as_str())
}

pub(crate) fn blob_link(repository: &Repository, digest: &Digest) -> PathBuf {
    blob_links(repository, digest.algorithm()).join(digest.hex())
}

/// The file of a list; `key` says which, and no two lists have the same.
pub(crate) fn list(kind: &str, key: &str) -> PathBuf {
    let hash = Digest::of(Algorithm::Sha256, key.as_bytes());
    Path::new(LISTS).join(format!("{kind}-{}", hash.hex()))
}

pub(crate) fn folder(repository: &Repository) -> PathBuf {
    let mut path = registry(&repository.registry);
    path.extend(repository.name.as_str().split('/').map(encode));
    path
}

fn registry(registry: &Registry) -> PathBuf {
    Path::new(REPOSITORIES).join(registry_folder(registry))
}

/// The name of a registry's folder.
pub(crate) fn registry_folder(registry: &Registry) -> String {
    encode(registry.as_str())
}

/// Longest encoded name; file systems take 255 bytes, some encrypting ones much less.
const LONGEST: usize = 140;

/// Lower-case letters, digits, `_`, `-` and inner dots stand for themselves, `+v` for `V`, `%3a` for any other byte. The first
/// byte of a name that Windows reserves is written as such, too. What gets too long is `~` and a hash.
fn encode(name: &str) -> String {
    let reserved = is_reserved(name);
    let last = name.len().saturating_sub(1);
    let mut encoded = String::with_capacity(name.len() + 8);
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'.' if at != 0 && at != last => encoded.push('.'),
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' if !(reserved && at == 0) => encoded.push(char::from(byte)),
            b'A'..=b'Z' if !(reserved && at == 0) => {
                encoded.push('+');
                encoded.push(char::from(byte.to_ascii_lowercase()));
            }
            other => {
                let _ = write!(encoded, "%{other:02x}");
            }
        }
    }
    if encoded.len() > LONGEST {
        return format!("~{}", Digest::of(Algorithm::Sha256, name.as_bytes()).hex());
    }
    encoded
}

/// Device names of Windows, with or without an extension.
fn is_reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    match stem.as_str() {
        "con" | "prn" | "aux" | "nul" => true,
        _ => {
            stem.len() == 4
                && (stem.starts_with("com") || stem.starts_with("lpt"))
                && stem.ends_with(|c: char| c.is_ascii_digit())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn names_stay_readable_where_they_can() {
        assert_eq!(encode("v1.2-rc_3"), "v1.2-rc_3");
        assert_eq!(encode("V1"), "+v1");
        assert_eq!(encode("127.0.0.1:5555"), "127.0.0.1%3a5555");
    }

    #[test]
    fn no_two_names_share_a_file_on_any_file_system() {
        let names = ["V1", "v1", "+v1", "con", "CON", "con.txt", "com1", "a.", "a", "a%2e", "x:y", "_x"];
        let mut seen = HashMap::new();
        for name in names.map(str::to_owned).into_iter().chain(["A".repeat(128), "a".repeat(128), "a".repeat(255)]) {
            let file = encode(&name);
            assert_eq!(file, file.to_ascii_lowercase(), "{name}");
            assert!(file.len() <= LONGEST && !file.ends_with('.') && !is_reserved(&file), "{name} -> {file}");
            assert_eq!(seen.insert(file, name.clone()), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn the_encoding_is_injective(a in "[a-cA-C.+%~0_-]{1,12}", b in "[a-cA-C.+%~0_-]{1,12}") {
            prop_assert_eq!(a == b, encode(&a).eq_ignore_ascii_case(&encode(&b)));
        }
    }
}
