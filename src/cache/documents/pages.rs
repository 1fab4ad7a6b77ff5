//! The pages of a list, one after the other.

use crate::cache::Inner;
use crate::cache::documents::lists::{Added, Entries, LONGEST_FETCH, in_time, in_words, repository, request};
use crate::cache::error::CacheError;
use crate::cache::upstream_state::state::UpstreamState;
use crate::store::ListKey;
use crate::upstream::{FetchedList, Page, Relayed, SHORT, UpstreamError};
use std::collections::HashSet;

/// What a list takes that is as long as it may be, with a page that is being read.
const LONGEST_IN_WORK: usize = 32 << 20;

impl Inner {
    /// `None`: there are more entries, bytes or pages than are kept. A list that ends early is not kept as a whole one. What
    /// caches on the way say is that of the last page, unless an earlier one could not be confirmed.
    pub(in crate::cache) async fn fetch_pages(&self, key: &ListKey) -> Result<(Option<Entries>, Relayed), CacheError> {
        in_time(key, self.fetch_all_pages(key)).await
    }

    async fn fetch_all_pages(&self, key: &ListKey) -> Result<(Option<Entries>, Relayed), CacheError> {
        let upstream = self.upstream_of(key.registry())?;
        let (mut all, mut fetched_bytes) = (Entries::of(key), 0);
        let (mut followed, mut relayed, mut room) = (HashSet::new(), Relayed::default(), None);
        let mut fetched = upstream.ask(repository(key), upstream.client.get_list(request(key, Page::First))).await?;
        loop {
            fetched_bytes += fetched.content.len();
            let added = all.add(key, &fetched, self.limits.list_entries)?;
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
            let next = fetched.next.take().filter(|_| all.len() <= self.limits.list_entries);
            // A page that brings nothing and names another one would go on for ever, as would a circle of them.
            let next = next.filter(|next| added > 0 && followed.insert(next.clone()));
            let Some(next) = next else { return Ok((None, relayed)) };
            let own = fetched.own_next.take();
            if room.is_none() && fetched_bytes > SHORT {
                drop(fetched);
                room = self.documents.room(LONGEST_IN_WORK).await?;
            }
            let page = self.next_page(key, upstream, next, own);
            let page = match &room {
                Some(room) => room.cover(page).await,
                None => page.await,
            };
            fetched = match page {
                Ok(fetched) => fetched,
                Err(error) if error.is_outage() && self.list_state(key).await.is_some() => return Err(error.into()),
                Err(error) => {
                    tracing::debug!(list = in_words(key), %error, "a list has no next page: it is passed on page by page");
                    return Ok((None, relayed));
                }
            };
        }
    }

    /// The page where the registry says that it is, or at the list's own path where the registry is wrong about that.
    async fn next_page(
        &self,
        key: &ListKey,
        upstream: &UpstreamState,
        next: String,
        own: Option<String>,
    ) -> Result<FetchedList, UpstreamError> {
        let get = |next: String| upstream.client.get_list(request(key, Page::Next(next)));
        // That a page is not to be had says nothing about the repository, which has given one.
        let fetched = upstream.ask(None, get(next)).await;
        match own {
            Some(own) if fetched.is_err() => upstream.ask(None, get(own)).await,
            _ => fetched,
        }
    }
}
