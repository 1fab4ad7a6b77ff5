//! Lists: tags, catalogue, referrers. Fetched whole, kept with their time, and cut by whoever answers.

use crate::cache::answer::{ListAnswer, Provenance};
use crate::cache::documents::manifests::last_confirmed;
use crate::cache::epochs::Epoch;
use crate::cache::error::CacheError;
use crate::cache::freshness::Age;
use crate::cache::negative::Object;
use crate::cache::stale_on_error::{Aged, is_final};
use crate::cache::upstream_state::state::UpstreamState;
use crate::cache::{Cache, Inner, log_and_ignore};
use crate::oci::{self, Code, Name, Tag};
use crate::store::{ListKey, StoredList};
use crate::telemetry::CacheStatus;
use crate::upstream::{ErrorKind, FetchedList, ListRequest, Page, READING, Relayed, Room, SHORT};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What an entry takes beside its text: its place, and what an allocation costs.
const ENTRY: usize = 40;

/// Bytes that a list may take to be kept: what a hundred thousand names of usual length do.
const LONGEST: usize = 16 << 20;
/// Entries of one page: a hundred times what registries give.
const MOST_OF_A_PAGE: usize = 100_000;
/// Bytes of pages that are read for one list, and the time that they may take.
pub(in crate::cache) const LONGEST_FETCH: usize = 64 << 20;
/// Lists that are read from the store at once.
pub(in crate::cache) const READERS: usize = 4;
const WHOLE: Duration = Duration::from_secs(120);

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

impl Cache {
    /// The list. `query` goes to upstream where the list is too long to be kept.
    pub async fn list(&self, key: &ListKey, query: &str, revalidate: bool) -> Result<ListAnswer, CacheError> {
        let upstream = self.0.upstream_of(key.registry())?;
        let ttl = ttl(key, &upstream.freshness);
        let epoch = self.0.epochs.current_of(key.registry(), repository(key));
        let denied = repository(key).is_some_and(|repository| upstream.is_denied(repository));
        let state = if denied { None } else { self.0.list_state(key).await };
        if state.is_none() && upstream.sealed {
            let list = List::Whole(Arc::new(self.0.local_list(key).await?));
            return Ok(ListAnswer { list, provenance: Provenance::new(CacheStatus::Hit), room: None });
        }
        if state.is_none()
            && !revalidate
            && let Some((repository, object)) = absent(key, epoch)
            && let Some(absence) = self.0.negatives.recall(repository, object)
        {
            return Err(absence.into());
        }
        let ask = || self.fetch_list(key, epoch);
        let (ListState { entries, room, .. }, provenance) = upstream.current(state, ttl, revalidate, ask).await?;
        if let Some(Entries::Absent { code, message }) = entries.as_deref() {
            return Err(CacheError::Absent { code: code.clone(), message: message.clone() });
        }
        match entries {
            Some(entries) => Ok(ListAnswer { list: List::Whole(entries), provenance, room }),
            None => self.page(key, upstream, query).await,
        }
    }

    fn fetch_list(
        &self,
        key: &ListKey,
        epoch: Epoch,
    ) -> crate::cache::single_flight::Waiter<Result<ListState, CacheError>> {
        let (inner, of) = (Arc::clone(&self.0), key.clone());
        let flights = &self.0.list_flights;
        flights.join((of.clone(), epoch), &self.0.tasks, || async move { inner.fetch_list(&of, epoch).await })
    }

    async fn page(&self, key: &ListKey, upstream: &UpstreamState, query: &str) -> Result<ListAnswer, CacheError> {
        let request = upstream.client.get_list(request(key, Page::Query(query.to_owned())));
        let fetched = upstream.ask(repository(key), request).await?;
        let mut entries = Entries::of(key);
        match entries.add(key, &fetched, MOST_OF_A_PAGE)? {
            Added::Some(_) => {}
            Added::TooMuch => {
                return Err(unreadable(key, "a page of it has more entries, or bytes, than a page may".to_owned()));
            }
        }
        let lost = fetched.lost && fetched.next.is_none();
        let relayed = fetched.relayed.clone();
        let next = fetched.next.and_then(|next| Some(next.split_once('?')?.1.to_owned()));
        let next = if lost { entries.query_behind(query) } else { next };
        let filtered = fetched.filters_applied.as_deref() == Some("artifactType");
        let page = Arc::new(ListPage { entries, next, filtered });
        let provenance = Provenance::new(CacheStatus::Bypass).relayed(&relayed);
        Ok(ListAnswer { list: List::Page(page), provenance, room: None })
    }
}

