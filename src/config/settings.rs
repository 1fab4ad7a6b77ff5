use crate::oci::{Registry, RepositoryPattern};
use ipnet::IpNet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that can be set, validated: what the rooms are built from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The registry API's listeners.
    pub server: ServerSettings,
    /// The second listener, for health and metrics.
    pub admin: AdminSettings,
    /// The store on disk.
    pub store: StoreSettings,
    /// Who is let in.
    pub access: AccessSettings,
    /// What holds for all connections to upstreams.
    pub network: NetworkSettings,
    /// The upstreams, at least one; one of them may be the default.
    pub upstreams: Vec<UpstreamSettings>,
}

/// `[server]`
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Where the registry API listens.
    pub listen: Vec<Listen>,
    /// The certificate. `None`: plain HTTP alone.
    pub tls: Option<TlsSettings>,
    /// Names, besides loopback and the upstreams', that clients use for this host (lower case, without port).
    pub names: Vec<String>,
    /// How long running downloads may go on after SIGTERM.
    pub drain: Duration,
    /// Bounds of everything that grows with requests.
    pub limits: Limits,
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
}

/// `[server.tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM file of the server's certificate, and of those that lead from it to its authority.
    pub certificate_file: PathBuf,
    /// PEM file of its key.
    pub key_file: PathBuf,
    /// PEM file of the authorities of clients' certificates. `None`: clients are not asked for one.
    pub client_ca_file: Option<PathBuf>,
}

/// Bounds of everything that grows with requests, in one place; `larder check` shows them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Client connections open at once, shared by addresses; one more waits, or takes the place of one that is only kept.
    pub connections: usize,
    /// Downloads from upstreams into the store at once; one more answers 429.
    pub fills: usize,
    /// Uploads of which a copy is kept while they run.
    pub uploads: usize,
    /// Connections to one upstream host at once.
    pub upstream_connections: usize,
    /// Bytes of all manifests kept in memory.
    pub manifest_memory: u64,
    /// Bytes of large documents that all requests together hold at once.
    pub document_memory: u64,
    /// Bytes of all answers of ACR's own API kept in memory.
    pub metadata_memory: u64,
    /// Tags whose state is kept in memory at once.
    pub tag_entries: usize,
    /// "Upstream does not have it" answers remembered at once; and repositories that an upstream refuses, per upstream.
    pub negative_entries: usize,
    /// Access tokens remembered per upstream.
    pub tokens: usize,
    /// Entries of a list (tags, catalogue, referrers) that are kept; a longer list is passed through.
    pub list_entries: usize,
    /// Bytes of all lists kept in memory.
    pub list_memory: u64,
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// How long a client may take to send a request's head.
    pub header_timeout: Duration,
    /// How long a client may accept nothing of an answer, or send nothing of a body, before it is given up.
    pub stall_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            fills: 256,
            uploads: 64,
            upstream_connections: 128,
            manifest_memory: 64 << 20,
            document_memory: 256 << 20,
            metadata_memory: 16 << 20,
            tag_entries: 100_000,
            negative_entries: 10_000,
            tokens: 10_000,
            list_entries: 100_000,
            list_memory: 64 << 20,
            header_bytes: 64 << 10,
            header_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(300),
        }
    }
}

/// `[admin]`
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// Where health and metrics listen.
    pub listen: SocketAddr,
    /// The Unix socket that the commands speak through. `None` where there are none.
    pub socket: Option<PathBuf>,
}

/// `[store]`
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// The store's folder.
    pub path: PathBuf,
    /// Bytes that everything below `path` may take. `None`: 100 GiB or half of what is free at the first start, whichever is less.
    pub max_size: Option<u64>,
    /// Bytes of the file system that are always left free.
    pub min_free: u64,
    /// What is synced before a blob counts as stored.
    pub sync: Durability,
    /// Bytes per second at which everything stored is hashed again, over and over. 0: never.
    pub scrub_rate: u64,
    /// Patterns of `<upstream>/<repository>` (`*` within a component, `**` anything) whose content is never removed to make room.
    pub pin: Vec<String>,
}

/// `[store] sync`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// File and folder are synced at every commit.
    Commit,
    /// The operating system decides; a crash of the machine may lose what was just stored, never damage what is served.
    None,
}

/// `[access]`
#[derive(Clone, Debug)]
pub struct AccessSettings {
    /// Networks that are let in without a credential.
    pub open_to: Vec<IpNet>,
    /// Users with bcrypt hashes of their passwords, who are let in with these. Read again when it changes.
    pub users_file: Option<PathBuf>,
    /// Whether callers are let in with a credential of their own that upstream accepts, for what upstream lets them do.
    pub ask_upstream: bool,
    /// How long upstream's verdict on a caller is kept.
    pub verdict_ttl: Duration,
    /// How long a verdict is good while upstream cannot be asked.
    pub verdict_stale: Duration,
    /// What more than pulling is allowed, to whom, and which pulls not everybody is. Rules add up.
    pub rules: Vec<AccessRule>,
}

