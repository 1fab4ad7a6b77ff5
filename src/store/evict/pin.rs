//! What can be pinned, and how a person writes it.

use crate::oci::{Digest, InvalidDigest, InvalidName, Registry, Repository, RepositoryPattern, Tag};
use std::fmt;
use std::str::FromStr;

/// What can be pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Everything of the repositories that match.
    Repositories(RepositoryPattern),
    /// What a tag names, wherever it moves.
    Tag(Repository, Tag),
    /// A manifest.
    Manifest(Repository, Digest),
}

/// Why a text names nothing that could be pinned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPin {
    /// There is no upstream before the first slash.
    #[error("write <upstream>/<repository>, and perhaps :tag or @digest behind it")]
    Repository,
    /// The repository's name or the tag is none.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The digest is none.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
}

impl FromStr for Pin {
    type Err = InvalidPin;

    /// Reads `<upstream>/<repository>` with `*` and `**`, `<upstream>/<repository>:<tag>` or `<upstream>/<repository>@<digest>`.
    fn from_str(text: &str) -> Result<Self, InvalidPin> {
        let repository = |text: &str| {
            let (registry, name) = text.split_once('/').ok_or(InvalidPin::Repository)?;
            Ok::<_, InvalidPin>(Repository { registry: Registry::new(registry), name: name.parse()? })
        };
        if let Some((name, digest)) = text.split_once('@') {
            return Ok(Self::Manifest(repository(name)?, digest.parse()?));
        }
        match text.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => Ok(Self::Tag(repository(name)?, tag.parse()?)),
            _ => Ok(Self::Repositories(RepositoryPattern::new(text))),
        }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repositories(pattern) => f.write_str(pattern.as_str()),
            Self::Tag(repository, tag) => write!(f, "{}/{}:{tag}", repository.registry, repository.name),
            Self::Manifest(repository, digest) => write!(f, "{}/{}@{digest}", repository.registry, repository.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_reads_as_it_is_written() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for text in ["a.io/base/**", "a.io/base", "a.io:5000/x/y:v1", &format!("a.io/x@{digest}"), "**"] {
            assert_eq!(text.parse::<Pin>().unwrap().to_string(), text);
        }
        assert!(matches!("a.io:5000/x".parse(), Ok(Pin::Repositories(_))), "a port is no tag");
        assert_eq!("x:v1".parse::<Pin>(), Err(InvalidPin::Repository));
        assert!(matches!("a.io/X:v1".parse::<Pin>(), Err(InvalidPin::Name(_))));
        assert!(matches!("a.io/x@sha256:1".parse::<Pin>(), Err(InvalidPin::Digest(_))));
    }
}
