use super::fetch::Ask;
use super::link::{self, Next};
use super::wire::Answer;
use crate::oci::{Digest, MediaType, Name};
use crate::upstream::auth::scope::Scope;
use crate::upstream::error::{ErrorKind, Failure};
use crate::upstream::limits::op::Op;
use crate::upstream::registry::media_type_of;
use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, Uri};

/// Bytes of one page: ten times what ACR's largest page of the longest names has.
const MAX_PAGE: usize = 8 << 20;
/// Entries to ask for in a page: what ACR and Distribution give at most. Their default is a tenth of it.
const PAGE: &str = "n=1000";

/// Which list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListRequest {
    /// All repositories.
    Catalogue {
        /// Which page.
        page: Page,
    },
    /// The tags of a repository.
    Tags {
        /// The repository.
        repository: Name,
        /// Which page.
        page: Page,
    },
    /// What is attached to a manifest.
    Referrers {
        /// The repository.
        repository: Name,
        /// The manifest.
        digest: Digest,
        /// Which page.
        page: Page,
    },
}

/// Which page of a list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// The first one, as long as registries make them.
    First,
    /// The one that [`FetchedList::next`] of another names.
    Next(String),
    /// What this raw query, which a client sent, means.
    Query(String),
}

/// One page of a list, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedList {
    /// The JSON.
    pub content: Bytes,
    /// Its type, without parameters.
    pub media_type: Option<MediaType>,
    /// Path and query of the next page on the same registry.
    pub next: Option<String>,
    /// Filters that the registry says it has applied.
    pub filters_applied: Option<String>,
}

impl ListRequest {
    /// The repository; the catalogue is of none.
    pub(in crate::upstream) fn repository(&self) -> Option<&Name> {
        match self {
            Self::Catalogue { .. } => None,
            Self::Tags { repository, .. } | Self::Referrers { repository, .. } => Some(repository),
        }
    }

    /// Continues "cannot …".
    pub(in crate::upstream) fn attempt(&self) -> String {
        match self {
            Self::Catalogue { .. } => "list the repositories".to_owned(),
            Self::Tags { repository, .. } => format!("list the tags of {repository}"),
            Self::Referrers { repository, digest, .. } => format!("list the referrers of {repository}@{digest}"),
        }
    }

    /// The request; `url` makes an address of a path.
    pub(in crate::upstream) fn ask(self, url: impl Fn(&str) -> Result<Uri, Failure>) -> Result<Ask, Failure> {
        let (op, path, scope, page, first) = match self {
            Self::Catalogue { page } => (Op::Catalogue, "/v2/_catalog".to_owned(), Scope::Catalogue, page, Some(PAGE)),
            Self::Tags { repository, page } => {
                (Op::Tags, format!("/v2/{repository}/tags/list"), Scope::Tags(repository), page, Some(PAGE))
            }
            Self::Referrers { repository, digest, page } => {
                let path = format!("/v2/{repository}/referrers/{digest}");
                (Op::Referrers, path, Scope::Referrers(repository), page, None)
            }
        };
        let path = match page {
            Page::First => first.map_or(path.clone(), |query| format!("{path}?{query}")),
            Page::Query(query) if query.is_empty() => path,
            Page::Query(query) => format!("{path}?{query}"),
            Page::Next(next) if next.starts_with("/v2/") => next,
            Page::Next(next) => return Err(astray(&next)),
        };
        // oras-go and others compare the type of referrers byte for byte; a registry may choose it by this header.
        let accept = if op == Op::Referrers { MediaType::OCI_INDEX } else { "application/json" };
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        Ok(Ask { op, method: Method::GET, url: url(&path)?, headers, scope })
    }
}

/// Reads one page.
pub(in crate::upstream) async fn page(answer: Answer) -> Result<FetchedList, Failure> {
    let next = match link::next(&answer.headers, &answer.url) {
        Next::None => None,
        Next::Page(next) if next.starts_with("/v2/") => Some(next),
        Next::Page(next) => return Err(astray(&next)),
        Next::Astray => return Err(astray("another host")),
    };
    let filters_applied = answer.header("oci-filters-applied").map(str::to_owned);
    let media_type = media_type_of(&answer);
    let content = answer.collect(MAX_PAGE).await?;
    Ok(FetchedList { content, media_type, next, filters_applied })
}

/// A list whose next page cannot be had is no list: an end would be a lie.
fn astray(next: &str) -> Failure {
    let reason =
        format!("the next page of the list is said to be at {next}, which is not the registry API of this upstream");
    Failure::new(ErrorKind::Foreign, reason)
}
