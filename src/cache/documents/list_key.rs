use crate::cache::error::CacheError;
use crate::oci::{Name, Repository, Tag};
use crate::store::ListKey;
use crate::upstream::{ListRequest, Page};

pub(super) fn unreadable(key: &ListKey, problem: String) -> CacheError {
    CacheError::Unreadable { upstream: key.registry().to_string(), what: "list", problem }
}

/// The field of a page in which its entries stand.
pub(super) fn field(key: &ListKey) -> &'static str {
    match key {
        ListKey::Catalogue(_) => "repositories",
        ListKey::Tags(_) => "tags",
        ListKey::Referrers(..) => "manifests",
    }
}

pub(super) fn in_words(key: &ListKey) -> String {
    match key {
        ListKey::Catalogue(registry) => format!("the list of the repositories of {registry}"),
        ListKey::Tags(repository) => format!("the list of the tags of {repository}"),
        ListKey::Referrers(repository, digest) => format!("the list of the referrers of {repository}@{digest}"),
    }
}

pub(super) fn is_name(key: &ListKey, name: &str) -> bool {
    match key {
        ListKey::Catalogue(_) => name.parse::<Name>().is_ok(),
        ListKey::Tags(_) => name.parse::<Tag>().is_ok(),
        ListKey::Referrers(..) => false,
    }
}

pub(super) fn request(key: &ListKey, page: Page) -> ListRequest {
    let name = |repository: &Repository| -> Name { repository.name.clone() };
    match key {
        ListKey::Catalogue(_) => ListRequest::Catalogue { page },
        ListKey::Tags(repository) => ListRequest::Tags { repository: name(repository), page },
        ListKey::Referrers(repository, digest) => {
            ListRequest::Referrers { repository: name(repository), digest: *digest, page }
        }
    }
}
