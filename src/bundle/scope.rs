//! What an export is to take along, as the command says it to the daemon.

use crate::oci::{Digest, Name, Registry, Repository, Tag};
use serde::{Deserialize, Serialize};

/// What is to be exported.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scope {
    /// `<upstream>/<repository>`, with `:tag` or `@digest` behind it or with all tags.
    pub references: Vec<String>,
    /// The same, if it is stored: what is not is said.
    pub wished: Vec<String>,
    /// Tags that were used within so many seconds.
    pub used_within_s: Option<u64>,
    /// All tags.
    pub all: bool,
    /// The platforms of indexes whose content goes along, as `os/architecture[/variant]`; empty: all.
    pub platforms: Vec<String>,
    /// What is attached to the manifests goes along.
    pub referrers: bool,
    /// Tags are written without their repository, as `oras backup` does; only for one repository.
    pub bare_tags: bool,
}

/// A reference of a scope: all tags of a repository, one tag, or one manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Repository(Repository),
    Tag(Repository, Tag),
    Manifest(Repository, Digest),
}

impl Wanted {
    /// Reads `<upstream>/<repository>[:tag|@digest]`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().ok()?)),
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
            Some((name, tag)) => (name, Some(tag.parse().ok()?)),
            None => (name, None),
        };
        let (registry, name) = name.split_once('/')?;
        let name: Name = name.parse().ok()?;
        let repository = Repository { registry: Registry::new(registry), name };
        Some(match (tag, digest) {
            (_, Some(digest)) => Self::Manifest(repository, digest),
            (Some(tag), None) => Self::Tag(repository, tag),
            (None, None) => Self::Repository(repository),
        })
    }
}

/// Which children of an index are taken whole.
#[derive(Clone, Debug, Default)]
pub struct Platforms(Vec<String>);

impl Platforms {
    /// The platforms, `os/architecture[/variant]`; none means all.
    #[must_use]
    pub fn of(platforms: &[String]) -> Self {
        Self(platforms.to_vec())
    }

    /// Whether a child for `platform` is wanted. One that names no platform always is: an attestation, an artifact, a nested index.
    #[must_use]
    pub fn want(&self, platform: Option<&str>) -> bool {
        let Some(platform) = platform else { return true };
        // `linux/arm` asks for every variant of it, as the clients do.
        let is = |wanted: &String| {
            platform == wanted || platform.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        self.0.is_empty() || self.0.iter().any(is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_in_each_form() {
        let digest = format!("sha256:{}", "a".repeat(64));
        assert!(matches!(Wanted::parse("r.io/a/b"), Some(Wanted::Repository(_))));
        assert!(matches!(Wanted::parse("r.io:5000/a/b:v1"), Some(Wanted::Tag(_, tag)) if tag.as_str() == "v1"));
        assert!(matches!(Wanted::parse(&format!("r.io/a:v1@{digest}")), Some(Wanted::Manifest(..))));
        for wrong in ["", "a", "r.io/", "r.io/A", "r.io/a:", "r.io/a@sha256:1", "r.io/a: "] {
            assert_eq!(Wanted::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_platform_without_a_variant_wants_all_of_them() {
        let arm = Platforms::of(&["linux/arm".to_owned()]);
        assert!(arm.want(Some("linux/arm/v7")) && arm.want(Some("linux/arm")) && arm.want(None));
        assert!(!arm.want(Some("linux/arm64")) && !arm.want(Some("windows/arm")));
        assert!(Platforms::default().want(Some("windows/amd64")));
    }
}