impl Inner {
    pub(in crate::cache) async fn list_state(&self, key: &ListKey) -> Option<ListState> {
        if let Some(state) = self.lists.get(key) {
            return Some(state);
        }
        let (mut reading, mut room) = (self.list_readers.acquire().await.ok()?, None);
        // Perhaps somebody else has just read it.
        if let Some(state) = self.lists.get(key) {
            return Some(state);
        }
        let stored = loop {
            let _looking = self.epochs.look_of(key.registry(), repository(key)).await?;
            let stored = log_and_ignore("read the list of", key.registry(), self.store.list(key).await)??;
            let bytes = stored.content.len().saturating_mul(READING);
            if room.is_some() || bytes <= SHORT {
                break stored;
            }
            room = self.documents.room_now(bytes);
            if room.is_some() {
                break stored;
            }
            drop((stored, reading));
            room = self.documents.room(bytes).await.ok()?;
            reading = self.list_readers.acquire().await.ok()?;
        };
        let entries = serde_json::from_slice(&stored.content).ok()?;
        drop(reading);
        let (age, relayed) = (Age::since(stored.fetched), Relayed::default());
        let state = ListState { entries: Some(Arc::new(entries)), age, relayed, room };
        self.lists.insert(key.clone(), state.clone());
        Some(state)
    }

    /// Fetches all pages and keeps the list, unless there was a write since `begun`.
    async fn fetch_list(&self, key: &ListKey, begun: Epoch) -> Result<ListState, CacheError> {
        let (entries, relayed) = match self.fetch_pages(key).await {
            Ok(fetched) => fetched,
            Err(error) => {
                let Some(absent) = lacks_referrers(key, &error) else {
                    self.note_list_failure(key, &error, begun).await;
                    return Err(error);
                };
                (Some(absent), Relayed::default())
            }
        };
        let lasting = match &entries {
            Some(entries) => self.is_lasting(key, entries).await,
            None => false,
        };
        let seen = match (&relayed.stale, self.upstream_of(key.registry())) {
            (Some(stale), Ok(upstream)) => last_confirmed(stale, ttl(key, &upstream.freshness)),
            _ => SystemTime::now(),
        };
        let state = ListState { entries: entries.map(Arc::new), age: Age::since(seen), relayed, room: None };
        let Some(_keeping) = self.epochs.keep_of(key.registry(), repository(key), begun).await else {
            return Ok(state);
        };
        self.lists.insert(key.clone(), state.clone());
        let written = state.entries.as_ref().filter(|_| lasting);
        if let Some(content) = written.and_then(|entries| serde_json::to_vec(&**entries).ok()) {
            let list = StoredList { fetched: seen, content: content.into() };
            log_and_ignore("keep the list of", key.registry(), self.store.set_list(key, &list).await);
        }
        Ok(state)
    }

    /// Whether the list goes to disk. No list of the referrers of something that is not here does, if it is empty: a registry gives
    /// one for any digest that a client makes up, and files would pile up that nobody wants.
    async fn is_lasting(&self, key: &ListKey, entries: &Entries) -> bool {
        let ListKey::Referrers(repository, subject) = key else { return true };
        if !matches!(entries, Entries::Descriptors(all) if all.is_empty()) {
            return true;
        }
        let linked =
            log_and_ignore("read the link of", subject, self.store.manifest_type(repository, subject).await).flatten();
        // What was there before is replaced.
        linked.is_some()
            || log_and_ignore("read the list of", key.registry(), self.store.list(key).await).flatten().is_some()
    }

