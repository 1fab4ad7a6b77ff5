//! `[[upstream]]`: its keys, and the rules between upstreams.

use super::choices::Tier;
use super::credential::{CredentialSettings, read_credential};
use super::declare::{Declared as _, settings};
use super::freshness::{FreshnessSettings, check_rules};
use super::names::{default_url, is_loopback, parse_host, parse_url, show_url};
use super::origin::{ConfigError, Origin};
use super::quantities::{Rate, TimeLimit};
use super::reader::{Reader, Section};
use super::server::with_port;
use super::tree::{Node, Table, Value};
use super::values::{Address, Alias, Host, List, ReadableFile, RegistryName, RegistryUrl};
use crate::oci::Registry;
use http::Uri;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

settings! { "upstream";
/// One such table for each upstream.
pub struct UpstreamSettings {
    /// How clients name the upstream, and how metrics and links name it.
    name: Registry [RegistryName = Registry::new(""), shown "the url's host", write "\"myacr.azurecr.io\""];
    /// Scheme and host, nothing else.
    url: Uri [RegistryUrl = Uri::default(),
        shown "`https://NAME`; for docker.io `https://registry-1.docker.io`", write "\"https://myacr.azurecr.io\""];
    /// Further addresses of the same content (geo-replicas, mirrors). larder asks them in this order when `url` does not answer, and never
    /// writes to them. They are sent the credential only if `token_realms` names them.
    mirrors: Vec<Uri> [List<RegistryUrl> = Vec::new()];
    /// Addresses that larder dials for the host of `url`, in this order, instead of those that its name resolves to: for a name that
    /// leads to larder itself ([tls.md](tls.md)). `["20.1.2.3:443"]`; the port may be left out. A proxy of the environment comes first.
    connect: Vec<SocketAddr> [List<Address> = Vec::new()];
    /// Other names in a path or in `?ns=`, one path component each.
    aliases: Vec<String> [List<Alias> = Vec::new(), write "[\"acr\"]"];
    /// Whether requests that name no upstream go here.
    default: bool [= false, shown "`true` for the only upstream, else `false`", write "true"];
    /// PEM file of certificate authorities besides the system's.
    ca_file: Option<PathBuf> [ReadableFile, unset "the system's certificate authorities alone", example "\"/etc/larder/ca.pem\""];
    /// Further hosts, with port if they have one, that may be sent the credential: token services on another host, mirrors.
    token_realms: Vec<String> [List<Host> = Vec::new()];
    /// Further hosts, with port if they have one, that redirects and uploads may lead to although they are in a private network or on this
    /// machine ([where an upstream may lead](upstream.md#where-an-upstream-may-lead)). Public hosts need no entry, and neither do
    /// hosts in the registry's own kind of network.
    data_hosts: Vec<String> [List<Host> = Vec::new()];
    /// Time to connect, TLS included.
    connect_timeout: Duration [TimeLimit = Duration::from_secs(10)];
    /// Time from a request to the head of its answer.
    first_byte_timeout: Duration [TimeLimit = Duration::from_secs(30)];
    /// Time without a byte after which larder gives up a body, and resumes it.
    stall_timeout: Duration [TimeLimit = Duration::from_secs(30)];
    /// Time for which a download that was cut waits for an upstream that is away, while clients wait; five times as long while nobody
    /// does.
    resume_timeout: Duration [TimeLimit = Duration::from_secs(60)];
    /// Whether larder never asks it, not even for a token. What is stored is then all there is, whatever its age.
    sealed: bool [= false];
    /// Whether it shares no bytes with other upstreams, in either direction. Its blobs are then downloaded from it alone, also where another
    /// upstream's bytes are stored already, and no other upstream's clients are served from it: for a registry that is not
    /// trusted to be honest ([SECURITY.md](../SECURITY.md)).
    isolate: bool [= false];
    /// Bytes per second of all its blob downloads together, shared fairly; `"0"`: no limit.
    max_rate: Option<u64> [Rate = None];
    /// The service tier of an Azure Container Registry, `basic`, `standard` or `premium`: larder keeps its requests below what the tier
    /// allows one identity per minute. `unknown`: the registry's 429 answers show the pace.
    tier: Tier [= Tier::Unknown];
    /// As whom larder asks.
    credential: CredentialSettings [by read_credential];
    /// How long what can change may be served without asking again.
    freshness: FreshnessSettings [table];
}}

impl UpstreamSettings {
    /// The defaults, for an upstream of this name and address.
    #[must_use]
    pub fn new(name: Registry, url: Uri) -> Self {
        Self { name, url, ..Self::default() }
    }
}

