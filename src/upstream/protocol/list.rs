use super::answer::Answer;
use super::classify;
use super::fetch::Ask;
use super::link::{self, Next};
use super::relayed::Relayed;
use crate::oci::{Code, Digest, MediaType, Name};
use crate::upstream::auth::scope::Scope;
use crate::upstream::error::{ErrorKind, Failure};
use crate::upstream::limits::documents::Documents;
use crate::upstream::limits::op::Op;
use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, Uri};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Bytes of one page: ten times what ACR's largest page of the longest names has.
const MAX_PAGE: usize = 8 << 20;
/// Entries to ask for in a page: what ACR and Distribution give at most. Their default is a tenth of it.
const PAGE: &str = "n=1000";

/// Which list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListRequest {
    /// All repositories.
    Catalogue { page: Page },
    /// The tags of a repository.
    Tags { repository: Name, page: Page },
    /// What is attached to a manifest.
    Referrers {
        repository: Name,
        /// The manifest.
        digest: Digest,
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
    /// The same at this list's own path, where the registry names another one: some leave a part out, or write one of their inside.
    pub own_next: Option<String>,
    /// Whether there is a next page whose address is unknown.
    pub lost: bool,
    /// Filters that the registry says it has applied.
    pub filters_applied: Option<String>,
    /// What caches on the way say of it.
    pub relayed: Relayed,
}

impl ListRequest {
    /// The repository; the catalogue is of none.
    pub(in crate::upstream) fn repository(&self) -> Option<&Name> {
        match self {
            Self::Catalogue { .. } => None,
            Self::Tags { repository, .. } | Self::Referrers { repository, .. } => Some(repository),
        }
    }

    /// Whose referrers are asked for.
    pub(in crate::upstream) fn referrers_of(&self) -> Option<(Name, Digest)> {
        match self {
            Self::Referrers { repository, digest, .. } => Some((repository.clone(), *digest)),
            _ => None,
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

/// Reads one page of the list that `asked` is.
pub(in crate::upstream) async fn page(
    asked: &Ask,
    answer: Answer,
    documents: &Documents,
) -> Result<FetchedList, Failure> {
    let (path, query) = (asked.url.path(), asked.url.query().unwrap_or_default());
    let at_own = |query: &str| Some(format!("{path}?{query}"));
    let (next, own_next, lost) = match link::next(&answer.headers, &answer.url) {
        Next::None => (None, None, false),
        Next::Page(next) if next.starts_with("/v2/") => {
            let (at, query) = next.split_once('?').unwrap_or((&next, ""));
            let own = if at == path || query.is_empty() { None } else { at_own(query) };
            (Some(next), own, false)
        }
        Next::Page(next) => (next.split_once('?').and_then(|(_, query)| at_own(query)), None, true),
        Next::Astray(query) => (query.and_then(|query| at_own(&query)), None, true),
    };
    // A page that names itself as the next one names none.
    let next = next.filter(|next| *next != format!("{path}?{query}") && next != path);
    let lost = next.is_none() && (lost || link::next(&answer.headers, &answer.url) != Next::None);
    let filters_applied = answer.header("oci-filters-applied").map(str::to_owned);
    let (media_type, origin) = (answer.media_type(), answer.origin.to_string());
    let relayed = Relayed::of(&answer.headers);
    let page = classify::is_page(&answer.headers);
    let content = answer.collect_document(MAX_PAGE, documents).await?;
    if page && serde_json::from_slice::<IgnoredAny>(&content).is_err() {
        return Err(Failure::foreign(format!("{origin} answered with a web page; {}", classify::LOOK)));
    }
    if asked.op == Op::Referrers && !is_index(media_type.as_ref(), &content) {
        return Err(Failure::foreign(format!("{origin} answered with something that is no list of referrers")));
    }
    Ok(FetchedList { content, media_type, next, own_next, lost, filters_applied, relayed })
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<IgnoredAny>,
}

/// Whether an answer is a list of referrers: by its type, as clients judge it, or by what it lists.
fn is_index(media_type: Option<&MediaType>, content: &[u8]) -> bool {
    media_type.is_some_and(|it| it.as_str() == MediaType::OCI_INDEX)
        || serde_json::from_slice::<Index>(content).is_ok_and(|index| !index.manifests.is_empty())
}

/// Whether a failure to list referrers means that the registry has no such list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Lacks {
    /// It means something else, or has been understood already.
    No,
    /// The registry refuses the question.
    Said,
    /// Something refuses it, or answers another one.
    Perhaps,
}

pub(in crate::upstream) fn lacks_referrers(failure: &Failure) -> Lacks {
    match &failure.kind {
        _ if failure.withheld.is_some() => Lacks::No,
        ErrorKind::Rejected { .. } => Lacks::Said,
        ErrorKind::Foreign | ErrorKind::RepositoryRefused { .. } | ErrorKind::ServerError(501) => Lacks::Perhaps,
        ErrorKind::CredentialRefused { identity, .. } if identity == "anonymous" => Lacks::Perhaps,
        _ => Lacks::No,
    }
}

/// What clients act upon: they look for the list under a tag then.
pub(in crate::upstream) fn no_referrers(failure: &Failure) -> Failure {
    let message = "the registry has no list of referrers".to_owned();
    let kind = ErrorKind::NotFound { code: Code::Unsupported.as_str().to_owned(), message };
    Failure::new(kind, format!("the registry has no list of referrers: {}", failure.reason))
}

/// A next page that is none of this API.
fn astray(next: &str) -> Failure {
    let reason =
        format!("the next page of the list is said to be at {next}, which is not the registry API of this upstream");
    Failure::new(ErrorKind::Foreign, reason)
}
