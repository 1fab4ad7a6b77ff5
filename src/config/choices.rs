//! Settings that are one of a few words, and the places to listen at.

use super::reader::{Reading, Setting};
use super::tree::Node;
use super::values::{parse_address, parsed, quote};
use std::net::SocketAddr;
use std::path::PathBuf;

/// An enum whose variants are the words of a setting.
macro_rules! choice {
    ($(#[$meta:meta])+ $Name:ident, $what:literal, $advice:literal;
     $($(#[doc = $help:literal])+ $(#[$default:ident])? $Variant:ident = $word:literal,)+) => {
        $(#[$meta])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $Name {
            $($(#[doc = $help])+ $(#[$default])? $Variant,)+
        }

        impl $Name {
            /// The word for it in the file.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$Variant => $word,)+
                }
            }
        }

        impl Setting for $Name {
            type Value = Self;
            fn read(node: &Node, at: &mut Reading<'_>) -> Option<Self> {
                parsed(node, concat!("write ", $advice), at, |text| match text {
                    $($word => Ok(Self::$Variant),)+
                    _ => Err(format!(concat!("'{}' is no ", $what, ": write ", $advice), text)),
                })
            }
            fn show(value: &Self) -> String {
                quote(value.as_str())
            }
        }
    };
}

choice! {
    /// `[store] sync`: what reaches the disk before a blob counts as stored.
    Durability, "way to sync", r#""commit" or "none""#;
    /// File and folder are synced at every commit.
    Commit = "commit",
    /// The operating system decides; a crash of the machine may lose what was just stored, never damage what is served.
    None = "none",
}

choice! {
    /// `[[upstream]] tier`: a registry's limits of requests per minute.
    #[derive(Default)]
    Tier, "service tier", r#""basic", "standard", "premium", or "unknown" where it is no Azure Container Registry"#;
    /// The limits are not known; the registry's 429 answers show them.
    #[default]
    Unknown = "unknown",
    /// Basic.
    Basic = "basic",
    /// Standard.
    Standard = "standard",
    /// Premium.
    Premium = "premium",
}

choice! {
    /// What a caller may do with a repository.
    Right, "right", r#""pull", "push" or "delete""#;
    /// Read manifests, blobs and lists.
    Pull = "pull",
    /// Upload blobs and put manifests and tags.
    Push = "push",
    /// Delete tags, manifests, blobs, or all of it.
    Delete = "delete",
}

/// A place to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A TCP address where TLS is spoken (`tls://0.0.0.0:5443`).
    Tls(SocketAddr),
    /// A Unix socket's path (`unix:/run/larder/larder.sock`).
    Unix(PathBuf),
}

impl Listen {
    /// The TCP address, if it is one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) | Self::Tls(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether both are one socket; plain or TLS is not of the socket.
    #[must_use]
    pub fn is_same_socket(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(left), Self::Unix(right)) => left == right,
            _ => self.address().is_some() && self.address() == other.address(),
        }
    }

    /// As it stands in the file.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Tcp(address) => address.to_string(),
            Self::Tls(address) => format!("tls://{address}"),
            Self::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// Whether both cannot be bound; port 0 is any free one.
    pub(super) fn clashes_with(&self, other: &Self) -> bool {
        if let (Self::Unix(own), Self::Unix(other)) = (self, other) {
            return own == other;
        }
        let Some((own, other)) = self.address().zip(other.address()) else { return false };
        let overlap = own.ip() == other.ip() || own.ip().is_unspecified() || other.ip().is_unspecified();
        own.port() != 0 && own.port() == other.port() && own.is_ipv4() == other.is_ipv4() && overlap
    }

    /// Whether only this machine can reach it.
    pub(super) fn is_local(&self) -> bool {
        self.address().is_none_or(|address| address.ip().is_loopback())
    }
}

impl Setting for Listen {
    type Value = Self;
    fn read(node: &Node, at: &mut Reading<'_>) -> Option<Self> {
        parsed(node, r#"write an address such as "127.0.0.1:5000""#, at, |text| match text.strip_prefix("unix:") {
            Some(_) if cfg!(not(unix)) => Err(format!("'{text}': this platform has no Unix sockets: listen on TCP")),
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(format!("'{text}' needs an absolute path: write \"unix:/run/larder/larder.sock\"")),
            None => match text.strip_prefix("tls://") {
                Some(address) => parse_address(address).map(Self::Tls),
                None => parse_address(text).map(Self::Tcp),
            },
        })
    }
    fn show(value: &Self) -> String {
        quote(&value.shown())
    }
}
