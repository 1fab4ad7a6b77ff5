//! `/v2/_catalog` of a request that names no upstream: every upstream's repositories, each as this client can ask for it.
//!
//! The default upstream's stand as they are, all others behind their upstream's name, so that whatever is listed can be pulled as
//! it stands. A repository of the default upstream whose first component is an upstream's name would lead there; it is listed
//! behind the default's own name.

use super::error::Problem;
use super::explain;
use super::lists::{self, Cut};
use super::reply::{JSON, Reply, list_reply};
use super::service::{Inner, RequestContext};
use crate::cache::{Cache, CacheError, Entries, List, ListAnswer, Provenance};
use crate::config::Right;
use crate::oci::{Deed, Registry};
use crate::store::ListKey;
use crate::telemetry::CacheStatus;
use http::header;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Upstreams that one request asks at once.
const AT_ONCE: usize = 8;
/// How long one upstream may delay the others' repositories. larder continues to fetch its list, for the next request.
const WAIT: Duration = Duration::from_secs(10);

/// What one upstream brings to the list of all.
struct Share {
    entries: Arc<Entries>,
    provenance: Provenance,
}

/// The lists of all registries as one.
struct Joined {
    names: Vec<String>,
    /// What is missing or old.
    remarks: Vec<String>,
    provenance: Provenance,
}

impl Inner {
    pub(in crate::server) async fn catalogues(&self, ctx: &RequestContext<'_>) -> Result<Reply, Problem> {
        let cut = Cut::parse(ctx.query)?;
        let joined = self.joined(ctx, self.shares(ctx).await?)?;
        let Joined { mut names, remarks, provenance } = joined;
        names.sort_unstable();
        let room = self.cache.documents().room(cut.most_bytes_of(&names)).await.map_err(CacheError::from)?;
        let page = lists::catalogue(&cut, ctx.naming, &names);
        let mut reply = list_reply(page, JSON, ctx.is_head(), provenance, room);
        if !remarks.is_empty()
            && let Some(warning) = explain::warning_text(&format!("not all repositories: {}", remarks.join("; ")))
        {
            reply.response.headers_mut().insert(header::WARNING, warning);
        }
        Ok(reply)
    }

    /// Each registry's list, or why there is none, in the order of the registries. A list that the caller may not read is left out without
    /// a word; it is an error if there is no other.
    async fn shares(&self, ctx: &RequestContext<'_>) -> Result<Vec<(Registry, Result<Share, CacheError>)>, Problem> {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut asking = JoinSet::new();
        let (mut shares, mut refused) = (Vec::new(), None);
        for registry in self.routes.registries().to_vec() {
            if let Err(refusal) = self.permit(ctx, Right::Pull, &registry, None, &Deed::Catalogue).await {
                refused = Some(refusal);
                continue;
            }
            let (cache, places, place) = (self.cache.clone(), Arc::clone(&places), shares.len());
            shares.push((registry.clone(), Err(CacheError::Aborted)));
            let no_cache = ctx.no_cache();
            asking.spawn(async move {
                let _place = places.acquire().await;
                (place, share(&cache, &registry, no_cache).await)
            });
        }
        while let Some(done) = asking.join_next().await {
            if let Ok((place, share)) = done {
                shares[place].1 = share;
            }
        }
        match refused {
            Some(refusal) if shares.is_empty() => Err(refusal.into()),
            _ => Ok(shares),
        }
    }

    /// All shares as one list, with a remark for each that is not whole. It is an error if there is no share at all.
    fn joined(
        &self,
        ctx: &RequestContext<'_>,
        shares: Vec<(Registry, Result<Share, CacheError>)>,
    ) -> Result<Joined, Problem> {
        let (mut names, mut remarks) = (Vec::new(), Vec::new());
        let mut provenance: Option<Provenance> = None;
        let mut failure = None;
        for (registry, share) in shares {
            match share {
                Ok(share) => {
                    let unnamed = self.add_named(&mut names, &registry, ctx, &share.entries);
                    if unnamed > 0 {
                        remarks
                            .push(format!("{unnamed} of {registry}, whose name no path can have (give it an alias)"));
                    }
                    if let Some(outage) = &share.provenance.outage {
                        remarks.push(format!("{registry} as it was last seen ({outage})"));
                    }
                    provenance = Some(join(provenance, share.provenance));
                }
                Err(error) => {
                    remarks.push(format!("{registry} left out ({error})"));
                    failure = failure.or(Some(error));
                }
            }
        }
        let provenance = match (provenance, failure) {
            (Some(provenance), _) => Provenance { outage: None, ..provenance },
            (None, Some(error)) => return Err(error.into()),
            (None, None) => Provenance::new(CacheStatus::Hit),
        };
        Ok(Joined { names, remarks, provenance })
    }

    /// Adds the repositories that the caller may pull, as it can ask for them, and gives the number of those that it cannot.
    fn add_named(
        &self,
        names: &mut Vec<String>,
        registry: &Registry,
        ctx: &RequestContext<'_>,
        entries: &Entries,
    ) -> usize {
        let visible = self.visible(&ListKey::Catalogue(registry.clone()), ctx, entries);
        let Entries::Names(listed) = visible.as_ref().unwrap_or(entries) else { return 0 };
        let before = names.len();
        names.extend(listed.iter().filter_map(|name| self.routes.name_without_ns(registry, name)));
        listed.len() - (names.len() - before)
    }
}

async fn share(cache: &Cache, registry: &Registry, no_cache: bool) -> Result<Share, CacheError> {
    let key = ListKey::Catalogue(registry.clone());
    let Ok(answer) = timeout(WAIT, cache.list(&key, "", no_cache)).await else {
        return Err(CacheError::Slow { what: "the list of repositories", waited: WAIT });
    };
    let ListAnswer { list, provenance, .. } = answer?;
    match list {
        List::Whole(entries) => Ok(Share { entries, provenance }),
        List::Page(_) => Err(CacheError::TooMany { registry: registry.clone() }),
    }
}

/// One word for both: the one that says more about what was asked upstream.
fn join(all: Option<Provenance>, one: Provenance) -> Provenance {
    let Some(all) = all else { return one };
    let rank = |provenance: &Provenance| match provenance.status {
        CacheStatus::Stale => 4,
        CacheStatus::Miss => 3,
        CacheStatus::Coalesced => 2,
        CacheStatus::Revalidated => 1,
        _ => 0,
    };
    let ttl = all.ttl.into_iter().chain(one.ttl).min();
    Provenance { ttl, ..if rank(&one) > rank(&all) { one } else { all } }
}
