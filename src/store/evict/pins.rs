//! Pins: what is never removed to make room.
//!
//! A pin names a pattern of repositories, a tag or a manifest, and keeps all that belongs to it: a manifest pins what it refers to, a
//! tag what it names today. Patterns come from `[store] pin` and from `larder pin`; what the command says is kept in a file of
//! the store. What links say is found by a walk at the start, before which nothing is removed at all, and by another one after
//! anything has changed; what is linked in between is pinned at once.

use crate::oci::{Digest, InvalidDigest, InvalidName, MAX_DEPTH, Registry, Repository, RepositoryPattern, Tag};
use crate::store::error::StoreError;
use crate::store::files::layout::{self, ALGORITHMS};
use crate::store::files::record::Record;
use crate::store::files::small::Files;
use crate::store::lifecycle::upkeep::repository_at;
use crate::store::parts::Inner;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

const KIND: &str = "pins";

/// What can be pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Everything of the repositories that match.
    Repositories(RepositoryPattern),
    /// What a tag names, wherever it moves.
    Tag(Repository, Tag),
    /// A manifest.
    Manifest(Repository, Digest),
}

/// Why a text names nothing that could be pinned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPin {
    /// There is no upstream before the first slash.
    #[error("write <upstream>/<repository>, and perhaps :tag or @digest behind it")]
    Repository,
    /// The repository's name or the tag is none.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The digest is none.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
}

impl FromStr for Pin {
    type Err = InvalidPin;

    /// Reads `<upstream>/<repository>` with `*` and `**`, `<upstream>/<repository>:<tag>` or `<upstream>/<repository>@<digest>`.
    fn from_str(text: &str) -> Result<Self, InvalidPin> {
        let repository = |text: &str| {
            let (registry, name) = text.split_once('/').ok_or(InvalidPin::Repository)?;
            Ok::<_, InvalidPin>(Repository { registry: Registry::new(registry), name: name.parse()? })
        };
        if let Some((name, digest)) = text.split_once('@') {
            return Ok(Self::Manifest(repository(name)?, digest.parse()?));
        }
        match text.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => Ok(Self::Tag(repository(name)?, tag.parse()?)),
            _ => Ok(Self::Repositories(RepositoryPattern::new(text))),
        }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repositories(pattern) => f.write_str(pattern.as_str()),
            Self::Tag(repository, tag) => write!(f, "{}/{}:{tag}", repository.registry, repository.name),
            Self::Manifest(repository, digest) => write!(f, "{}/{}@{digest}", repository.registry, repository.name),
        }
    }
}

