//! What was asked of sealed upstreams and is not stored: the list of what to import next.

use super::error::CacheError;
use crate::oci::{Code, Reference, Registry, Repository};
use crate::store::Store;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// References remembered at once; requests for more are refused, and not remembered.
const ENTRIES: usize = 10_000;

/// A reference that clients asked for in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfflineMiss {
    /// Where.
    pub repository: Repository,
    /// What: a tag, or the digest of a manifest or blob.
    pub reference: Reference,
    /// How often.
    pub times: u64,
    /// When last.
    pub last: SystemTime,
}

impl OfflineMiss {
    /// `upstream/repository:tag` or `upstream/repository@digest`.
    #[must_use]
    pub fn full_name(&self) -> String {
        full_name(&self.repository, &self.reference)
    }
}

fn full_name(repository: &Repository, reference: &Reference) -> String {
    let mark = if matches!(reference, Reference::Digest(_)) { '@' } else { ':' };
    format!("{repository}{mark}{reference}")
}

/// How often what has changed is written down.
const KEPT_AFTER: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct OfflineMisses(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    entries: HashMap<(Repository, Reference), (u64, SystemTime)>,
    has_changed: bool,
}

impl OfflineMisses {
    /// The answer to a request for what a sealed upstream would have to be asked for. The request is noted.
    pub(super) fn refuse(&self, repository: &Repository, reference: &Reference, code: Code) -> CacheError {
        self.note(repository, reference);
        let what = full_name(repository, reference);
        CacheError::Sealed { what, registry: repository.registry.clone(), code }
    }

    /// Notes one request in vain; the first for a reference is logged.
    fn note(&self, repository: &Repository, reference: &Reference) {
        let mut state = self.0.lock();
        let key = (repository.clone(), reference.clone());
        let full = state.entries.len() >= ENTRIES;
        if let Some((times, last)) = state.entries.get_mut(&key) {
            (*times, *last) = (*times + 1, SystemTime::now());
        } else if full {
            return;
        } else {
            state.entries.insert(key, (1, SystemTime::now()));
            tracing::warn!(repo.name = %repository, %reference, "a sealed upstream was asked for what is not stored");
        }
        state.has_changed = true;
    }

    /// Forgets what has come.
    pub(super) fn forget(&self, repository: &Repository, has_come: impl Fn(&Reference) -> bool) {
        let mut state = self.0.lock();
        let before = state.entries.len();
        state.entries.retain(|(of, reference), _| of != repository || !has_come(reference));
        state.has_changed |= state.entries.len() < before;
    }

    /// All of them, those asked for most often first.
    pub(super) fn list(&self) -> Vec<OfflineMiss> {
        let state = self.0.lock();
        let entries = state.entries.iter();
        let mut list: Vec<OfflineMiss> = entries
            .map(|((repository, reference), (times, last))| OfflineMiss {
                repository: repository.clone(),
                reference: reference.clone(),
                times: *times,
                last: *last,
            })
            .collect();
        drop(state);
        list.sort_by_key(|missing| (u64::MAX - missing.times, missing.reference.to_string()));
        list
    }

    /// Reads what an earlier process has kept.
    pub(super) async fn recall(&self, store: &Store) {
        let kept = match store.missing().await {
            Ok(Some(kept)) => kept,
            Ok(None) => return,
            Err(error) => return tracing::error!(%error, "cannot read what was asked for in vain"),
        };
        let text = String::from_utf8_lossy(&kept);
        let mut state = self.0.lock();
        for (key, times, last) in text.lines().filter_map(parse).take(ENTRIES) {
            state.entries.entry(key).or_insert((times, last));
        }
    }

    /// Writes it down again and again.
    pub(super) async fn follow(&self, store: &Store) {
        loop {
            tokio::time::sleep(KEPT_AFTER).await;
            self.keep(store).await;
        }
    }

    /// Writes it down, if it has changed.
    pub(super) async fn keep(&self, store: &Store) {
        if !std::mem::replace(&mut self.0.lock().has_changed, false) {
            return;
        }
        let mut text = String::new();
        for missing in self.list() {
            let last = missing.last.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let _ = writeln!(text, "{} {last} {}", missing.times, missing.full_name());
        }
        if let Err(error) = store.set_missing(text.into()).await {
            // The next time tries again.
            self.0.lock().has_changed = true;
            tracing::error!(%error, "cannot write down what was asked for in vain");
        }
    }
}

type Entry = ((Repository, Reference), u64, SystemTime);

/// Reads `<times> <last> <registry>/<repository>:<tag>` or `…@<digest>`; `None` if it is none.
fn parse(line: &str) -> Option<Entry> {
    let mut words = line.splitn(3, ' ');
    let (times, last, name) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?);
    let (name, reference) = match name.split_once('@') {
        Some((name, digest)) => (name, Reference::Digest(digest.parse().ok()?)),
        None => name.rsplit_once(':').and_then(|(name, tag)| Some((name, Reference::Tag(tag.parse().ok()?))))?,
    };
    let (registry, name) = name.split_once('/')?;
    let repository = Repository { registry: Registry::new(registry), name: name.parse().ok()? };
    Some(((repository, reference), times, UNIX_EPOCH.checked_add(Duration::from_secs(last))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_reference_and_remembers_no_more_than_its_bound() {
        let missing = OfflineMisses::default();
        let repository = Repository { registry: Registry::new("r"), name: "a".parse().unwrap() };
        let tag = |number: usize| format!("v{number}").parse::<Reference>().unwrap();
        for number in 0..ENTRIES + 5 {
            missing.note(&repository, &tag(number));
        }
        missing.note(&repository, &tag(7));
        let list = missing.list();
        assert_eq!(list.len(), ENTRIES);
        assert_eq!((&list[0].reference, list[0].times), (&tag(7), 2));
    }
}
