use crate::oci::{Digest, RegistryError};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Which situation a failure is. What a client is told about it is not decided here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A speaker of the protocol says that it does not have what was asked for.
    NotFound {
        /// The protocol's error code.
        code: String,
        /// What the registry said.
        message: String,
    },
    /// No connection: name, route, port or proxy.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// The TLS handshake failed.
    Tls,
    /// An answer 5xx.
    ServerError(u16),
    /// An answer that does not come from a registry, or not from the one that was asked: a portal, a filter, a wrong address.
    Foreign,
    /// An answer 429, or no free connection.
    Throttled {
        /// How long the registry wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The registry's firewall does not let this address in.
    Firewall {
        /// What the registry said.
        message: String,
    },
    /// Our own secret was refused or could not be had.
    CredentialRefused {
        /// As whom larder asked.
        identity: String,
        /// What to do.
        remedy: String,
    },
    /// A working login has no right to this repository.
    RepositoryRefused {
        /// The protocol's error code.
        code: String,
        /// What the registry said.
        message: String,
    },
    /// Another answer 4xx from a speaker of the protocol.
    Rejected {
        status: u16,
        /// The protocol's error code.
        code: String,
        /// What the registry said.
        message: String,
        /// The contents that it names as its reason: blobs that a manifest needs and the repository lacks.
        about: Vec<Digest>,
    },
    /// The answer is larger than such an answer may be.
    TooLarge,
    /// The body ended or stood still before its end.
    Interrupted,
}

/// A request to an upstream that failed: what was attempted, where, what went wrong, what to do.
///
/// Cloning is cheap: one failure may be handed to many waiting readers.
#[derive(Clone)]
pub struct UpstreamError(Arc<Failed>);

struct Failed {
    attempt: String,
    failure: Failure,
}

impl UpstreamError {
    /// Which situation it is.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.failure.kind
    }

    /// The errors of a registry that refuses, as clients may see them; none where it is not the registry that speaks.
    #[must_use]
    pub fn said(&self) -> &[RegistryError] {
        &self.0.failure.said
    }

    /// Whether the upstream may have done it: the request was sent, and no answer refuses it.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        self.0.failure.withheld.is_none()
            && matches!(
                self.kind(),
                ErrorKind::Unreachable
                    | ErrorKind::Timeout
                    | ErrorKind::ServerError(_)
                    | ErrorKind::Foreign
                    | ErrorKind::Interrupted
                    | ErrorKind::TooLarge
            )
    }

    /// Whether the failure says nothing about the content: what is stored may stand in for the answer.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.0.failure.is_outage()
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.0.attempt, self.0.failure.reason)
    }
}

impl fmt::Debug for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?})", self.kind())
    }
}

impl std::error::Error for UpstreamError {}

/// What went wrong, before it is said what for.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) reason: String,
    /// Set if nothing was sent: why not.
    pub(super) withheld: Option<Withheld>,
    pub(super) said: Vec<RegistryError>,
}

/// Why a request was not sent: a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Withheld {
    /// Upstream wants to be left alone.
    Throttled,
    /// The budget of its category is used up.
    Budget,
    /// The host does not answer.
    Unreachable,
    /// The upstream is never to be asked.
    Sealed,
}

impl Withheld {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Budget => "budget",
            Self::Unreachable => "unreachable",
            Self::Sealed => "sealed",
        }
    }
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), withheld: None, said: Vec::new() }
    }

    /// The same, in the registry's words.
    pub(super) fn saying(self, said: Vec<RegistryError>) -> Self {
        Self { said, ..self }
    }

    /// A failure of a request that was not sent.
    pub(super) fn withheld(why: Withheld, kind: ErrorKind, reason: impl Into<String>) -> Self {
        Self { withheld: Some(why), ..Self::new(kind, reason) }
    }

    pub(super) fn foreign(reason: impl Into<String>) -> Self {
        Self::new(ErrorKind::Foreign, reason)
    }

    /// Our own secret is the trouble; the text ends with the remedy.
    pub(super) fn credential(identity: &str, problem: impl fmt::Display, remedy: &str) -> Self {
        let kind = ErrorKind::CredentialRefused { identity: identity.to_owned(), remedy: remedy.to_owned() };
        Self::new(kind, format!("{problem}; {remedy}"))
    }

    /// Completes the text: `attempt` continues "cannot …".
    pub(super) fn during(self, attempt: impl Into<String>) -> UpstreamError {
        UpstreamError(Arc::new(Failed { attempt: attempt.into(), failure: self }))
    }

    pub(super) fn is_credential(&self) -> bool {
        matches!(self.kind, ErrorKind::CredentialRefused { .. })
    }

    pub(super) fn is_outage(&self) -> bool {
        match self.kind {
            ErrorKind::Unreachable
            | ErrorKind::Timeout
            | ErrorKind::Tls
            | ErrorKind::ServerError(_)
            | ErrorKind::Foreign
            | ErrorKind::Throttled { .. }
            | ErrorKind::Firewall { .. }
            | ErrorKind::CredentialRefused { .. }
            | ErrorKind::Interrupted => true,
            ErrorKind::NotFound { .. }
            | ErrorKind::RepositoryRefused { .. }
            | ErrorKind::Rejected { .. }
            | ErrorKind::TooLarge => false,
        }
    }
}

/// An upstream that cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The address has no scheme or host that could be dialled.
    #[error("upstream {upstream}: '{url}' is not an address: write https://HOST or http://HOST, perhaps with a port")]
    Address {
        /// The upstream's name.
        upstream: String,
        /// What is configured.
        url: String,
    },
    /// `ca_file` cannot be read or holds no certificate.
    #[error("upstream {upstream}: ca_file {}: {problem}", path.display())]
    CaFile {
        /// The upstream's name.
        upstream: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Nobody is trusted, so that no handshake could succeed.
    #[error(
        "upstream {upstream}: no trusted root certificate was found{problem}; install the system's (Debian: ca-certificates), \
         or name a PEM file in SSL_CERT_FILE or in ca_file"
    )]
    NoRoots {
        /// The upstream's name.
        upstream: String,
        /// What went wrong while they were read, preceded by a separator.
        problem: String,
    },
    /// The TLS library refuses the settings.
    #[error("upstream {upstream}: TLS cannot be set up: {problem}")]
    Tls {
        /// The upstream's name.
        upstream: String,
        /// What the library says.
        problem: String,
    },
    /// Its address is larder's own.
    #[error(
        "upstream {upstream}: {origin} leads to {address}, which is larder itself: write the registry's real address into its connect, \
         or a name server that knows it into [network] dns"
    )]
    Itself {
        /// The upstream's name.
        upstream: String,
        /// The host.
        origin: String,
        /// Where it leads.
        address: std::net::SocketAddr,
    },
    /// A proxy that cannot be spoken to.
    #[error("upstream {upstream}: proxy {proxy} is not supported: write http://HOST:PORT or https://HOST:PORT")]
    Proxy {
        /// The upstream's name.
        upstream: String,
        /// The proxy, without its credential.
        proxy: String,
    },
}
