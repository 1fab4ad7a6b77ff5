//! `[server]`, `[admin]`, `[store]` and `[network]`: their keys, and the rules between them.

use super::choices::{Durability, Listen};
use super::declare::settings;
use super::handed::Handed;
use super::origin::Origin;
use super::quantities::{DocumentMemory, HeaderSize, Size, StoreSize, TimeLimit};
use super::reader::{Places, Reader, Section, Setting};
use super::tls::{TlsSettings, read_tls};
use super::values::{Address, BareHost, List, Pin};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

const REGISTRY_PORT: u16 = 5000;
const ADMIN_PORT: u16 = 5001;
const DNS_PORT: u16 = 53;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

settings! { "server";
/// Registry clients.
pub struct ServerSettings {
    /// Addresses where registry clients reach larder. Before one, `tls://` asks for TLS there; a Unix socket is
    /// `unix:/run/larder/larder.sock`.
    listen: Vec<Listen> [List<Listen> = on_loopback()];
    /// Further names that clients use for this host, without port; others get 421 on a loopback listener that is open to all.
    names: Vec<String> [List<BareHost> = Vec::new()];
    /// How long running downloads may continue after SIGTERM. Keep it below `TimeoutStopSec=` of the systemd unit.
    drain: Duration [= seconds(30)];
    /// The certificate. `None`: plain HTTP alone.
    tls: Option<TlsSettings> [by read_tls];
    /// Bounds of everything that grows with requests.
    limits: Limits [table];
}}

fn on_loopback() -> Vec<Listen> {
    let local = |ip: IpAddr| Listen::Tcp(SocketAddr::new(ip, REGISTRY_PORT));
    vec![local(Ipv4Addr::LOCALHOST.into()), local(Ipv6Addr::LOCALHOST.into())]
}

settings! { "server.limits";
/// Bounds of everything that grows with requests.
pub struct Limits {
    /// Client connections open at once: of one address beside others three quarters, and an eighth more for addresses that have none. When
    /// all are taken, larder closes the one that has had no request for longest, if that is a second or more (at once for an address that has
    /// none); else the next one waits. larder raises its limit on open files at start as far as the system lets it, to 65,536 at most.
    connections: usize [= 8192];
    /// Downloads from upstreams into the store at once; one more is answered 429.
    fills: usize [= 256];
    /// Uploads of which a copy is kept while they run; one more is pushed and not kept.
    uploads: usize [= 64];
    /// Connections to one upstream host at once; uploads may take half of them.
    upstream_connections: usize [= 128];
    /// Bytes of all manifests kept in memory.
    manifest_memory: u64 [Size = 64 << 20];
    /// Bytes of large manifests and lists (over 64 KiB) that all requests together hold while they are read or answered; at least 32 MiB.
    document_memory: u64 [DocumentMemory = 256 << 20];
    /// Bytes of all answers of ACR's own API (`/acr/v1`) kept in memory.
    metadata_memory: u64 [Size = 16 << 20];
    /// Tags whose state is kept in memory at once.
    tag_entries: usize [= 100_000];
    /// Upstream's "not found" answers that are remembered at once; likewise, for each upstream, repositories that it refuses.
    negative_entries: usize [= 10_000];
    /// Access tokens remembered for each upstream.
    tokens: usize [= 10_000];
    /// Entries of a list (tags, catalogue, referrers) that is kept; a longer list is passed through.
    list_entries: usize [= 100_000];
    /// Bytes of all lists kept in memory; others are read from their files.
    list_memory: u64 [Size = 64 << 20];
    /// Size of a request's head.
    header_bytes: usize [HeaderSize = 64 << 10];
    /// How long a client may take to send a request's head.
    header_timeout: Duration [TimeLimit = seconds(15)];
    /// How long a client may accept nothing of an answer, or send nothing of a body.
    stall_timeout: Duration [TimeLimit = seconds(300)];
}}

settings! { "admin";
/// Health, metrics, and the socket of the commands.
pub struct AdminSettings {
    /// Where health (`/healthz`, `/readyz`) and metrics (`/metrics`) are served.
    listen: SocketAddr [= SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ADMIN_PORT)];
    /// The Unix socket of `larder status`, `list`, `pin`, `purge` and `verify`. A user who may open it may ask and change.
    socket: Option<PathBuf> [PathBuf, unset "`admin.sock` in the store's folder", example "\"/run/larder/admin.sock\""];
}}

settings! { "store";
/// The store on disk.
pub struct StoreSettings {
    /// The store's folder.
    path: PathBuf [= PathBuf::new(), shown "`$STATE_DIRECTORY` of systemd, else `larder` in the user's cache folder", example "\"/var/lib/larder\""];
    /// Size that everything below `path` may take.
    max_size: Option<u64> [StoreSize, unset "100GiB or half of what is free at the first start, whichever is less", example "\"100GiB\""];
    /// Size that is always left free on the file system.
    min_free: u64 [Size = 5 << 30];
    /// What is synced before a blob counts as stored: `commit`, file and folder; `none`, nothing (a crash of the machine may lose what was
    /// stored last, never damage what is served).
    sync: Durability [= Durability::Commit];
    /// Bytes per second at which everything stored is hashed again, over and over, to find damage of the disk; `"0"`: never.
    scrub_rate: u64 [Size = 8 << 20];
    /// Repositories (`<upstream>/<repository>`; `*` within a component, `**` anything) whose content is never removed to make room, such as
    /// `myacr.azurecr.io/base/**`; `larder pin` adds to them.
    pin: Vec<String> [List<Pin> = Vec::new()];
}}