impl AccessSettings {
    /// The rules that keep pulls from some. Where upstream is asked about callers, nobody knows who may pull what: nothing is for all.
    #[must_use]
    pub fn restrictions(&self) -> Vec<AccessRule> {
        if !self.ask_upstream {
            return self.rules.clone();
        }
        let repositories = vec![RepositoryPattern::new("**")];
        vec![AccessRule { users: Some(Vec::new()), networks: None, repositories, allow: vec![Right::Pull] }]
    }
}

impl Default for AccessSettings {
    fn default() -> Self {
        Self {
            open_to: Vec::new(),
            users_file: None,
            ask_upstream: false,
            verdict_ttl: Duration::from_secs(60),
            verdict_stale: Duration::from_secs(3 * 3600),
            rules: Vec::new(),
        }
    }
}

/// `[[access.rules]]`
#[derive(Clone, Debug)]
pub struct AccessRule {
    /// Whom it is for, groups resolved. `None`: every caller who is let in, the nameless one too.
    pub users: Option<Vec<String>>,
    /// Where the callers are. `None`: anywhere.
    pub networks: Option<Vec<IpNet>>,
    /// What it is about.
    pub repositories: Vec<RepositoryPattern>,
    /// What they may do there.
    pub allow: Vec<Right>,
}

/// What a caller may do with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Read manifests, blobs and lists.
    Pull,
    /// Upload blobs and put manifests and tags.
    Push,
    /// Delete tags, manifests, blobs, or all of it.
    Delete,
}

impl Right {
    /// The right of that name.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Pull, Self::Push, Self::Delete].into_iter().find(|right| right.as_str() == word)
    }

    /// Its name in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }
}

/// `[network]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSettings {
    /// Servers that resolve upstreams' names. Empty: the system does.
    pub dns: Vec<SocketAddr>,
}

/// `[[upstream]]`
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// How clients name it, and how links and metrics do.
    pub name: Registry,
    /// Other names in a path or `ns`.
    pub aliases: Vec<String>,
    /// Whether requests that name no upstream go here.
    pub default: bool,
    /// Scheme and authority, `https://myacr.azurecr.io`; no path, no trailing slash.
    pub url: http::Uri,
    /// Further addresses of the same content, asked in this order when `url` does not answer; never written to.
    pub mirrors: Vec<http::Uri>,
    /// Addresses that are dialled for the host of `url`, in this order. Empty: those that its name resolves to.
    pub connect: Vec<SocketAddr>,
    /// PEM file of roots besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Hosts (`host` or `host:port`) besides the upstream's own that may be sent the credential.
    pub token_realms: Vec<String>,
    /// Hosts (`host` or `host:port`) inside the operator's networks that redirects and uploads may lead to.
    pub data_hosts: Vec<String>,
    /// As whom larder asks.
    pub credential: CredentialSettings,
    /// How long what can change may be served without asking again.
    pub freshness: FreshnessSettings,
    /// Whether it is never to be asked: what is stored is all there is.
    pub sealed: bool,
    /// Whether it shares no bytes with other upstreams.
    pub isolate: bool,
    /// Bytes per second of all its blob downloads together. `None`: no limit.
    pub max_rate: Option<u64>,
    /// The Azure Container Registry's service tier, whose limits of requests are kept to.
    pub tier: Tier,
    /// Time to connect, TLS included.
    pub connect_timeout: Duration,
    /// Time from sending a request to the head of its answer.
    pub first_byte_timeout: Duration,
    /// Time without a byte after which a body is given up.
    pub stall_timeout: Duration,
    /// Time without a byte after which a download that was cut is given up although it is waited for.
    pub resume_timeout: Duration,
}

impl UpstreamSettings {
    /// The settings of an upstream of which nothing else is said.
    #[must_use]
    pub fn new(name: Registry, url: http::Uri) -> Self {
        Self {
            name,
            aliases: Vec::new(),
            default: false,
            url,
            mirrors: Vec::new(),
            connect: Vec::new(),
            ca_file: None,
            token_realms: Vec::new(),
            data_hosts: Vec::new(),
            credential: CredentialSettings::Anonymous,
            freshness: FreshnessSettings::default(),
            sealed: false,
            isolate: false,
            max_rate: None,
            tier: Tier::Unknown,
            connect_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            resume_timeout: Duration::from_secs(60),
        }
    }
}

