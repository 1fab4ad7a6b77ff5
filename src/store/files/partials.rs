//! The partial downloads below `ingest/`. Each has one writer at most.

use super::layout;
use crate::oci::{Algorithm, Digest, Registry};
use parking_lot::Mutex;
use prometheus::IntGauge;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A partial download: of which content, and from which registry, if that was said. A download from one registry does not continue
/// what another one has given: wrong bytes among these would spoil it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Part {
    pub(crate) digest: Digest,
    /// The beginning of a hash of the registry's name.
    pub(crate) origin: Option<u64>,
}

impl Part {
    pub(crate) fn new(digest: Digest, registry: Option<&Registry>) -> Self {
        let origin = registry.map(|registry| {
            let hash = Digest::of(Algorithm::Sha256, registry.as_str().as_bytes());
            hash.as_bytes().iter().take(8).fold(0, |origin, byte| origin << 8 | u64::from(*byte))
        });
        Self { digest, origin }
    }

    /// The one that a file below `ingest/` is.
    pub(crate) fn parse(algorithm: Algorithm, file_name: &str) -> Option<Self> {
        let (hex, origin) = match file_name.split_once('.') {
            Some((hex, origin)) => (hex, Some(u64::from_str_radix(origin, 16).ok()?)),
            None => (file_name, None),
        };
        let part = Self { digest: layout::digest(algorithm, hex)?, origin };
        (part.file_name() == file_name).then_some(part)
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new(layout::INGEST).join(self.digest.algorithm().as_str()).join(self.file_name())
    }

    fn file_name(&self) -> String {
        let origin = self.origin.map(|origin| format!(".{origin:016x}")).unwrap_or_default();
        format!("{}{origin}", self.digest.hex())
    }
}

/// The partial downloads below `ingest/`.
#[derive(Clone)]
pub(crate) struct Partials(Arc<Shared>);

struct Shared {
    files: Mutex<HashMap<Part, Partial>>,
    gauge: IntGauge,
}

struct Partial {
    len: u64,
    running: bool,
    /// Whether more may be allocated than is written.
    allocated: bool,
}

impl Partials {
    pub(crate) fn new(gauge: IntGauge) -> Self {
        Self(Arc::new(Shared { files: Mutex::default(), gauge }))
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.files.lock().len() as u64
    }

    /// Enters a file that an earlier process left.
    pub(crate) fn found(&self, part: Part, len: u64) {
        self.set(part, Some(Partial { len, running: false, allocated: true }));
    }

    /// Claims a partial download for one writer. `None`: another writer has it.
    pub(crate) fn claim(&self, part: Part) -> Option<Claim> {
        let mut files = self.0.files.lock();
        let partial = files.entry(part).or_insert(Partial { len: 0, running: false, allocated: false });
        if partial.running {
            return None;
        }
        partial.running = true;
        let (len, allocated) = (partial.len, partial.allocated);
        self.0.gauge.set(i64::try_from(files.len()).unwrap_or(i64::MAX));
        drop(files);
        Some(Claim { partials: self.clone(), part, len: (len > 0).then_some(len), allocated })
    }

    pub(crate) fn has(&self, part: &Part) -> bool {
        self.0.files.lock().contains_key(part)
    }

    /// Those that no writer has.
    pub(crate) fn idle(&self) -> Vec<Part> {
        let files = self.0.files.lock();
        files.iter().filter(|(_, partial)| !partial.running).map(|(part, _)| *part).collect()
    }

    /// The bytes of those that no writer has.
    pub(crate) fn idle_bytes(&self) -> u64 {
        let files = self.0.files.lock();
        files.values().filter(|partial| !partial.running).map(|partial| partial.len).sum()
    }

    /// Those that no writer has and that may have more space than they need.
    pub(crate) fn with_unused(&self) -> Vec<Part> {
        let files = self.0.files.lock();
        files.iter().filter(|(_, partial)| !partial.running && partial.allocated).map(|(part, _)| *part).collect()
    }

    fn set(&self, part: Part, partial: Option<Partial>) {
        let mut files = self.0.files.lock();
        match partial {
            Some(partial) => files.insert(part, partial),
            None => files.remove(&part),
        };
        self.0.gauge.set(i64::try_from(files.len()).unwrap_or(i64::MAX));
    }
}

/// The sole right to write one ingest's file. On drop the file is left for the next writer, or forgotten if there is none.
pub(crate) struct Claim {
    partials: Partials,
    pub(crate) part: Part,
    /// Bytes on disk that are in the account; `None`: there is no file.
    pub(crate) len: Option<u64>,
    pub(crate) allocated: bool,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.partials.set(self.part, self.len.map(|len| Partial { len, running: false, allocated: self.allocated }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_downloads_of_two_registries_are_two_files() {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let registries = ["a.io", "b.io"].map(Registry::new);
        let parts = [None, Some(&registries[0]), Some(&registries[1])].map(|registry| Part::new(digest, registry));
        let names = parts.map(|part| part.file_name());
        assert!(names[0] == digest.hex() && names[1] != names[2]);
        for (part, name) in parts.iter().zip(&names) {
            assert_eq!(Part::parse(Algorithm::Sha256, name), Some(*part));
        }
        for other in [format!("{}.", names[0]), format!("{}.+123456789abcdef", names[0]), format!("{}.1", names[0])] {
            assert_eq!(Part::parse(Algorithm::Sha256, &other), None, "{other}");
        }
    }
}