    async fn note_list_failure(&self, key: &ListKey, error: &CacheError, begun: Epoch) {
        let Some(_keeping) = self.epochs.keep_of(key.registry(), repository(key), begun).await else { return };
        if is_final(error) {
            if let (Some((repository, object)), CacheError::Upstream(error), Ok(upstream)) =
                (absent(key, begun), error, self.upstream_of(key.registry()))
            {
                self.negatives.note(repository, object, error, upstream.freshness.of(repository).negative_ttl);
            }
            self.lists.remove(key);
            log_and_ignore("forget the list of", key.registry(), self.store.remove_list(key).await);
        } else if let Some(state) = self.lists.get(key) {
            self.lists.insert(key.clone(), ListState { age: state.age.postponed(), ..state });
        }
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
    /// is left out: nobody can ask for it.
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
    fn query_behind(&self, query: &str) -> Option<String> {
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

pub(in crate::cache) async fn in_time<T>(
    key: &ListKey,
    work: impl Future<Output = Result<T, CacheError>>,
) -> Result<T, CacheError> {
    let done = tokio::time::timeout(WHOLE, work).await;
    done.unwrap_or_else(|_| Err(unreadable(key, format!("its pages take longer than {} s", WHOLE.as_secs()))))
}

fn unreadable(key: &ListKey, problem: String) -> CacheError {
    CacheError::Unreadable { upstream: key.registry().to_string(), what: "list", problem }
}

/// The field of a page in which its entries stand.
fn field(key: &ListKey) -> &'static str {
    match key {
        ListKey::Catalogue(_) => "repositories",
        ListKey::Tags(_) => "tags",
        ListKey::Referrers(..) => "manifests",
    }
}

pub(in crate::cache) fn in_words(key: &ListKey) -> String {
    match key {
        ListKey::Catalogue(registry) => format!("the list of the repositories of {registry}"),
        ListKey::Tags(repository) => format!("the list of the tags of {repository}"),
        ListKey::Referrers(repository, digest) => format!("the list of the referrers of {repository}@{digest}"),
    }
}

fn is_name(key: &ListKey, name: &str) -> bool {
    match key {
        ListKey::Catalogue(_) => name.parse::<Name>().is_ok(),
        ListKey::Tags(_) => name.parse::<Tag>().is_ok(),
        ListKey::Referrers(..) => false,
    }
}

/// A registry without the referrers API, or one that says so (404, other than for an unknown repository).
fn lacks_referrers(key: &ListKey, error: &CacheError) -> Option<Entries> {
    let (ListKey::Referrers(..), CacheError::Upstream(error)) = (key, error) else { return None };
    match error.kind() {
        ErrorKind::NotFound { code, message } if code != Code::NameUnknown.as_str() => {
            Some(Entries::Absent { code: code.clone(), message: message.clone() })
        }
        _ => None,
    }
}

/// What upstream says that it does not have where it has no such list.
fn absent(key: &ListKey, epoch: Epoch) -> Option<(&crate::oci::Repository, Object)> {
    let digest = match key {
        ListKey::Referrers(_, digest) => Some(*digest),
        ListKey::Catalogue(_) | ListKey::Tags(_) => None,
    };
    Some((repository(key)?, Object::List(digest, epoch)))
}

pub(in crate::cache) fn repository(key: &ListKey) -> Option<&crate::oci::Repository> {
    match key {
        ListKey::Catalogue(_) => None,
        ListKey::Tags(repository) | ListKey::Referrers(repository, _) => Some(repository),
    }
}

fn ttl(key: &ListKey, freshness: &crate::cache::freshness::FreshnessRules) -> Duration {
    match key {
        ListKey::Referrers(repository, _) => freshness.of(repository).brief_ttl(),
        ListKey::Tags(repository) => freshness.of(repository).ttl,
        ListKey::Catalogue(_) => freshness.other.ttl,
    }
}

pub(in crate::cache) fn request(key: &ListKey, page: Page) -> ListRequest {
    let name = |repository: &crate::oci::Repository| -> Name { repository.name.clone() };
    match key {
        ListKey::Catalogue(_) => ListRequest::Catalogue { page },
        ListKey::Tags(repository) => ListRequest::Tags { repository: name(repository), page },
        ListKey::Referrers(repository, digest) => {
            ListRequest::Referrers { repository: name(repository), digest: *digest, page }
        }
    }
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

    #[tokio::test(start_paused = true)]
    async fn a_list_whose_pages_take_for_ever_is_given_up_after_two_minutes() {
        let begun = tokio::time::Instant::now();
        let ended = in_time::<()>(&tags(), std::future::pending()).await;
        assert!(matches!(ended, Err(CacheError::Unreadable { .. })));
        assert_eq!(begun.elapsed().as_secs(), 120);
    }
}
