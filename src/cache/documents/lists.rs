//! Answers to requests for lists: tags, catalogue, referrers. Fetched whole, stored with their time, and cut where they are answered.

use super::entries::{Added, Entries, List, ListAnswer, ListPage, ListState};
use super::list_fetch::{ListFetcher, absent, ttl};
use super::list_key::{request, unreadable};
use super::list_table::ListTable;
use super::local_lists::local_list;
use crate::cache::epochs::Epoch;
use crate::cache::error::CacheError;
use crate::cache::negative::Negatives;
use crate::cache::provenance::Provenance;
use crate::cache::single_flight::{SingleFlight, Waiter};
use crate::cache::stale_on_error::serve;
use crate::cache::tasks::Tasks;
use crate::cache::view::ListView;
use crate::store::{ListKey, Store};
use crate::telemetry::CacheStatus;
use crate::upstream::{Documents, Page};
use std::sync::Arc;

/// Entries of one page: a hundred times what registries give.
const MOST_OF_A_PAGE: usize = 100_000;

/// Answers requests for lists.
#[derive(Debug)]
pub(in crate::cache) struct Lists {
    store: Store,
    fetcher: Arc<ListFetcher>,
    flights: SingleFlight<(ListKey, Epoch), Result<ListState, CacheError>>,
    tasks: Arc<Tasks>,
}

impl Lists {
    /// Keeps lists of at most so many entries whole.
    pub(in crate::cache) fn new(
        store: Store,
        table: Arc<ListTable>,
        negatives: Arc<Negatives>,
        entries: usize,
        documents: Documents,
        tasks: Arc<Tasks>,
    ) -> Self {
        let fetcher = Arc::new(ListFetcher::new(table, negatives, entries, documents));
        Self { store, fetcher, flights: SingleFlight::default(), tasks }
    }

    /// The list. `query` goes to upstream where the list is too long to be kept.
    pub(in crate::cache) async fn get(
        &self,
        view: &ListView,
        query: &str,
        revalidate: bool,
    ) -> Result<ListAnswer, CacheError> {
        let (key, upstream) = (view.subject(), &view.upstream);
        let state = if view.is_denied() { None } else { self.fetcher.table.get(key).await };
        if state.is_none() && upstream.sealed {
            let list = List::Whole(Arc::new(local_list(&self.store, key).await?));
            return Ok(ListAnswer { list, provenance: Provenance::new(CacheStatus::Hit), room: None });
        }
        if state.is_none()
            && !revalidate
            && let Some(absence) = self.fetcher.negatives.recall(view, absent(key))
        {
            return Err(absence.into());
        }
        let ttl = ttl(key, &upstream.freshness);
        let (ListState { entries, room, .. }, provenance) =
            serve(upstream, state, ttl, revalidate, || self.fetch(view)).await?;
        if let Some(Entries::Absent { code, message }) = entries.as_deref() {
            return Err(CacheError::Absent { code: code.clone(), message: message.clone() });
        }
        match entries {
            Some(entries) => Ok(ListAnswer { list: List::Whole(entries), provenance, room }),
            None => page(view, query).await,
        }
    }

    /// One fetch under way per list.
    fn fetch(&self, view: &ListView) -> Waiter<Result<ListState, CacheError>> {
        let (fetcher, begun) = (Arc::clone(&self.fetcher), view.clone());
        self.flights.join(view.key(), &self.tasks, || async move { fetcher.fetch(&begun).await })
    }
}

/// One page of a list that is too long to be kept, as upstream cuts it.
async fn page(view: &ListView, query: &str) -> Result<ListAnswer, CacheError> {
    let key = view.subject();
    let page = request(key, Page::Query(query.to_owned()));
    let fetched = view.upstream.get_list(view.repository_of(), true, page).await?;
    let mut entries = Entries::of(key);
    if let Added::TooMuch = entries.add(key, &fetched, MOST_OF_A_PAGE)? {
        return Err(unreadable(key, "a page of it has more entries, or bytes, than a page may".to_owned()));
    }
    let lost = fetched.lost && fetched.next.is_none();
    let next = fetched.next.and_then(|next| Some(next.split_once('?')?.1.to_owned()));
    let next = if lost { entries.query_behind(query) } else { next };
    let filtered = fetched.filters_applied.as_deref() == Some("artifactType");
    let page = Arc::new(ListPage { entries, next, filtered });
    let provenance = Provenance::new(CacheStatus::Bypass).relayed(&fetched.relayed);
    Ok(ListAnswer { list: List::Page(page), provenance, room: None })
}