settings! { "network";
/// All connections to upstreams.
#[derive(PartialEq, Eq)]
pub struct NetworkSettings {
    /// Name servers (`IP` or `IP:PORT`) that resolve the names of upstreams, mirrors, token services, storage hosts and proxies, instead of the
    /// system and its hosts file. Empty: the system resolves them.
    dns: Vec<SocketAddr> [List<Address> = Vec::new()];
}}

impl StoreSettings {
    /// A store of at most this size that leaves no room free, syncs nothing and is never scrubbed: for tests.
    #[must_use]
    pub fn small(path: impl Into<PathBuf>, max_size: u64) -> Self {
        let max_size = Some(max_size);
        Self { path: path.into(), max_size, min_free: 0, sync: Durability::None, scrub_rate: 0, pin: Vec::new() }
    }
}

pub(super) fn read_server(top: &mut Section<'_>, handed: &Handed) -> ServerSettings {
    let mut server = top.table::<ServerSettings>("server");
    handed.registry(top.reader, &mut server.listen);
    if server.listen.is_empty() {
        let message = r#"the list is empty: write an address such as "127.0.0.1:5000", or remove the key"#;
        top.reader.error_at("server", "listen", message);
    }
    let speaks_tls = server.listen.iter().any(|listen| matches!(listen, Listen::Tls(_)));
    match top.reader.was_written("server", "tls") {
        true if !speaks_tls => encrypt_all(top.reader, &mut server.listen),
        false if speaks_tls => {
            let message = "a listener with tls:// needs a certificate: write [server.tls] with certificate_file and key_file (`larder tls init` makes both), or remove tls://";
            top.reader.error_at("server", "listen", message);
        }
        _ => {}
    }
    for (index, left) in server.listen.iter().enumerate() {
        if let Some(right) = server.listen[..index].iter().find(|right| left.clashes_with(right)) {
            let message = format!("{} and {} clash: remove one or choose another port", right.shown(), left.shown());
            top.reader.error_at("server", "listen", message);
        }
    }
    server
}

/// With a certificate and no `tls://`, every TCP listener is meant.
fn encrypt_all(reader: &mut Reader, listen: &mut Vec<Listen>) {
    for place in listen.iter_mut() {
        if let Listen::Tcp(address) = place {
            *place = Listen::Tls(*address);
        }
    }
    reader.show_as("server", "listen", List::<Listen>::show(listen));
}

pub(super) fn read_admin(top: &mut Section<'_>, server: &ServerSettings, handed: &Handed) -> AdminSettings {
    let mut admin = top.table::<AdminSettings>("admin");
    handed.admin(top.reader, &mut admin.listen);
    let listen = admin.listen;
    if let Some(other) = server.listen.iter().find(|other| other.clashes_with(&Listen::Tcp(listen))) {
        let message = format!("{listen} is taken by [server] listen {}: choose another port", other.shown());
        top.reader.error_at("admin", "listen", message);
    }
    if !listen.ip().is_loopback() {
        let warning = format!("[admin] listen {listen} shows metrics to every host that can reach it");
        top.reader.warnings.push(warning);
    }
    admin
}

pub(super) fn read_store(top: &mut Section<'_>) -> StoreSettings {
    let mut store = top.table::<StoreSettings>("store");
    if top.reader.was_written("store", "path") {
        return store;
    }
    let (default, origin) = default_store(&top.reader.places);
    match default {
        Some(default) => store.path = top.reader.places.here.join(default),
        None => top.reader.error_at(
            "store",
            "path",
            "neither $STATE_DIRECTORY nor a home folder says where the store is: write a path or use --store",
        ),
    }
    top.reader.show_from("store", "path", PathBuf::show(&store.path), origin);
    store
}

fn default_store(places: &Places) -> (Option<PathBuf>, Origin) {
    // systemd separates several folders with colons; the first is larder's.
    if let Some(state) = places.environment.get("STATE_DIRECTORY") {
        let first = state.split(':').next().unwrap_or(state);
        return (Some(first.into()), Origin::Environment("STATE_DIRECTORY".to_owned()));
    }
    (places.environment.cache_folder().map(|folder| folder.join("larder")), Origin::Default)
}

pub(super) fn read_network(top: &mut Section<'_>) -> NetworkSettings {
    let mut network = top.table::<NetworkSettings>("network");
    network.dns.iter_mut().for_each(|address| with_port(address, DNS_PORT));
    network
}

/// The port of an address that was written without one.
pub(super) fn with_port(address: &mut SocketAddr, port: u16) {
    if address.port() == 0 {
        address.set_port(port);
    }
}