/// Reads all of them; `needed` is the place for the error that there is none.
pub(super) fn read_upstreams(top: &mut Section<'_>, needed: Option<&Origin>) -> Vec<UpstreamSettings> {
    let tables = top.raw_tables("upstream");
    if let (Some(place), true) = (needed, tables.is_empty() && !top.reader.errors.iter().any(concerns_upstreams)) {
        let message = "there is no upstream: write [[upstream]] with name = \"myacr.azurecr.io\", or use --upstream myacr.azurecr.io";
        top.reader.error(place.clone(), "", message);
    }
    let only = tables.len() == 1;
    let (mut indices, mut upstreams) = (Vec::new(), Vec::new());
    for (index, (mut table, origin)) in tables.into_iter().enumerate() {
        complete(&mut table, only);
        let path = format!("upstream.{index}");
        let mut section = Section::new(top.reader, &path, table, origin);
        let mut upstream = UpstreamSettings::read(&mut section);
        section.finish();
        check_upstream(top.reader, &path, &mut upstream);
        // Without a usable name or address it has been reported, and is compared with no other.
        if !upstream.name.as_str().is_empty() && upstream.url.host().is_some() {
            indices.push(index);
            upstreams.push(upstream);
        }
    }
    check_names(top.reader, &upstreams, &indices);
    check_defaults(top.reader, &upstreams, &indices);
    if upstreams.len() > 1 && !upstreams.iter().any(|upstream| upstream.default) {
        let warning = "no upstream has default = true: only requests that name their upstream can be answered";
        top.reader.warnings.push(warning.to_owned());
    }
    upstreams
}

/// Whether the error is why there is no upstream.
fn concerns_upstreams(error: &ConfigError) -> bool {
    error.key == "upstream" || error.origin == Origin::Flag("--upstream")
}

/// Writes the defaults that follow from other keys into the table: the name from the url, the url from the name, and that the only
/// upstream is the default one.
fn complete(table: &mut Table, only: bool) {
    if only && !table.0.contains_key("default") {
        table.set("default", Node { value: Value::Boolean(true), origin: Origin::Default, text: None });
    }
    let host = || parse_url(table.str("url")?).ok()?.authority().map(ToString::to_string);
    if let (false, Some(host)) = (table.0.contains_key("name"), host()) {
        table.set("name", Node::string(&host, &Origin::Default));
    }
    let url = || parse_host(table.str("name")?).ok().map(|name| default_url(&name));
    if let (false, Some(url)) = (table.0.contains_key("url"), url()) {
        table.set("url", Node::string(&url, &Origin::Default));
    }
}

fn check_upstream(reader: &mut Reader, path: &str, upstream: &mut UpstreamSettings) {
    let is_said = |key| reader.was_written(path, key);
    if upstream.name.as_str().is_empty() && !is_said("name") && !is_said("url") {
        reader.error_at(path, "name", r#"the upstream has no name: write name = "myacr.azurecr.io""#);
    }
    let url = &upstream.url;
    let host = url.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if !upstream.connect.is_empty() && bare.parse::<IpAddr>().is_ok() {
        let message = "url names an address already: write the registry's name into url, or remove connect";
        reader.error_at(path, "connect", message);
    }
    let is_plain = url.scheme_str() == Some("http");
    let port = url.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
    upstream.connect.iter_mut().for_each(|address| with_port(address, port));
    if is_plain && !is_loopback(host) && upstream.credential != CredentialSettings::Anonymous {
        let url = show_url(url);
        let warning = format!("upstream {url} is asked over plain http: its login goes over the network unprotected");
        reader.warnings.push(warning);
    }
    check_rules(reader, &mut upstream.freshness, path, upstream.name.as_str());
}

fn check_names(reader: &mut Reader, upstreams: &[UpstreamSettings], indices: &[usize]) {
    let mut taken: Vec<(&str, usize)> = Vec::new();
    for (position, upstream) in upstreams.iter().enumerate() {
        let names = std::iter::once(upstream.name.as_str()).chain(upstream.aliases.iter().map(String::as_str));
        for name in names {
            match taken.iter().find(|(other, _)| *other == name) {
                Some((_, other)) => {
                    let index = indices[position];
                    let message = format!(
                        "the name or alias '{name}' belongs to upstream {} already: each name leads to one upstream, once",
                        upstreams[*other].name
                    );
                    reader.error_at(&format!("upstream.{index}"), "", message);
                }
                None => taken.push((name, position)),
            }
        }
    }
}

fn check_defaults(reader: &mut Reader, upstreams: &[UpstreamSettings], indices: &[usize]) {
    let mut defaults = upstreams.iter().zip(indices).filter(|(upstream, _)| upstream.default);
    let first = defaults.next();
    for (upstream, index) in defaults {
        let other = first.map(|(first, _)| first.name.to_string()).unwrap_or_default();
        let message = format!("{} and {other} are both the default: keep default = true on one", upstream.name);
        reader.error_at(&format!("upstream.{index}"), "default", message);
    }
}
