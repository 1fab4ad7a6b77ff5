//! Which ingests there are on disk, and that each has one writer at most.

use crate::store::files::layout::Part;
use parking_lot::Mutex;
use prometheus::IntGauge;
use std::collections::HashMap;
use std::sync::Arc;

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

    /// Claims a partial download for one writer. `None`: somebody has it.
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

    /// Those that nobody is writing.
    pub(crate) fn idle(&self) -> Vec<Part> {
        let files = self.0.files.lock();
        files.iter().filter(|(_, partial)| !partial.running).map(|(part, _)| *part).collect()
    }

    /// What those that nobody is writing have together.
    pub(crate) fn idle_bytes(&self) -> u64 {
        let files = self.0.files.lock();
        files.values().filter(|partial| !partial.running).map(|partial| partial.len).sum()
    }

    /// Those that nobody is writing and that may have more space than they need.
    pub(crate) fn untidy(&self) -> Vec<Part> {
        let files = self.0.files.lock();
        files.iter().filter(|(_, partial)| !partial.running && partial.allocated).map(|(part, _)| *part).collect()
    }

    /// Whether it is still one of those; from now on it is not.
    pub(crate) fn set_tidy(&self, part: &Part) -> bool {
        let mut files = self.0.files.lock();
        let partial = files.get_mut(part).filter(|partial| !partial.running);
        partial.is_some_and(|partial| std::mem::replace(&mut partial.allocated, false))
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
