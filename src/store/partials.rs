//! Which ingests there are on disk, and that each has one writer at most.

use crate::oci::Digest;
use parking_lot::Mutex;
use prometheus::IntGauge;
use std::collections::HashMap;
use std::sync::Arc;

/// The partial downloads below `ingest/`.
#[derive(Clone)]
pub(super) struct Partials(Arc<Shared>);

struct Shared {
    files: Mutex<HashMap<Digest, Partial>>,
    gauge: IntGauge,
}

struct Partial {
    len: u64,
    running: bool,
    /// Whether more may be allocated than is written.
    allocated: bool,
}

impl Partials {
    pub(super) fn new(gauge: IntGauge) -> Self {
        Self(Arc::new(Shared { files: Mutex::default(), gauge }))
    }

    pub(super) fn len(&self) -> u64 {
        self.0.files.lock().len() as u64
    }

    /// Enters a file that an earlier process left.
    pub(super) fn found(&self, digest: Digest, len: u64) {
        self.set(digest, Some(Partial { len, running: false, allocated: true }));
    }

    /// Claims the digest for one writer. `None`: somebody has it.
    pub(super) fn claim(&self, digest: Digest) -> Option<Claim> {
        let mut files = self.0.files.lock();
        let partial = files.entry(digest).or_insert(Partial { len: 0, running: false, allocated: false });
        if partial.running {
            return None;
        }
        partial.running = true;
        let (len, allocated) = (partial.len, partial.allocated);
        self.0.gauge.set(i64::try_from(files.len()).unwrap_or(i64::MAX));
        drop(files);
        Some(Claim { partials: self.clone(), digest, len: (len > 0).then_some(len), allocated })
    }

    /// Those that nobody is writing.
    pub(super) fn idle(&self) -> Vec<Digest> {
        let files = self.0.files.lock();
        files.iter().filter(|(_, partial)| !partial.running).map(|(digest, _)| *digest).collect()
    }

    /// What those that nobody is writing have together.
    pub(super) fn idle_bytes(&self) -> u64 {
        let files = self.0.files.lock();
        files.values().filter(|partial| !partial.running).map(|partial| partial.len).sum()
    }

    /// Those that nobody is writing and that may have more space than they need.
    pub(super) fn untidy(&self) -> Vec<Digest> {
        let files = self.0.files.lock();
        files.iter().filter(|(_, partial)| !partial.running && partial.allocated).map(|(digest, _)| *digest).collect()
    }

    /// Whether it is still one of those; from now on it is not.
    pub(super) fn set_tidy(&self, digest: &Digest) -> bool {
        let mut files = self.0.files.lock();
        let partial = files.get_mut(digest).filter(|partial| !partial.running);
        partial.is_some_and(|partial| std::mem::replace(&mut partial.allocated, false))
    }

    fn set(&self, digest: Digest, partial: Option<Partial>) {
        let mut files = self.0.files.lock();
        match partial {
            Some(partial) => files.insert(digest, partial),
            None => files.remove(&digest),
        };
        self.0.gauge.set(i64::try_from(files.len()).unwrap_or(i64::MAX));
    }
}

/// The sole right to write one ingest's file. On drop the file is left for the next writer, or forgotten if there is none.
pub(super) struct Claim {
    partials: Partials,
    digest: Digest,
    /// Bytes on disk that are in the account; `None`: there is no file.
    pub(super) len: Option<u64>,
    pub(super) allocated: bool,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.partials.set(self.digest, self.len.map(|len| Partial { len, running: false, allocated: self.allocated }));
    }
}
