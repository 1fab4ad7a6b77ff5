//! From a decoded path to a name and what is asked of it.

use super::{AcrResource, RequestError, Target};
use crate::oci::{Registry, Repository};

/// Which of the two APIs a path belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    /// `/v2`
    Distribution,
    /// `/acr/v1`
    Acr,
}

/// What the end of a path says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind<'a> {
    Ping,
    Catalogue,
    Manifest(&'a str),
    Blob(&'a str),
    Tags,
    Referrers(&'a str),
    Uploads,
    Upload(&'a str),
    Acr(Part<'a>),
}

/// What the end of a path below `/acr/v1` says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    Catalogue,
    Repository,
    Tags,
    Tag(&'a str),
    Manifests,
    Manifest(&'a str),
}

impl Kind<'_> {
    pub(super) fn is_ping(self) -> bool {
        matches!(self, Self::Ping)
    }

    pub(super) fn is_catalogue(self) -> bool {
        matches!(self, Self::Catalogue)
    }

    pub(super) fn is_of_registry(self) -> bool {
        matches!(self, Self::Ping | Self::Catalogue | Self::Acr(Part::Catalogue))
    }

    pub(super) fn target(self, registry: Registry, name: &str) -> Result<Target, RequestError> {
        if self.is_of_registry() {
            return match (self, name) {
                (Self::Catalogue, "") => Ok(Target::Catalogue(registry)),
                (Self::Acr(Part::Catalogue), "") => Ok(Target::Acr(AcrResource::Catalogue(registry))),
                _ => Err(RequestError::NoRoute),
            };
        }
        if let Self::Acr(part) = self {
            return part.target(registry, name);
        }
        let repository = Repository { registry, name: name.parse()? };
        Ok(match self {
            Self::Manifest(reference) => Target::Manifest(repository, reference.parse()?),
            Self::Blob(digest) => Target::Blob(repository, digest.parse()?),
            Self::Referrers(digest) => Target::Referrers(repository, digest.parse()?),
            Self::Tags => Target::Tags(repository),
            Self::Uploads => Target::Uploads(repository),
            Self::Upload(session) => Target::Upload(repository, session.to_owned()),
            Self::Ping | Self::Catalogue | Self::Acr(_) => return Err(RequestError::NoRoute),
        })
    }
}

impl Part<'_> {
    fn target(self, registry: Registry, name: &str) -> Result<Target, RequestError> {
        let repository = Repository { registry, name: name.parse()? };
        let resource = match self {
            Self::Catalogue => return Err(RequestError::NoRoute),
            Self::Repository => AcrResource::Repository(repository),
            Self::Tags => AcrResource::Tags(repository),
            Self::Tag(tag) => AcrResource::Tag(repository, tag.parse().map_err(RequestError::Tag)?),
            Self::Manifests => AcrResource::Manifests(repository),
            Self::Manifest(digest) => AcrResource::Manifest(repository, digest.parse()?),
        };
        Ok(Target::Acr(resource))
    }
}

/// The prefix before the API's own path, if there is one, the API, and what follows the slash behind it.
pub(super) fn split_prefix(path: &str) -> Option<(Option<&str>, Api, &str)> {
    if let Some((api, rest)) = behind_api(path) {
        return Some((None, api, rest));
    }
    let slash = path.strip_prefix('/')?.find('/')? + 1;
    let (api, rest) = behind_api(&path[slash..])?;
    Some((Some(&path[1..slash]), api, rest))
}

fn behind_api(path: &str) -> Option<(Api, &str)> {
    if path == "/v2" {
        return Some((Api::Distribution, ""));
    }
    let distribution = path.strip_prefix("/v2/").map(|rest| (Api::Distribution, rest));
    distribution.or_else(|| Some((Api::Acr, path.strip_prefix("/acr/v1/")?)))
}

/// The name, and what is asked of it: the last marker counts, since a repository may have a component named `blobs`.
pub(super) fn split_distribution(rest: &str) -> Option<(&str, Kind<'_>)> {
    if let Some(name) = of_registry(rest) {
        return Some((name, Kind::Catalogue));
    }
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Some((name, Kind::Tags));
    }
    // The specification writes the final slash; not every client does, and `uploads` is no digest.
    if let Some(name) = rest.strip_suffix('/').unwrap_or(rest).strip_suffix("/blobs/uploads") {
        return Some((name, Kind::Uploads));
    }
    let Some((before, last)) = rest.rsplit_once('/') else {
        return Some((rest, Kind::Ping));
    };
    if last.is_empty() {
        return Some((before, Kind::Ping));
    }
    if let Some(name) = before.strip_suffix("/blobs/uploads") {
        return Some((name, Kind::Upload(last)));
    }
    let (name, marker) = before.rsplit_once('/')?;
    let kind = match marker {
        "manifests" => Kind::Manifest(last),
        "blobs" => Kind::Blob(last),
        "referrers" => Kind::Referrers(last),
        _ => return None,
    };
    Some((name, kind))
}

/// The same for ACR's own API, whose markers no name can have.
pub(super) fn split_acr(rest: &str) -> Option<(&str, Kind<'_>)> {
    let found = |name, part| Some((name, Kind::Acr(part)));
    if let Some(name) = of_registry(rest) {
        return found(name, Part::Catalogue);
    }
    let Some(marker) = rest.find("/_") else {
        return found(rest, Part::Repository);
    };
    let name = &rest[..marker];
    match rest[marker + 1..].split_once('/') {
        None if rest.ends_with("/_tags") => found(name, Part::Tags),
        None if rest.ends_with("/_manifests") => found(name, Part::Manifests),
        Some(("_tags", tag)) => found(name, Part::Tag(tag)),
        Some(("_manifests", digest)) => found(name, Part::Manifest(digest)),
        _ => None,
    }
}

/// What stands before `_catalog`, without its slash.
fn of_registry(rest: &str) -> Option<&str> {
    let before = rest.strip_suffix("_catalog")?;
    if before.is_empty() { Some("") } else { before.strip_suffix('/') }
}
