//! Looks at a store's files from outside, with nothing of larder's own code.

use super::harness::sha256;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// What is known of a store whose process is dead.
pub struct Audit {
    store: PathBuf,
    /// Files below `blobs/` that had their digest, by inode and length: they are not hashed again as long as they stay.
    hashed: BTreeSet<(u64, u64)>,
    stored: BTreeSet<String>,
    before: BTreeSet<String>,
}

impl Audit {
    pub fn new(store: &Path) -> Self {
        Self { store: store.to_owned(), hashed: BTreeSet::new(), stored: BTreeSet::new(), before: BTreeSet::new() }
    }

    /// The blobs that were there at the last look, as hex digits.
    pub fn stored(&self) -> &BTreeSet<String> {
        &self.stored
    }

    /// The blobs that were there at the look before.
    pub fn before(&self) -> &BTreeSet<String> {
        &self.before
    }

    /// Looks at every file; `content` is what the registry holds.
    pub fn check(&mut self, content: &BTreeMap<String, Bytes>) {
        self.before = std::mem::take(&mut self.stored);
        let mut found = Vec::new();
        walk(&self.store.join("blobs"), &mut |path| found.push(path.to_owned()));
        for path in found {
            self.check_blob(&path);
        }
        let lost: Vec<_> = self.before.difference(&self.stored).collect();
        assert!(lost.is_empty(), "stored blobs are gone: {lost:?}");
        self.check_ingests(content);
        walk(&self.store.join("quarantine"), &mut |path| panic!("a damaged blob: {}", path.display()));
        for folder in ["repositories", "lists"] {
            walk(&self.store.join(folder), &mut check_record);
        }
    }

    fn check_blob(&mut self, path: &Path) {
        let hex = path.file_name().unwrap().to_str().unwrap().to_owned();
        let metadata = fs::metadata(path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o222, 0, "{} can be written to", path.display());
        if self.hashed.insert((metadata.ino(), metadata.len())) {
            assert_eq!(sha256(&fs::read(path).unwrap()), format!("sha256:{hex}"), "{}", path.display());
        }
        self.stored.insert(hex);
    }

    /// What was received of a blob is the beginning of it.
    fn check_ingests(&self, content: &BTreeMap<String, Bytes>) {
        walk(&self.store.join("ingest/sha256"), &mut |path| {
            let hex = path.file_name().unwrap().to_str().unwrap().split('.').next().unwrap();
            let (kept, whole) = (fs::read(path).unwrap(), content.get(hex));
            // The empty config of every artifact is not among the round's layers, but small enough to be there at once or not.
            let whole = whole.map_or(&b"{}"[..], |bytes| bytes);
            assert!(whole.starts_with(&kept), "{} is not the beginning of its blob", path.display());
        });
    }
}

/// Every small file says what it is, and its checksum holds.
fn check_record(path: &Path) {
    let bytes = fs::read(path).unwrap();
    let fail = |why: &str| -> ! { panic!("{}: {why}: {:?}", path.display(), String::from_utf8_lossy(&bytes)) };
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let (Some(kind), Some(crc), Some(rest)) = (lines.next(), lines.next(), lines.next()) else { fail("torn") };
    if !kind.starts_with(b"larder-") || !kind.ends_with(b" 1") {
        fail("of no kind");
    }
    if crc != format!("crc32c {:08x}", crc32c::crc32c(rest)).as_bytes() {
        fail("damaged");
    }
}

/// Every file below `folder`.
pub fn walk(folder: &Path, visit: &mut dyn FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, visit);
        } else {
            visit(&path);
        }
    }
}
