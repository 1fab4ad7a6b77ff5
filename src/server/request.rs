//! The request grammar: from method, URL and `Host` to what is asked for, of which repository of which upstream.
//!
//! All ways of naming an upstream work side by side. `?ns=`, else a `Host` that equals a configured name, fixes it; a URL prefix
//! before `/v2` or a first component after it that names the same upstream is then stripped (containerd, BuildKit and regctl send
//! both), and any other belongs to the repository. Otherwise the URL prefix decides, then the first component if more follows,
//! then the default. A clash is settled by that order: a repository of the default upstream whose first component is another
//! upstream's name or alias can be reached by `ns`, `Host` or the default's own name.
//!
//! Paths are percent-decoded before they are read (`sha256%3A…`), names are validated after.

use crate::oci::{
    Digest, InvalidDigest, InvalidName, InvalidReference, Name, RangeRequest, Reference, Registry, Repository,
};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::collections::HashMap;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/v2/`: whether this is a registry.
    Ping,
    /// `/v2/_catalog`
    Catalogue(Registry),
    /// `…/manifests/<reference>`
    Manifest(Repository, Reference),
    /// `…/blobs/<digest>`
    Blob(Repository, Digest),
    /// `…/tags/list`
    Tags(Repository),
    /// `…/referrers/<digest>`
    Referrers(Repository, Digest),
}

impl Target {
    /// The word for metrics and logs.
    #[must_use]
    pub fn route(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Catalogue(_) => "catalogue",
            Self::Manifest(..) => "manifest",
            Self::Blob(..) => "blob",
            Self::Tags(_) => "tags",
            Self::Referrers(..) => "referrers",
        }
    }
}

/// How the client named the upstream: answers speak the same way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// `/<prefix>/v2/…`
    pub prefix: Option<String>,
    /// `/v2/<component>/…`
    pub component: Option<String>,
    /// `?ns=`
    pub ns: Option<String>,
}

impl Naming {
    /// The path under which the client finds `tail` (which begins with no slash), as it would name it.
    #[must_use]
    pub fn path(&self, tail: &str) -> String {
        let part = |part: &Option<String>| part.as_ref().map_or_else(String::new, |part| format!("/{part}"));
        format!("{}/v2{}/{tail}", part(&self.prefix), part(&self.component))
    }

    /// A repository's name as the client would write it.
    #[must_use]
    pub fn name(&self, name: &Name) -> String {
        self.component.as_ref().map_or_else(|| name.to_string(), |component| format!("{component}/{name}"))
    }
}

/// A request, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What is asked for.
    pub target: Target,
    /// How.
    pub naming: Naming,
}

/// Why a request cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The path is none of the API's.
    #[error("no such path: the registry API is under /v2/")]
    NoRoute,
    /// A repository name that cannot exist.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A digest that cannot be verified.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// A tag that cannot exist.
    #[error("{0}")]
    Tag(InvalidName),
    /// No upstream of that name.
    #[error("no upstream is named '{name}' here; configured: {known}")]
    UnknownUpstream {
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// No upstream was named, and none is the default.
    #[error("the request names no upstream and none is the default: put one of these before the repository: {known}")]
    NoDefault {
        /// The names that there are.
        known: String,
    },
}

impl From<InvalidReference> for RequestError {
    fn from(error: InvalidReference) -> Self {
        match error {
            InvalidReference::Digest(error) => Self::Digest(error),
            InvalidReference::Tag(error) => Self::Tag(error),
        }
    }
}

/// The upstreams, by the names that a request can use.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    by_name: HashMap<String, Registry>,
    canonical: Vec<Registry>,
    default: Option<Registry>,
}

impl Routes {
    /// Adds an upstream. Names and aliases are unique: the configuration has seen to it.
    pub fn add<'a>(&mut self, registry: &Registry, aliases: impl IntoIterator<Item = &'a str>, default: bool) {
        self.by_name.insert(registry.as_str().to_ascii_lowercase(), registry.clone());
        for alias in aliases {
            self.by_name.insert(alias.to_ascii_lowercase(), registry.clone());
        }
        self.canonical.push(registry.clone());
        if default {
            self.default = Some(registry.clone());
        }
    }

    /// The upstreams' canonical names.
    #[must_use]
    pub fn registries(&self) -> &[Registry] {
        &self.canonical
    }

    /// Reads and resolves a request. `path` and `query` are as they came, `host` is the `Host` header or HTTP/2 authority.
    pub fn resolve(&self, path: &str, query: Option<&str>, host: Option<&str>) -> Result<Resolved, RequestError> {
        let path = percent_decode_str(path).decode_utf8().map_err(|_| RequestError::NoRoute)?;
        let (prefix, rest) = split_prefix(&path).ok_or(RequestError::NoRoute)?;
        let (name, kind) = split_target(rest).ok_or(RequestError::NoRoute)?;
        let ns = query.and_then(|query| parameter(query, "ns")).filter(|ns| !ns.is_empty());
        let fixed = match &ns {
            Some(ns) => Some(self.by_name.get(&ns.to_ascii_lowercase()).ok_or_else(|| self.unknown(ns))?),
            None => host.and_then(|host| self.by_host(&host.to_ascii_lowercase())),
        };
        let mut naming = Naming { ns: ns.map(Cow::into_owned), ..Naming::default() };
        let mut chosen = fixed;
        if let Some(prefix) = prefix {
            let named = self.by_name.get(&prefix.to_ascii_lowercase());
            if named.is_none() || (fixed.is_some() && named != fixed) {
                return Err(self.unknown(prefix));
            }
            naming.prefix = Some(prefix.to_owned());
            chosen = named;
        }
        let mut name = name;
        let (first, more) = name.split_once('/').map_or((name, ""), |(first, more)| (first, more));
        // A lone component is the repository itself, unless what follows belongs to no repository.
        if (!more.is_empty() || kind.is_of_registry())
            && naming.prefix.is_none()
            && let Some(named) = self.by_name.get(&first.to_ascii_lowercase())
            && chosen.is_none_or(|chosen| chosen == named)
        {
            naming.component = Some(first.to_owned());
            chosen = Some(named);
            name = more;
        }
        let registry = chosen.or(self.default.as_ref());
        if let (Kind::Ping, true) = (kind, name.is_empty()) {
            return Ok(Resolved { target: Target::Ping, naming });
        }
        let registry = registry.ok_or_else(|| RequestError::NoDefault { known: self.known() })?.clone();
        Ok(Resolved { target: kind.target(registry, name)?, naming })
    }

    fn by_host(&self, host: &str) -> Option<&Registry> {
        let bare = without_port(host);
        self.canonical.iter().find(|registry| registry.as_str() == host || registry.as_str() == bare)
    }

    fn unknown(&self, name: &str) -> RequestError {
        RequestError::UnknownUpstream { name: name.chars().take(255).collect(), known: self.known() }
    }

    fn known(&self) -> String {
        self.canonical.iter().map(Registry::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// What the end of a path says.
#[derive(Clone, Copy, Debug)]
enum Kind<'a> {
    Ping,
    Catalogue,
    Manifest(&'a str),
    Blob(&'a str),
    Tags,
    Referrers(&'a str),
}

impl Kind<'_> {
    fn is_of_registry(self) -> bool {
        matches!(self, Self::Ping | Self::Catalogue)
    }

    fn target(self, registry: Registry, name: &str) -> Result<Target, RequestError> {
        if self.is_of_registry() {
            return match (self, name) {
                (Self::Catalogue, "") => Ok(Target::Catalogue(registry)),
                _ => Err(RequestError::NoRoute),
            };
        }
        let repository = Repository { registry, name: name.parse()? };
        Ok(match self {
            Self::Manifest(reference) => Target::Manifest(repository, reference.parse()?),
            Self::Blob(digest) => Target::Blob(repository, digest.parse()?),
            Self::Referrers(digest) => Target::Referrers(repository, digest.parse()?),
            Self::Tags => Target::Tags(repository),
            Self::Ping | Self::Catalogue => return Err(RequestError::NoRoute),
        })
    }
}

/// `/v2…` or `/<prefix>/v2…`, and what follows the slash behind it.
fn split_prefix(path: &str) -> Option<(Option<&str>, &str)> {
    let behind_v2 = |path| match path {
        "/v2" => Some(""),
        _ => str::strip_prefix(path, "/v2/"),
    };
    if let Some(rest) = behind_v2(path) {
        return Some((None, rest));
    }
    let slash = path.strip_prefix('/')?.find('/')? + 1;
    Some((Some(&path[1..slash]), behind_v2(&path[slash..])?))
}

/// The name, and what is asked of it: the last marker counts, since a repository may have a component named `blobs`.
fn split_target(rest: &str) -> Option<(&str, Kind<'_>)> {
    if rest == "_catalog" {
        return Some(("", Kind::Catalogue));
    }
    if let Some(name) = rest.strip_suffix("/_catalog") {
        return Some((name, Kind::Catalogue));
    }
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Some((name, Kind::Tags));
    }
    let Some((before, last)) = rest.rsplit_once('/') else {
        return Some((rest, Kind::Ping));
    };
    if last.is_empty() {
        return Some((before, Kind::Ping));
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

/// The value of a query parameter, decoded. `+` stays: no value of this API has a space.
#[must_use]
pub(super) fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let raw = query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode_str(key).decode_utf8().ok()? == name).then_some(value)
    })?;
    percent_decode_str(raw).decode_utf8().ok()
}

/// The `Host` value without its port; an IPv6 address keeps its brackets.
#[must_use]
pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((bare, port))
            if !bare.ends_with(':') && port.bytes().all(|b| b.is_ascii_digit()) && !unbracketed(bare) =>
        {
            bare
        }
        _ => host,
    }
}

fn unbracketed(host: &str) -> bool {
    host.contains(':') && !host.starts_with('[')
}

/// The one range that all lines of `Range` ask for; several ranges are for the whole content, as RFC 9110 allows.
#[must_use]
pub(super) fn range(headers: &http::HeaderMap) -> Option<RangeRequest> {
    let mut lines = headers.get_all(http::header::RANGE).iter();
    let only = lines.next()?;
    if lines.next().is_some() {
        return None;
    }
    RangeRequest::parse(only.to_str().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes {
        let mut routes = Routes::default();
        routes.add(&Registry::new("myacr.azurecr.io"), ["acr"], true);
        routes.add(&Registry::new("other.azurecr.io"), ["other"], false);
        routes.add(&Registry::new("registry.local:5000"), ["local"], false);
        routes
    }

    /// `registry repository naming-path` of a manifest request.
    fn manifest(url: &str, host: Option<&str>) -> Result<(String, String, String), RequestError> {
        let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
        let resolved = routes().resolve(path, query, host)?;
        let Target::Manifest(repository, _) = resolved.target else { panic!("{resolved:?}") };
        let path = resolved.naming.path(&format!("{}/x", repository.name));
        Ok((repository.registry.to_string(), repository.name.to_string(), path))
    }

    #[test]
    fn every_way_of_naming_leads_to_the_same_repository() {
        for (url, host, path) in [
            ("/v2/samples/config/manifests/v1", None, "/v2/samples/config/x"),
            ("/v2/myacr.azurecr.io/samples/config/manifests/v1", None, "/v2/myacr.azurecr.io/samples/config/x"),
            ("/v2/acr/samples/config/manifests/v1", None, "/v2/acr/samples/config/x"),
            ("/myacr.azurecr.io/v2/samples/config/manifests/v1", None, "/myacr.azurecr.io/v2/samples/config/x"),
            ("/v2/samples/config/manifests/v1?ns=myacr.azurecr.io", None, "/v2/samples/config/x"),
            (
                "/v2/myacr.azurecr.io/samples/config/manifests/v1?ns=myacr.azurecr.io",
                None,
                "/v2/myacr.azurecr.io/samples/config/x",
            ),
            ("/acr/v2/samples/config/manifests/v1?ns=myacr.azurecr.io", None, "/acr/v2/samples/config/x"),
            ("/v2/samples/config/manifests/v1", Some("MyACR.azurecr.io:443"), "/v2/samples/config/x"),
        ] {
            let want = ("myacr.azurecr.io".into(), "samples/config".into(), path.to_owned());
            assert_eq!(manifest(url, host), Ok(want), "{url}");
        }
        let (registry, ..) = manifest("/v2/a/manifests/v1?ns=registry.local%3A5000", None).unwrap();
        assert_eq!(registry, "registry.local:5000");
        let (registry, ..) = manifest("/v2/a/manifests/v1?n=1&ns=other.azurecr.io", Some("localhost:5000")).unwrap();
        assert_eq!(registry, "other.azurecr.io");
    }

    #[test]
    fn a_fixed_upstream_keeps_foreign_components_in_the_name() {
        let (registry, name, _) = manifest("/v2/other/a/manifests/v1?ns=myacr.azurecr.io", None).unwrap();
        assert_eq!((registry.as_str(), name.as_str()), ("myacr.azurecr.io", "other/a"));
        let (registry, name, _) = manifest("/v2/other/manifests/v1", None).unwrap();
        assert_eq!(
            (registry.as_str(), name.as_str()),
            ("myacr.azurecr.io", "other"),
            "a lone component is a repository"
        );
        let (registry, name, _) = manifest("/acr/v2/other/a/manifests/v1", None).unwrap();
        assert_eq!((registry.as_str(), name.as_str()), ("myacr.azurecr.io", "other/a"));
    }

    #[test]
    fn an_unknown_upstream_is_never_dialled() {
        for url in [
            "/v2/a/manifests/v1?ns=evil.example",
            "/evil.example/v2/a/manifests/v1",
            "/acr/v2/a/manifests/v1?ns=other.azurecr.io",
        ] {
            assert!(matches!(manifest(url, None), Err(RequestError::UnknownUpstream { .. })), "{url}");
        }
        let (registry, ..) = manifest("/v2/a/manifests/v1", Some("evil.example")).unwrap();
        assert_eq!(registry, "myacr.azurecr.io", "an unknown Host falls through");
    }

    #[test]
    fn the_last_marker_counts_and_paths_are_decoded() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let target = |path: &str| routes().resolve(path, None, None).map(|r| r.target);
        let blob = target(&format!("/v2/a/blobs/b/blobs/{}", digest.replace(':', "%3A"))).unwrap();
        assert!(matches!(&blob, Target::Blob(r, d) if r.name.as_str() == "a/blobs/b" && d.to_string() == digest));
        assert!(matches!(target("/v2/a/tags/list"), Ok(Target::Tags(_))));
        assert!(matches!(target(&format!("/v2/a/referrers/{digest}")), Ok(Target::Referrers(..))));
        assert!(matches!(target("/v2/a/manifests/v1"), Ok(Target::Manifest(..))));
        assert_eq!(target("/v2/_catalog"), Ok(Target::Catalogue(Registry::new("myacr.azurecr.io"))));
        assert_eq!(target("/v2/other/_catalog"), Ok(Target::Catalogue(Registry::new("other.azurecr.io"))));
        for ping in ["/v2", "/v2/", "/v2/acr/", "/v2/acr", "/acr/v2/", "/acr/v2"] {
            assert_eq!(target(ping), Ok(Target::Ping), "{ping}");
        }
    }

    #[test]
    fn nonsense_has_its_own_error_each() {
        let error = |path: &str| routes().resolve(path, None, None).unwrap_err();
        for path in [
            "/",
            "",
            "/v1/",
            "/v2/a/b/c",
            "/v2/unknown/",
            "/v2/a/_catalog",
            "/v2/%ff/manifests/v1",
            "/x/y/v2/a/manifests/v1",
        ] {
            assert_eq!(error(path), RequestError::NoRoute, "{path}");
        }
        assert!(matches!(error("/v2/UPPER/manifests/v1"), RequestError::Name(_)));
        assert!(matches!(error("/v2/a//b/manifests/v1"), RequestError::Name(_)));
        assert!(matches!(error("/v2/a/../b/manifests/v1"), RequestError::Name(_)));
        assert!(matches!(error("/v2/a/manifests/.bad"), RequestError::Tag(_)));
        assert!(matches!(error("/v2/a/manifests/sha256:xyz"), RequestError::Digest(_)));
        assert!(matches!(error("/v2/a/blobs/latest"), RequestError::Digest(_)));
        let mut none = Routes::default();
        none.add(&Registry::new("r"), [], false);
        assert!(matches!(none.resolve("/v2/a/manifests/v1", None, None), Err(RequestError::NoDefault { .. })));
    }

    #[test]
    fn ports_are_cut_from_hosts() {
        for (host, bare) in
            [("a:1", "a"), ("a", "a"), ("[::1]:5000", "[::1]"), ("[::1]", "[::1]"), ("::1", "::1"), ("a:b", "a:b")]
        {
            assert_eq!(without_port(host), bare, "{host}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_path_makes_it_panic(path in ".{0,80}", query in ".{0,40}") {
            let _ = routes().resolve(&path, Some(&query), Some(&query));
            let _ = routes().resolve(&format!("/v2/{path}"), None, None);
        }
    }
}
