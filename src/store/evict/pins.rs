//! Pins: what is never removed to make room.
//!
//! A pin keeps all that belongs to it: a manifest pins what it refers to, a tag what it names today. Patterns come from `[store]
//! pin` and from `larder pin`, whose words a file of the store keeps. `links/pinning.rs` walks the links at the start, before which
//! nothing is removed at all, and again after a change. Content that is linked meanwhile is pinned at once.

use super::pin::Pin;
use crate::oci::{Digest, Repository, RepositoryPattern, Tag};
use crate::store::files::{Files, Record, layout};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) const KIND: &str = "pins";

/// The pins, and the content that they keep.
pub(crate) struct Pins {
    configured: Vec<RepositoryPattern>,
    state: Mutex<State>,
    ready: AtomicBool,
    /// Whether something that was pinned may be pinned no more.
    stale: AtomicBool,
}

#[derive(Default)]
struct State {
    asked: Vec<Pin>,
    digests: HashSet<Digest>,
    /// While a walk finds out what is pinned: what it has found, and what has been linked meanwhile.
    found: Option<HashSet<Digest>>,
}

impl Pins {
    pub(crate) fn open(configured: &[String], files: &Files) -> Self {
        let asked = read(files);
        let ready = AtomicBool::new(configured.is_empty() && asked.is_empty());
        Self {
            configured: configured.iter().map(|pattern| RepositoryPattern::new(pattern)).collect(),
            state: Mutex::new(State { asked, ..State::default() }),
            ready,
            stale: AtomicBool::new(false),
        }
    }

    /// Whether all that is pinned is known.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// All pins: those of the configuration, then those that were asked for.
    pub(crate) fn all(&self) -> (Vec<Pin>, Vec<Pin>) {
        let configured = self.configured.iter().cloned().map(Pin::Repositories).collect();
        (configured, self.state.lock().asked.clone())
    }

    pub(crate) fn concern(&self, repository: &Repository) -> bool {
        self.configured.iter().any(|pattern| pattern.matches(repository))
            || self.state.lock().asked.iter().any(|pin| match pin {
                Pin::Repositories(pattern) => pattern.matches(repository),
                Pin::Tag(..) | Pin::Manifest(..) => false,
            })
    }

    /// A repository has a manifest, which refers to `children`.
    pub(crate) fn linked_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        children: impl Iterator<Item = Digest>,
    ) {
        let named = |pin: &Pin| matches!(pin, Pin::Manifest(theirs, it) if it == digest && theirs == repository);
        if self.concern(repository) || self.has(digest) || self.state.lock().asked.iter().any(named) {
            self.insert(children.chain([*digest]));
        }
    }

    /// A repository has a blob.
    pub(crate) fn linked_blob(&self, repository: &Repository, digest: &Digest) {
        if self.concern(repository) {
            self.insert([*digest]);
        }
    }

    /// Whether a tag is pinned by its name.
    pub(crate) fn has_tag(&self, repository: &Repository, tag: &Tag) -> bool {
        let named = |pin: &Pin| matches!(pin, Pin::Tag(theirs, it) if it == tag && theirs == repository);
        self.state.lock().asked.iter().any(named)
    }

    /// A tag has moved, or a link has gone: something that was pinned may be pinned no more.
    pub(crate) fn outdate(&self) {
        if !self.state.lock().digests.is_empty() {
            self.stale.store(true, Ordering::Release);
        }
    }

    /// Whether a walk is due, which is then taken as begun.
    pub(crate) fn take_stale(&self) -> bool {
        self.stale.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn insert(&self, digests: impl IntoIterator<Item = Digest>) {
        let mut state = self.state.lock();
        for digest in digests {
            state.digests.insert(digest);
            if let Some(found) = &mut state.found {
                found.insert(digest);
            }
        }
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.state.lock().digests.contains(digest)
    }

    pub(crate) fn set_asked(&self, asked: Vec<Pin>) {
        self.state.lock().asked = asked;
    }

    /// A walk begins: what it finds replaces what was known.
    pub(crate) fn begin(&self) {
        self.state.lock().found = Some(HashSet::new());
    }

    pub(crate) fn finish(&self) {
        let mut state = self.state.lock();
        if let Some(found) = state.found.take() {
            state.digests = found;
        }
        drop(state);
        self.ready.store(true, Ordering::Release);
    }
}

fn read(files: &Files) -> Vec<Pin> {
    let bytes = match files.read(Path::new(layout::PINS)) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Vec::new(),
        Err(error) => {
            tracing::error!(%error, "cannot read what `larder pin` has pinned: it is not pinned now");
            return Vec::new();
        }
    };
    let Some(record) = Record::parse(KIND, &bytes) else {
        tracing::error!("the file of what `larder pin` has pinned is damaged: it is not pinned now; pin it again");
        return Vec::new();
    };
    String::from_utf8_lossy(&record.into_body()).lines().filter_map(|line| line.parse().ok()).collect()
}
