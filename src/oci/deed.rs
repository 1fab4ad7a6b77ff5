use super::{Digest, Name, Reference};

/// What a caller wants to do with a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Deed {
    /// Be somebody there.
    Login,
    /// List the repositories.
    Catalogue,
    /// Read a manifest.
    Manifest(Name, Reference),
    /// Read a blob.
    Blob(Name, Digest),
    /// List tags.
    Tags(Name),
    /// List what is attached to a manifest.
    Referrers(Name, Digest),
    /// Push.
    Push(Name),
    /// Delete.
    Delete(Name),
    /// Read what ACR's own API says.
    Metadata(Name),
    /// Change it.
    Locks(Name),
}

impl Deed {
    /// The repository that it is about.
    #[must_use]
    pub fn repository(&self) -> Option<&Name> {
        match self {
            Self::Login | Self::Catalogue => None,
            Self::Manifest(name, _)
            | Self::Blob(name, _)
            | Self::Tags(name)
            | Self::Referrers(name, _)
            | Self::Push(name)
            | Self::Delete(name)
            | Self::Metadata(name)
            | Self::Locks(name) => Some(name),
        }
    }

    /// What two deeds have in common if the one is allowed where the other is: all of a repository's content is read by one right.
    #[must_use]
    pub fn right(&self) -> (&'static str, &str) {
        let word = match self {
            Self::Login => "login",
            Self::Catalogue => "catalogue",
            Self::Manifest(..) | Self::Blob(..) => "pull",
            Self::Tags(_) => "tags",
            Self::Referrers(..) => "referrers",
            Self::Push(_) => "push",
            Self::Delete(_) => "delete",
            Self::Metadata(_) => "metadata",
            Self::Locks(_) => "locks",
        };
        (word, self.repository().map_or("", Name::as_str))
    }

    /// The scope of a token that allows it, in the words of Docker's token protocol. Which right lists need is the registry's choice:
    /// both are named that there are.
    #[must_use]
    pub fn scope(&self) -> Option<String> {
        let actions = match self {
            Self::Login => return None,
            Self::Catalogue => return Some("registry:catalog:*".to_owned()),
            Self::Manifest(..) | Self::Blob(..) => "pull",
            Self::Tags(_) | Self::Referrers(..) => "metadata_read,pull",
            Self::Push(_) => "pull,push",
            Self::Delete(_) => "delete",
            Self::Metadata(_) => "metadata_read",
            Self::Locks(_) => "metadata_write",
        };
        self.repository().map(|name| format!("repository:{name}:{actions}"))
    }

    /// Whether the scope alone says what is needed; for lists it does not.
    #[must_use]
    pub fn is_read_from_scope(&self) -> bool {
        !matches!(self, Self::Tags(_) | Self::Referrers(..))
    }
}