/// The pins, and the content that they keep.
pub(crate) struct Pins {
    configured: Vec<RepositoryPattern>,
    state: Mutex<State>,
    /// Held by whoever walks.
    walking: Mutex<()>,
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
            walking: Mutex::new(()),
            ready,
            stale: AtomicBool::new(false),
        }
    }

    /// Whether all that is pinned is known.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// All pins: those of the configuration, then those that were asked for.
    fn all(&self) -> (Vec<Pin>, Vec<Pin>) {
        let configured = self.configured.iter().cloned().map(Pin::Repositories).collect();
        (configured, self.state.lock().asked.clone())
    }

    fn concern(&self, repository: &Repository) -> bool {
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

    fn insert(&self, digests: impl IntoIterator<Item = Digest>) {
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

    /// A walk begins: what it finds replaces what was known.
    fn begin(&self) {
        self.state.lock().found = Some(HashSet::new());
    }

    fn finish(&self) {
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

impl Inner {
    /// All pins: those of the configuration, then those that were asked for.
    pub(crate) fn all_pins(&self) -> (Vec<Pin>, Vec<Pin>) {
        self.pins.all()
    }

    /// Adds a pin, with all that it keeps. `false`: it was there.
    pub(crate) fn pin(&self, pin: &Pin) -> Result<bool, StoreError> {
        let (_, mut asked) = self.pins.all();
        if asked.contains(pin) {
            return Ok(false);
        }
        asked.push(pin.clone());
        self.set_pins(asked)?;
        Ok(true)
    }

    /// Removes a pin. `false`: there is none.
    pub(crate) fn unpin(&self, pin: &Pin) -> Result<bool, StoreError> {
        let (_, mut asked) = self.pins.all();
        let before = asked.len();
        asked.retain(|other| other != pin);
        if asked.len() == before {
            return Ok(false);
        }
        self.set_pins(asked)?;
        Ok(true)
    }

    /// The file first: what is said to be pinned is pinned after a crash, too. Only the walker calls it, so that no two do.
    fn set_pins(&self, asked: Vec<Pin>) -> Result<(), StoreError> {
        let text = asked.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        self.replace(Path::new(layout::PINS), &Record::new().with_body(text.as_bytes()).to_bytes(KIND))?;
        self.pins.state.lock().asked = asked;
        self.find_pins();
        Ok(())
    }

    /// Finds out anew what is pinned. What was pinned stays so until then.
    pub(crate) fn find_pins(&self) {
        let _one = self.pins.walking.lock();
        self.pins.begin();
        let mut folders = vec![PathBuf::from(layout::REPOSITORIES)];
        while let Some(folder) = folders.pop().filter(|_| !self.is_closing()) {
            folders.extend(self.pin_folder(&folder));
        }
        self.pin_references();
        self.pins.finish();
    }

    /// Pins what the links in this folder speak for, if their repository is pinned; the folders below.
    fn pin_folder(&self, folder: &Path) -> Vec<PathBuf> {
        let entries = self.files.disk.list(folder).unwrap_or_default();
        if let Some(repository) = repository_at(self, folder).filter(|repository| self.pins.concern(repository)) {
            self.pin_repository(&repository);
        }
        let below = entries.iter().filter(|entry| entry.is_dir && !entry.name.starts_with('_'));
        below.map(|entry| folder.join(&entry.name)).collect()
    }

    fn pin_repository(&self, repository: &Repository) {
        for algorithm in ALGORITHMS {
            let manifests = self.linked(&layout::manifests(repository, algorithm), algorithm);
            self.pins.insert(manifests.unwrap_or_default());
        }
        match self.mentioned(repository) {
            Ok(members) => self.pins.insert(members),
            Err(error) => tracing::warn!(%error, "cannot read all links of a pinned repository"),
        }
    }

    /// Pins what tags and manifests that were asked for stand for.
    fn pin_references(&self) {
        let (_, asked) = self.pins.all();
        for pin in asked {
            match pin {
                Pin::Repositories(_) => {}
                Pin::Manifest(repository, digest) => self.pin_manifest(&repository, digest),
                Pin::Tag(repository, tag) => {
                    if let Ok(Some(link)) = self.tag(&repository, &tag) {
                        self.pin_manifest(&repository, link.digest);
                    }
                }
            }
        }
    }

    /// Pins a manifest and all that it refers to, as far as it is here and no deeper than [`MAX_DEPTH`]; what comes later is pinned
    /// as it comes.
    pub(crate) fn pin_manifest(&self, repository: &Repository, digest: Digest) {
        let (mut seen, mut level) = (HashSet::from([digest]), vec![digest]);
        for _ in 0..=MAX_DEPTH {
            self.pins.insert(level.iter().copied());
            let mut below = Vec::new();
            for digest in level {
                let children = self.children(repository, &digest).unwrap_or_default();
                below.extend(children.into_iter().filter(|child| seen.insert(*child)));
            }
            level = below;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_reads_as_it_is_written() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for text in ["a.io/base/**", "a.io/base", "a.io:5000/x/y:v1", &format!("a.io/x@{digest}"), "**"] {
            assert_eq!(text.parse::<Pin>().unwrap().to_string(), text);
        }
        assert!(matches!("a.io:5000/x".parse(), Ok(Pin::Repositories(_))), "a port is no tag");
        assert_eq!("x:v1".parse::<Pin>(), Err(InvalidPin::Repository));
        assert!(matches!("a.io/X:v1".parse::<Pin>(), Err(InvalidPin::Name(_))));
        assert!(matches!("a.io/x@sha256:1".parse::<Pin>(), Err(InvalidPin::Digest(_))));
    }
}
