//! The request grammar: from method, URL and `Host` to what is asked for, of which repository of which upstream.
//!
//! All ways of naming an upstream work side by side. `?ns=`, else a `Host` that equals a configured name, fixes it; a URL prefix
//! before `/v2` or a first component after it that names the same upstream is then stripped (containerd, BuildKit and regctl send
//! both), and any other belongs to the repository. Otherwise the URL prefix decides, then the first component if more follows,
//! then the default. A clash is settled by that order: a repository of the default upstream whose first component is another
//! upstream's name or alias can be reached by `ns`, `Host` or the default's own name.
//!
//! Paths are percent-decoded before they are read (`sha256%3A…`), names are validated after.

mod path;
mod query;
mod target;
#[cfg(test)]
mod tests;

pub(in crate::server) use query::{parameter, ranges, without_port};
pub use target::{AcrResource, Target};

use crate::oci::{DOCKER_HUB, InvalidDigest, InvalidName, InvalidReference, Name, Registry};
use path::Api;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::collections::HashMap;

/// Where Docker Hub has its official images: clients that know it add this to a lone component, others leave it out.
const LIBRARY: &str = "library/";

/// How the client named the upstream: answers speak the same way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// `/<prefix>/v2/…`
    pub prefix: Option<String>,
    /// `/v2/<component>/…`
    pub component: Option<String>,
    /// `?ns=`
    pub ns: Option<String>,
    /// Whether the client left out Docker Hub's `library/`.
    pub library: bool,
}

impl Naming {
    /// The path under which the client finds `tail` (which begins with no slash), as it would name it.
    #[must_use]
    pub fn path(&self, tail: &str) -> String {
        self.under("v2", self.short(tail))
    }

    /// As [`Self::path`], where a client may go on without saying more: with `ns`, if it named the upstream so.
    #[must_use]
    pub fn location(&self, tail: &str) -> String {
        let path = self.path(tail);
        match &self.ns {
            Some(ns) => {
                format!("{path}?ns={}", percent_encoding::utf8_percent_encode(ns, percent_encoding::NON_ALPHANUMERIC))
            }
            None => path,
        }
    }

    /// Without what the client left out itself.
    fn short<'a>(&self, name: &'a str) -> &'a str {
        if self.library { name.strip_prefix(LIBRARY).unwrap_or(name) } else { name }
    }

    /// As [`Self::path`], under ACR's own API.
    #[must_use]
    pub fn acr_path(&self, tail: &str) -> String {
        self.under("acr/v1", tail)
    }

    fn under(&self, api: &str, tail: &str) -> String {
        let part = |part: &Option<String>| part.as_ref().map_or_else(String::new, |part| format!("/{part}"));
        format!("{}/{api}{}/{tail}", part(&self.prefix), part(&self.component))
    }

    /// A repository's name as the client would write it.
    #[must_use]
    pub fn name(&self, name: &Name) -> String {
        let name = self.short(name.as_str());
        self.component.as_ref().map_or_else(|| name.to_string(), |component| format!("{component}/{name}"))
    }
}

/// A request, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What is asked for.
    pub target: Target,
    pub naming: Naming,
}

/// Why a request cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The path is none of the API's.
    #[error("no such path: the registry API is under /v2/, ACR's own under /acr/v1/")]
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
        name: String,
        /// The names that there are.
        known: String,
    },
    /// Two that are not the same, where both fix it.
    #[error("the request names two upstreams, {fixed} by ns or Host and '{prefix}' before /v2: leave one of them out")]
    TwoUpstreams {
        /// The first.
        fixed: Registry,
        /// The other's name.
        prefix: String,
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
    /// For each of them, a name that can stand before a repository in a path: one with a port cannot.
    components: Vec<Option<String>>,
    /// Those that are Docker Hub, by name or alias.
    hubs: Vec<Registry>,
    default: Option<Registry>,
}

