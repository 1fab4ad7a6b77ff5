use super::entries::{Added, Entries, ListState};
use super::list_key::{in_words, request, unreadable};
use super::list_table::ListTable;
use crate::cache::error::CacheError;
use crate::cache::freshness::{Age, FreshnessRules, last_confirmed};
use crate::cache::log::log_and_ignore;
use crate::cache::negative::{Negatives, Object};
use crate::cache::stale_on_error::is_final;
use crate::cache::view::ListView;
use crate::oci::Code;
use crate::store::ListKey;
use crate::upstream::{Documents, ErrorKind, FetchedList, Page, Relayed, SHORT, UpstreamError};
use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What a list takes that is as long as it may be, with a page that is being read.
const LONGEST_IN_WORK: usize = 32 << 20;
/// Bytes of pages that are read for one list, and the time that they may take.
const LONGEST_FETCH: usize = 64 << 20;
const WHOLE: Duration = Duration::from_secs(120);

/// Gets whole lists from upstream and stores them.
#[derive(Debug)]
pub(super) struct ListFetcher {
    pub(super) table: Arc<ListTable>,
    pub(super) negatives: Arc<Negatives>,
    /// Entries of a list that is kept.
    most: usize,
    documents: Documents,
}

impl ListFetcher {
    pub(super) fn new(table: Arc<ListTable>, negatives: Arc<Negatives>, most: usize, documents: Documents) -> Self {
        Self { table, negatives, most, documents }
    }

    /// Fetches all pages and stores the list, unless there was a write since the view was taken.
    pub(super) async fn fetch(&self, view: &ListView) -> Result<ListState, CacheError> {
        let key = view.subject();
        let (entries, relayed) = match in_time(key, self.pages(view)).await {
            Ok(fetched) => fetched,
            Err(error) => {
                let Some(absent) = lacks_referrers(key, &error) else {
                    self.note_failure(view, &error).await;
                    return Err(error);
                };
                (Some(absent), Relayed::default())
            }
        };
        let lasting = match &entries {
            Some(entries) => self.table.is_lasting(key, entries).await,
            None => false,
        };
        let late = relayed.stale.as_ref();
        let seen = late.map_or_else(SystemTime::now, |stale| last_confirmed(stale, ttl(key, &view.upstream.freshness)));
        let state = ListState { entries: entries.map(Arc::new), age: Age::since(seen), relayed, room: None };
        if let Some(permit) = view.store_permit().await {
            self.table.keep(&permit, key, &state, seen, lasting).await;
        }
        Ok(state)
    }

    async fn note_failure(&self, view: &ListView, error: &CacheError) {
        let Some(permit) = view.store_permit().await else { return };
        let key = view.subject();
        if !is_final(error) {
            self.table.postpone(&permit, key);
            return;
        }
        if let (Some(repository), CacheError::Upstream(error)) = (view.repository_of(), error) {
            self.negatives.note(&permit, view, repository, absent(key), error);
        }
        log_and_ignore("forget the list of", key.registry(), self.table.forget(&permit, key).await);
    }

    /// The pages, one after the other. `None`: there are more entries, bytes or pages than are kept. A list that ends early is not kept
    /// as a whole one. What caches on the way say is that of the last page, unless an earlier one could not be confirmed.
    async fn pages(&self, view: &ListView) -> Result<(Option<Entries>, Relayed), CacheError> {
        let key = view.subject();
        let (mut all, mut fetched_bytes) = (Entries::of(key), 0);
        let (mut followed, mut relayed, mut room) = (HashSet::new(), Relayed::default(), None);
        let mut fetched = view.upstream.get_list(view.repository_of(), true, request(key, Page::First)).await?;
        loop {
            fetched_bytes += fetched.content.len();
            let added = match all.add(key, &fetched, self.most) {
                // What the registry called the next page is none: the pages before it were good.
                Err(error) if !all.is_empty() => {
                    tracing::debug!(list = in_words(key), %error, "a next page is no list: it is passed on page by page");
                    return Ok((None, relayed));
                }
                added => added?,
            };
            if relayed.stale.is_none() {
                relayed = std::mem::take(&mut fetched.relayed);
            }
            let Added::Some(added) = added else { return Ok((None, relayed)) };
            if fetched_bytes > LONGEST_FETCH {
                return Ok((None, relayed));
            }
            if !fetched.lost && fetched.next.is_none() {
                return Ok((Some(all), relayed));
            }
            let next = fetched.next.take().filter(|_| all.len() <= self.most);
            // A page that brings nothing and names another one would never end, nor would a circle of them.
            let next = next.filter(|next| added > 0 && followed.insert(next.clone()));
            let Some(next) = next else { return Ok((None, relayed)) };
            let own = fetched.own_next.take();
            if room.is_none() && fetched_bytes > SHORT {
                drop(fetched);
                room = self.documents.room(LONGEST_IN_WORK).await?;
            }
            let page = next_page(view, next, own);
            let page = match &room {
                Some(room) => room.cover(page).await,
                None => page.await,
            };
            fetched = match page {
                Ok(fetched) => fetched,
                Err(error) if error.is_outage() && self.table.get(key).await.is_some() => return Err(error.into()),
                Err(error) => {
                    tracing::debug!(list = in_words(key), %error, "a list has no next page: it is passed on page by page");
                    return Ok((None, relayed));
                }
            };
        }
    }
}

/// The page where the registry says that it is, or at the list's own path where the registry is wrong about that.
async fn next_page(view: &ListView, next: String, own: Option<String>) -> Result<FetchedList, UpstreamError> {
    let get = |next| view.upstream.get_list(view.repository_of(), false, request(view.subject(), Page::Next(next)));
    let fetched = get(next).await;
    let key = view.subject();
    let is_list = fetched.as_ref().is_ok_and(|page| Entries::of(key).add(key, page, 0).is_ok());
    match own {
        Some(own) if !is_list => get(own).await,
        _ => fetched,
    }
}

async fn in_time<T>(key: &ListKey, work: impl Future<Output = Result<T, CacheError>>) -> Result<T, CacheError> {
    let done = tokio::time::timeout(WHOLE, work).await;
    done.unwrap_or_else(|_| Err(unreadable(key, format!("its pages take longer than {} s", WHOLE.as_secs()))))
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
pub(super) fn absent(key: &ListKey) -> Object {
    match key {
        ListKey::Referrers(_, digest) => Object::List(Some(*digest)),
        ListKey::Catalogue(_) | ListKey::Tags(_) => Object::List(None),
    }
}

pub(super) fn ttl(key: &ListKey, freshness: &FreshnessRules) -> Duration {
    match key {
        ListKey::Referrers(repository, _) => freshness.of(repository).brief_ttl(),
        ListKey::Tags(repository) => freshness.of(repository).ttl,
        ListKey::Catalogue(_) => freshness.other.ttl,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Registry, Repository};

    #[tokio::test(start_paused = true)]
    async fn a_list_whose_pages_take_for_ever_is_given_up_after_two_minutes() {
        let key = ListKey::Tags(Repository { registry: Registry::new("r.example"), name: "a".parse().unwrap() });
        let begun = tokio::time::Instant::now();
        let ended = in_time::<()>(&key, std::future::pending()).await;
        assert!(matches!(ended, Err(CacheError::Unreadable { .. })));
        assert_eq!(begun.elapsed().as_secs(), 120);
    }
}
