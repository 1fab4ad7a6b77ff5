//! `[server]`, `[admin]` and `[store]`: from tables to settings, and the rules between their keys.

use super::environment::Environment;
use super::names::parse_host;
use super::origin::Origin;
use super::reader::{Reader, Section};
use super::settings::{AdminSettings, Durability, Limits, Listen, NetworkSettings, ServerSettings, StoreSettings};
use super::tls::read_tls;
use super::values::Size;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

const REGISTRY_PORT: u16 = 5000;
const ADMIN_PORT: u16 = 5001;
const DNS_PORT: u16 = 53;

pub(super) fn read_server(mut section: Section<'_>, environment: &Environment, here: &Path) -> ServerSettings {
    let local = |ip: IpAddr| Listen::Tcp(SocketAddr::new(ip, REGISTRY_PORT));
    let both = vec![local(Ipv4Addr::LOCALHOST.into()), local(Ipv6Addr::LOCALHOST.into())];
    let mut listen = section.or("listen", both);
    if listen.is_empty() {
        section.error("listen", r#"the list is empty: write an address such as "127.0.0.1:5000", or remove the key"#);
    }
    let names = section.or::<Vec<String>>("names", Vec::new());
    let names = names.iter().filter_map(|name| match parse_host(name) {
        Ok(host) if host.contains(':') => {
            section.error("names", format!("name '{name}' has a port: write the host alone"));
            None
        }
        Ok(host) => Some(host),
        Err(message) => {
            section.error("names", message);
            None
        }
    });
    let names = names.collect();
    let drain = section.or("drain", Duration::from_secs(30));
    let tls = read_tls(&mut section, &mut listen, environment, here);
    let limits = read_limits(section.section("limits"));
    section.finish();
    ServerSettings { listen, tls, names, drain, limits }
}

fn read_limits(mut section: Section<'_>) -> Limits {
    let default = Limits::default();
    let limits = Limits {
        connections: section.or("connections", default.connections),
        fills: section.or("fills", default.fills),
        uploads: section.or("uploads", default.uploads),
        upstream_connections: section.or("upstream_connections", default.upstream_connections),
        manifest_memory: section.or("manifest_memory", Size(default.manifest_memory)).0,
        document_memory: read_document_memory(&mut section, default.document_memory),
        metadata_memory: section.or("metadata_memory", Size(default.metadata_memory)).0,
        tag_entries: section.or("tag_entries", default.tag_entries),
        negative_entries: section.or("negative_entries", default.negative_entries),
        tokens: section.or("tokens", default.tokens),
        list_entries: section.or("list_entries", default.list_entries),
        list_memory: section.or("list_memory", Size(default.list_memory)).0,
        header_bytes: read_header_bytes(&mut section, default.header_bytes),
        header_timeout: positive(&mut section, "header_timeout", default.header_timeout),
        stall_timeout: positive(&mut section, "stall_timeout", default.stall_timeout),
    };
    section.finish();
    limits
}

/// A long list with the page that is being read has to fit.
fn read_document_memory(section: &mut Section<'_>, default: u64) -> u64 {
    const LEAST: u64 = 32 << 20;
    let size = section.or("document_memory", Size(default)).0;
    if size < LEAST {
        section.error("document_memory", r#"too small: write a size of "32MiB" or more"#);
        return default;
    }
    size
}

fn read_header_bytes(section: &mut Section<'_>, default: usize) -> usize {
    let size = section.or("header_bytes", Size(default as u64)).0;
    match usize::try_from(size) {
        // hyper takes no smaller buffer than 8 KiB.
        Ok(bytes) if (8 << 10..=16 << 20).contains(&bytes) => bytes,
        _ => {
            section.error("header_bytes", r#"out of range: write a size from "8KiB" to "16MiB""#);
            default
        }
    }
}

/// A time limit, which cannot be zero.
pub(super) fn positive(section: &mut Section<'_>, key: &'static str, default: Duration) -> Duration {
    let value = section.or(key, default);
    if value.is_zero() {
        section.error(key, r#"a time limit of zero would end everything at once: write a duration such as "30s""#);
    }
    value
}

pub(super) fn read_admin(mut section: Section<'_>, server: &ServerSettings) -> AdminSettings {
    let listen = section.or("listen", SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ADMIN_PORT));
    let socket = section.optional::<PathBuf>("socket", "admin.sock in the store's folder");
    if let Some(other) = server.listen.iter().find(|other| clash(other, &Listen::Tcp(listen))) {
        section.error("listen", format!("{listen} is taken by [server] listen {}: choose another port", show(other)));
    }
    if !listen.ip().is_loopback() {
        let warning = format!("[admin] listen {listen} shows metrics to every host that can reach it");
        section.reader.warnings.push(warning);
    }
    section.finish();
    AdminSettings { listen, socket }
}

pub(super) fn check_listeners(reader: &mut Reader, origin: &Origin, listen: &[Listen]) {
    for (index, left) in listen.iter().enumerate() {
        if let Some(right) = listen[..index].iter().find(|right| clash(left, right)) {
            let message = format!("{} and {} clash: remove one or choose another port", show(right), show(left));
            reader.error(origin.clone(), "server.listen", message);
        }
    }
}

pub(super) fn show(listen: &Listen) -> String {
    match listen {
        Listen::Tcp(address) => address.to_string(),
        Listen::Tls(address) => format!("tls://{address}"),
        Listen::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Whether both cannot be bound; port 0 is any free one.
fn clash(left: &Listen, right: &Listen) -> bool {
    if let (Listen::Unix(left), Listen::Unix(right)) = (left, right) {
        return left == right;
    }
    match (left.address(), right.address()) {
        (Some(left), Some(right)) => {
            let overlap = left.ip() == right.ip() || left.ip().is_unspecified() || right.ip().is_unspecified();
            left.port() != 0 && left.port() == right.port() && left.is_ipv4() == right.is_ipv4() && overlap
        }
        _ => false,
    }
}

pub(super) fn read_network(mut section: Section<'_>) -> NetworkSettings {
    let dns =
        read_addresses(&mut section, "dns", DNS_PORT, r#"write a name server such as "10.0.0.53" or "10.0.0.53:5353""#);
    section.finish();
    NetworkSettings { dns }
}

/// Addresses, with this port where they name none.
pub(super) fn read_addresses(section: &mut Section<'_>, key: &'static str, port: u16, advice: &str) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for text in section.or::<Vec<String>>(key, Vec::new()) {
        let ip = text.trim_start_matches('[').trim_end_matches(']').parse().map(|ip| SocketAddr::new(ip, port));
        match text.parse().or(ip) {
            Ok(address) if !address.ip().is_unspecified() && address.port() != 0 => addresses.push(address),
            _ => section.error(key, format!("'{text}' is no address that could be asked: {advice}")),
        }
    }
    addresses
}

pub(super) fn read_store(mut section: Section<'_>, environment: &Environment, here: &Path) -> StoreSettings {
    let (default, origin) = default_store(environment);
    let known = default.is_some();
    let path = section.or_from("path", default.unwrap_or_default(), origin);
    if !known && path.as_os_str().is_empty() {
        section.error(
            "path",
            "neither $STATE_DIRECTORY nor a home folder says where the store is: write a path or use --store",
        );
    }
    let base = base_of(&section.origin_of("path"), here);
    let max_size = section
        .optional::<Size>("max_size", "100GiB or half of what is free at the first start, whichever is less")
        .map(|size| size.0);
    if max_size == Some(0) {
        section.error("max_size", r#"a store of no size keeps nothing: write a size such as "100GiB""#);
    }
    let min_free = section.or("min_free", Size(5 << 30)).0;
    let sync = section.or("sync", Durability::Commit);
    let scrub_rate = section.or("scrub_rate", Size(8 << 20)).0;
    let pin = read_pins(&mut section);
    let path = base.join(path);
    section.show_as("path", &path);
    section.finish();
    StoreSettings { path, max_size, min_free, sync, scrub_rate, pin }
}

fn read_pins(section: &mut Section<'_>) -> Vec<String> {
    let pins = section.or::<Vec<String>>("pin", Vec::new());
    let advice = r#"write upstream and repository, such as "myacr.azurecr.io/base/**""#;
    for pin in &pins {
        let last = pin.rsplit('/').next().unwrap_or_default();
        if last.contains(':') || last.contains('@') {
            section
                .error("pin", format!("'{pin}' names a tag or a digest, and whole repositories are pinned: {advice}"));
        } else if !pin.contains('/') && !pin.contains("**") {
            section.error("pin", format!("'{pin}' matches no repository: {advice}"));
        }
    }
    pins
}

fn default_store(environment: &Environment) -> (Option<PathBuf>, Origin) {
    // systemd separates several folders with colons; the first is larder's.
    if let Some(state) = environment.get("STATE_DIRECTORY") {
        let first = state.split(':').next().unwrap_or(state);
        return (Some(first.into()), Origin::Environment("STATE_DIRECTORY".to_owned()));
    }
    (environment.cache_folder().map(|folder| folder.join("larder")), Origin::Default)
}

/// What a relative path is relative to: the file's folder for what stands in the file, else the current folder.
pub(super) fn base_of(origin: &Origin, here: &Path) -> PathBuf {
    match origin {
        Origin::File { file, .. } => here.join(file.parent().unwrap_or(Path::new(""))),
        _ => here.to_owned(),
    }
}