impl Routes {
    /// Adds an upstream. Names and aliases are unique: the configuration has seen to it.
    pub fn add<'a>(&mut self, registry: &Registry, aliases: impl IntoIterator<Item = &'a str>, default: bool) {
        self.by_name.insert(registry.as_str().to_ascii_lowercase(), registry.clone());
        let mut component = Some(registry.as_str().to_ascii_lowercase()).filter(|name| is_component(name));
        for alias in aliases {
            let alias = alias.to_ascii_lowercase();
            component = component.or_else(|| Some(alias.clone()).filter(|alias| is_component(alias)));
            self.by_name.insert(alias, registry.clone());
        }
        self.components.push(component);
        if DOCKER_HUB.iter().any(|hub| self.by_name.get(*hub) == Some(registry)) {
            for hub in DOCKER_HUB {
                self.by_name.entry(hub.to_owned()).or_insert_with(|| registry.clone());
            }
            self.hubs.push(registry.clone());
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

    /// How a client that sends nothing but a path asks for a repository. `None`: it cannot.
    pub(in crate::server) fn name_without_ns(&self, registry: &Registry, name: &str) -> Option<String> {
        let first = name.split_once('/').map(|(first, _)| first.to_ascii_lowercase());
        let leads_elsewhere = first.is_some_and(|first| self.by_name.contains_key(&first));
        if self.default.as_ref() == Some(registry) && !leads_elsewhere {
            return Some(name.to_owned());
        }
        let place = self.canonical.iter().position(|known| known == registry)?;
        self.components[place].as_ref().map(|component| format!("{component}/{name}"))
    }

    /// Reads and resolves a request. `path` and `query` are as they came, `host` is the `Host` header or HTTP/2 authority.
    pub fn resolve(&self, path: &str, query: Option<&str>, host: Option<&str>) -> Result<Resolved, RequestError> {
        let path = percent_decode_str(path).decode_utf8().map_err(|_| RequestError::NoRoute)?;
        let (prefix, api, rest) = path::split_prefix(&path).ok_or(RequestError::NoRoute)?;
        let split = match api {
            Api::Distribution => path::split_distribution(rest),
            Api::Acr => path::split_acr(rest),
        };
        let (name, kind) = split.ok_or(RequestError::NoRoute)?;
        let ns = query.and_then(|query| parameter(query, "ns")).filter(|ns| !ns.is_empty());
        let fixed = match &ns {
            Some(ns) => Some(self.by_name.get(&ns.to_ascii_lowercase()).ok_or_else(|| self.unknown(ns))?),
            None => host.and_then(|host| self.by_host(&host.to_ascii_lowercase())),
        };
        let mut naming = Naming { ns: ns.map(Cow::into_owned), ..Naming::default() };
        let mut chosen = fixed;
        if let Some(prefix) = prefix {
            let named = self.by_name.get(&prefix.to_ascii_lowercase()).ok_or_else(|| self.unknown(prefix))?;
            if let Some(fixed) = fixed.filter(|fixed| *fixed != named) {
                return Err(RequestError::TwoUpstreams { fixed: fixed.clone(), prefix: prefix.to_owned() });
            }
            naming.prefix = Some(prefix.to_owned());
            chosen = Some(named);
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
        if kind.is_ping() && name.is_empty() {
            return Ok(Resolved { target: Target::Ping, naming });
        }
        if kind.is_catalogue() && name.is_empty() && chosen.is_none() && !self.is_lone_default() {
            return Ok(Resolved { target: Target::Catalogues, naming });
        }
        let registry = registry.ok_or_else(|| RequestError::NoDefault { known: self.known() })?.clone();
        if !name.is_empty() && !name.contains('/') && !kind.is_of_registry() && self.hubs.contains(&registry) {
            naming.library = true;
            return Ok(Resolved { target: kind.target(registry, &format!("{LIBRARY}{name}"))?, naming });
        }
        Ok(Resolved { target: kind.target(registry, name)?, naming })
    }

    /// Whether there is but one upstream and no need to name it.
    fn is_lone_default(&self) -> bool {
        self.default.is_some() && self.canonical.len() == 1
    }

    /// Whether a `Host` says which upstream is meant.
    pub(in crate::server) fn is_host(&self, host: &str) -> bool {
        self.by_host(&host.to_ascii_lowercase()).is_some()
    }

    fn by_host(&self, host: &str) -> Option<&Registry> {
        let bare = without_port(host);
        let own = self.canonical.iter().find(|registry| registry.as_str() == host || registry.as_str() == bare);
        own.or_else(|| DOCKER_HUB.contains(&bare).then(|| self.by_name.get(bare)).flatten())
    }

    /// The upstream whose own name a `Host` header says.
    pub(in crate::server) fn own_name(&self, host: &str) -> Option<&Registry> {
        self.by_host(&host.to_ascii_lowercase())
    }

    /// The upstream whose rights decide about a request: of a ping, the one that it names, else the first one. `None`: each for itself.
    pub(in crate::server) fn asked_of<'a>(
        &'a self,
        target: &'a Target,
        naming: &Naming,
        host: Option<&str>,
    ) -> Option<&'a Registry> {
        if *target != Target::Ping {
            return target.registry();
        }
        let named = [&naming.ns, &naming.prefix, &naming.component].into_iter().flatten().next();
        let named = named.and_then(|name| self.by_name.get(&name.to_ascii_lowercase()));
        named.or_else(|| self.own_name(host?)).or(self.default.as_ref()).or(self.canonical.first())
    }

    fn unknown(&self, name: &str) -> RequestError {
        RequestError::UnknownUpstream { name: name.chars().take(255).collect(), known: self.known() }
    }

    fn known(&self) -> String {
        self.canonical.iter().map(Registry::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// Whether a name can be a component of a repository's path.
fn is_component(name: &str) -> bool {
    name.parse::<Name>().is_ok() && !name.contains('/')
}
