use super::list_key::{field, in_words, is_name, unreadable};
use crate::cache::error::CacheError;
use crate::cache::freshness::Age;
use crate::cache::provenance::Provenance;
use crate::cache::stale_on_error::Aged;
use crate::oci;
use crate::store::ListKey;
use crate::upstream::{FetchedList, Relayed, Room};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;

/// What an entry takes beside its text: its place, and what an allocation costs.
const ENTRY: usize = 40;
/// Bytes that a list may take to be kept: what a hundred thousand names of usual length do.
const LONGEST: usize = 16 << 20;

/// The answer to a request for a list.
#[derive(Clone, Debug)]
pub struct ListAnswer {
    /// The list.
    pub list: List,
    /// Where it came from.
    pub provenance: Provenance,
    /// What it has of the memory for large documents, if it was read for this answer.
    pub room: Option<Room>,
}

/// A list as it is answered.
#[derive(Clone, Debug)]
pub enum List {
    /// All of it.
    Whole(Arc<Entries>),
    /// Too long to be kept, or not to be had whole: one page, as upstream cut it, for this request's own query.
    Page(Arc<ListPage>),
}

/// A part of a list.
#[derive(Debug)]
pub struct ListPage {
    /// Its entries.
    pub entries: Entries,
    /// The query that gets the part behind it, if there is one.
    pub next: Option<String>,
    /// Whether upstream has left out what the query's `artifactType` does not want.
    pub filtered: bool,
}

/// All entries of a list, in upstream's order.
#[derive(Debug, Serialize, Deserialize)]
pub enum Entries {
    /// Tags or repositories.
    Names(Vec<String>),
    /// Descriptors of referrers, byte for byte.
    Descriptors(Vec<Box<RawValue>>),
    /// Upstream has no such list. Of referrers that is worth keeping: clients then look for the list under a tag, which may be
    /// stored, and an outage must not keep them from it.
    Absent {
        /// Upstream's error code.
        code: String,
        /// Upstream's words.
        message: String,
    },
}

/// A list as it is remembered.
#[derive(Clone, Debug)]
pub(in crate::cache) struct ListState {
    /// `None`: longer than is kept, or not to be had whole.
    pub(in crate::cache) entries: Option<Arc<Entries>>,
    pub(in crate::cache) age: Age,
    pub(in crate::cache) relayed: Relayed,
    /// What it has of the memory for large documents, where it is in no other.
    pub(in crate::cache) room: Option<Room>,
}

impl Aged for ListState {
    fn age(&self) -> Age {
        self.age
    }

    fn relayed(&self) -> &Relayed {
        &self.relayed
    }
}

impl Entries {
    /// Bytes that they take in memory, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let sum = |lengths: &mut dyn Iterator<Item = usize>| lengths.map(|length| length + ENTRY).sum::<usize>();
        match self {
            Self::Names(names) => sum(&mut names.iter().map(String::len)),
            Self::Descriptors(all) => sum(&mut all.iter().map(|descriptor| descriptor.get().len())),
            Self::Absent { code, message } => code.len() + message.len(),
        }
    }

    /// None yet, of the kind that the list has.
    pub(in crate::cache) fn of(key: &ListKey) -> Self {
        match key {
            ListKey::Referrers(..) => Self::Descriptors(Vec::new()),
            ListKey::Tags(_) | ListKey::Catalogue(_) => Self::Names(Vec::new()),
        }
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Names(names) => names.len(),
            Self::Descriptors(descriptors) => descriptors.len(),
            Self::Absent { .. } => 0,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a page, one entry at a time, until there are more than `most` or more bytes than are kept. What is no name of the grammar
    /// is left out: no client can ask for it.
    pub(in crate::cache) fn add(
        &mut self,
        key: &ListKey,
        page: &FetchedList,
        most: usize,
    ) -> Result<Added, CacheError> {
        let (mut count, mut bytes, mut full, mut odd) = (self.len(), self.bytes(), false, 0_usize);
        let before = count;
        let read = oci::each_entry(&page.content, field(key), |raw| {
            let is_good = match &mut *self {
                Self::Names(names) => match serde_json::from_str::<Cow<'_, str>>(raw.get()) {
                    Ok(name) if is_name(key, &name) => {
                        names.push(name.into_owned());
                        true
                    }
                    Ok(_) => false,
                    Err(_) => return Err("an entry is no text"),
                },
                Self::Descriptors(descriptors) => {
                    descriptors.push(raw.to_owned());
                    true
                }
                Self::Absent { .. } => false,
            };
            count += 1;
            odd += usize::from(!is_good);
            bytes += if is_good { raw.get().len() + ENTRY } else { 0 };
            full = count > most || bytes > LONGEST;
            Ok(!full)
        });
        if odd > 0 {
            tracing::debug!(list = in_words(key), entries = odd, "entries that are no names are left out of a list");
        }
        match read {
            Ok(()) if full => Ok(Added::TooMuch),
            Ok(()) => Ok(Added::Some(count - before)),
            Err(problem) => Err(unreadable(key, problem.to_owned())),
        }
    }

    /// The query for what comes behind these entries, as the specification has it, where the registry does not say.
    pub(super) fn query_behind(&self, query: &str) -> Option<String> {
        let Self::Names(names) = self else { return None };
        let last = percent_encoding::utf8_percent_encode(names.last()?, percent_encoding::NON_ALPHANUMERIC);
        let count = query.split('&').find(|part| part.starts_with("n=")).map_or_else(String::new, |n| format!("&{n}"));
        Some(format!("last={last}{count}"))
    }
}