/// `[[upstream]] tier`: a registry's limits of requests per minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// Nobody has said, or it is no Azure Container Registry: its refusals show its limits.
    #[default]
    Unknown,
    /// Basic.
    Basic,
    /// Standard.
    Standard,
    /// Premium.
    Premium,
}

/// `[upstream.credential]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSettings {
    /// No credential.
    Anonymous,
    /// A user and a password: ACR's admin user, a service principal's id and secret, a scope-map token, any registry's login.
    Password {
        /// The user's name.
        username: String,
        /// File that holds the password; a final line end is not part of it.
        password_file: PathBuf,
    },
    /// An ACR refresh token (`az acr login --expose-token`).
    RefreshToken {
        /// File that holds the token.
        token_file: PathBuf,
    },
    /// Docker's `config.json`, its credential helpers included. `None`: `$DOCKER_CONFIG`, else the user's.
    DockerConfig {
        /// The file.
        file: Option<PathBuf>,
    },
    /// The caller's own: larder holds none.
    Caller,
    /// The login of the Azure CLI, exchanged at the registry.
    AzureCli,
    /// For an ACR the identity that the surroundings have (workload, App Service, Arc, VM) or the Azure CLI's login; else Docker's,
    /// else none.
    Auto,
    /// An application of Entra with a secret or a certificate.
    ServicePrincipal {
        /// The tenant's id or domain.
        tenant_id: String,
        /// The application's (client) id.
        client_id: String,
        /// What it proves itself with.
        proof: PrincipalProof,
        /// Base of the login host. `None`: by the registry's cloud.
        authority: Option<http::Uri>,
    },
    /// The identity that Azure gives to a machine or an app.
    ManagedIdentity {
        /// Which one, if there are several.
        identity: AssignedIdentity,
        /// Base of the metadata service. `None`: by the surroundings.
        endpoint: Option<http::Uri>,
    },
    /// An application of Entra that trusts the token of a Kubernetes service account.
    WorkloadIdentity {
        /// The tenant's id or domain.
        tenant_id: String,
        /// The application's (client) id.
        client_id: String,
        /// File that holds the token, renewed by others.
        token_file: PathBuf,
        /// Base of the login host. `None`: by the registry's cloud.
        authority: Option<http::Uri>,
    },
}

/// What a service principal proves itself with; both are files that are read again at each need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrincipalProof {
    /// A client secret.
    Secret(PathBuf),
    /// PEM of an RSA key and its certificate.
    Certificate(PathBuf),
}

/// Which of a machine's identities is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AssignedIdentity {
    /// The only one, or the system-assigned one.
    #[default]
    System,
    /// By its client id.
    ClientId(String),
    /// By its object (principal) id.
    ObjectId(String),
    /// By its Azure resource id.
    ResourceId(String),
}

/// `[upstream.freshness]`
#[derive(Clone, Debug)]
pub struct FreshnessSettings {
    /// How long a stored tag is served without asking.
    pub tag_ttl: Duration,
    /// How long a request waits for the revalidation of an expired tag before the stored one goes out.
    pub revalidate_wait: Duration,
    /// How old a stored tag may be to stand in for an upstream that is away. `None`: any age.
    pub max_stale: Option<Duration>,
    /// How long "upstream does not have it" is believed.
    pub negative_ttl: Duration,
    /// Patterns (`*` any characters) of tags that never move.
    pub immutable_tags: Vec<String>,
    /// What is otherwise in some repositories. The first rule that names a repository holds for it.
    pub rules: Vec<FreshnessRule>,
}

/// `[[upstream.freshness.rules]]`: what it leaves out is as in `[upstream.freshness]`.
#[derive(Clone, Debug, Default)]
pub struct FreshnessRule {
    /// Which repositories it is for.
    pub repositories: Vec<RepositoryPattern>,
    /// See [`FreshnessSettings::tag_ttl`].
    pub tag_ttl: Option<Duration>,
    /// See [`FreshnessSettings::max_stale`].
    pub max_stale: Option<Duration>,
    /// See [`FreshnessSettings::negative_ttl`].
    pub negative_ttl: Option<Duration>,
    /// See [`FreshnessSettings::immutable_tags`].
    pub immutable_tags: Option<Vec<String>>,
}

impl Default for FreshnessSettings {
    fn default() -> Self {
        Self {
            tag_ttl: Duration::from_secs(60),
            revalidate_wait: Duration::from_secs(1),
            max_stale: None,
            // A geo-replica may be behind, and a push behind larder's back must show at once for a person.
            negative_ttl: Duration::from_secs(5),
            immutable_tags: Vec::new(),
            rules: Vec::new(),
        }
    }
}