/// What became of a page.
pub(in crate::cache) enum Added {
    /// So many entries were added, or left out.
    Some(usize),
    /// There are more than are kept.
    TooMuch,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Registry;
    use bytes::Bytes;

    fn page(content: String) -> FetchedList {
        let (next, own_next) = (None, None);
        let content = Bytes::from(content);
        FetchedList {
            content,
            media_type: None,
            next,
            own_next,
            lost: false,
            filters_applied: None,
            relayed: Relayed::default(),
        }
    }

    fn tags() -> ListKey {
        ListKey::Tags(crate::oci::Repository { registry: Registry::new("r.example"), name: "a".parse().unwrap() })
    }

    #[test]
    fn a_list_is_bounded_in_entries_and_in_bytes_and_has_names_only() {
        let key = tags();
        let mut entries = Entries::of(&key);
        let good = page(r#"{"tags":["a","b/c","-d","e\u002df"],"tags":["v1","","x y"]}"#.to_owned());
        assert!(matches!(entries.add(&key, &good, 10), Ok(Added::Some(3))));
        assert!(matches!(&entries, Entries::Names(names) if *names == ["v1"]));
        let long = page(format!(r#"{{"tags":["{}"]}}"#, "t".repeat(7 << 20)));
        assert!(matches!(entries.add(&key, &long, 10), Ok(Added::Some(1))));
        assert_eq!(entries.len(), 1, "what is no tag costs nothing");
        let many = page(format!(r#"{{"tags":["a"{}]}}"#, r#","a""#.repeat(1_000)));
        assert!(matches!(entries.add(&key, &many, 10), Ok(Added::TooMuch)));
        assert!(entries.len() <= 11, "{}", entries.len());
        let ListKey::Tags(repository) = key else { return };
        let key = ListKey::Referrers(repository, crate::oci::Digest::of(crate::oci::Algorithm::Sha256, b""));
        let mut entries = Entries::of(&key);
        let large = page(format!(r#"{{"manifests":[{{"a":"{}"}}]}}"#, "t".repeat(7 << 20)));
        assert!(matches!(entries.add(&key, &large, 10), Ok(Added::Some(1))));
        assert!(matches!(entries.add(&key, &large, 10), Ok(Added::Some(1))));
        assert!(matches!(entries.add(&key, &large, 10), Ok(Added::TooMuch)));
    }

    #[test]
    fn a_page_that_is_no_list_is_an_error_and_one_without_entries_is_empty() {
        let key = tags();
        let mut entries = Entries::of(&key);
        for bad in [r#"{"tags":[1]}"#, r#"{"tags":[null]}"#, "[]", "{", r#"{"tags":"v1"}"#, r#"{"tags":{}}"#, "{}"] {
            assert!(entries.add(&key, &page(bad.to_owned()), 10).is_err(), "{bad}");
        }
        for none in [r#"{"tags":null}"#, r#"{"tags":[]}"#] {
            assert!(matches!(entries.add(&key, &page(none.to_owned()), 10), Ok(Added::Some(0))), "{none}");
        }
        let deep = format!(r#"{{"x":{}1{},"tags":["v1"]}}"#, "[".repeat(20_000), "]".repeat(20_000));
        assert!(matches!(entries.add(&key, &page(deep), 10), Ok(Added::Some(1))));
    }
}
