//! `[[upstream]]`: from tables to settings, and the rules between upstreams.

use super::entra;
use super::environment::Environment;
use super::freshness::read_freshness;
use super::names::{parse_alias, parse_host, parse_url, show_url};
use super::origin::Origin;
use super::reader::{Reader, Section, nearest};
use super::secret::{read_secret, secret_path};
use super::sections::{base_of, positive, read_addresses};
use super::settings::{CredentialSettings, Tier, UpstreamSettings};
use super::tree::Table;
use super::values::Rate;
use crate::oci::{DOCKER_HUB, Registry};
use http::Uri;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What paths are resolved with.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    pub(super) environment: &'a Environment,
    /// The current folder.
    pub(super) here: &'a Path,
}

pub(super) fn read_upstreams(
    reader: &mut Reader,
    tables: Vec<(Table, Origin)>,
    places: Places<'_>,
) -> Vec<UpstreamSettings> {
    let mut origins = Vec::new();
    let mut upstreams = Vec::new();
    let only = tables.len() == 1;
    for (index, (table, origin)) in tables.into_iter().enumerate() {
        let section = Section::new(reader, &format!("upstream.{index}"), table, origin.clone());
        if let Some(upstream) = read_upstream(section, only, places) {
            origins.push((index, origin));
            upstreams.push(upstream);
        }
    }
    check_names(reader, &upstreams, &origins);
    check_defaults(reader, &upstreams, &origins);
    upstreams
}

fn check_names(reader: &mut Reader, upstreams: &[UpstreamSettings], origins: &[(usize, Origin)]) {
    let mut taken: Vec<(&str, usize)> = Vec::new();
    for (position, upstream) in upstreams.iter().enumerate() {
        let names = std::iter::once(upstream.name.as_str()).chain(upstream.aliases.iter().map(String::as_str));
        for name in names {
            match taken.iter().find(|(other, _)| *other == name) {
                Some((_, other)) => {
                    let (index, origin) = &origins[position];
                    let message = format!(
                        "the name or alias '{name}' belongs to upstream {} already: each name leads to one upstream, once",
                        upstreams[*other].name
                    );
                    reader.error(origin.clone(), &format!("upstream.{index}"), message);
                }
                None => taken.push((name, position)),
            }
        }
    }
}

/// Every request to larder under a loopback name without a port of its own would be taken for one to that upstream.
fn check_loopback(section: &mut Section<'_>, name: &str) {
    if is_loopback(name) || name.ends_with(".localhost") {
        section.error(
            "name",
            format!(
                "an upstream named '{name}' would be meant by every request to larder at {name}: write another name, such as \
                 name = \"registry.local\", and the address into url = \"http://{name}\""
            ),
        );
    }
}

fn check_defaults(reader: &mut Reader, upstreams: &[UpstreamSettings], origins: &[(usize, Origin)]) {
    let mut defaults = upstreams.iter().zip(origins).filter(|(upstream, _)| upstream.default);
    let first = defaults.next();
    for (upstream, (index, origin)) in defaults {
        let other = first.map(|(first, _)| first.name.to_string()).unwrap_or_default();
        let message = format!("{} and {other} are both the default: keep default = true on one", upstream.name);
        reader.error(origin.clone(), &format!("upstream.{index}.default"), message);
    }
}

/// The only upstream is the default one unless it says otherwise. `None` if the upstream has no usable name or address; why has
/// been reported.
fn read_upstream(mut section: Section<'_>, only: bool, places: Places<'_>) -> Option<UpstreamSettings> {
    let name = read_name(&mut section);
    let url = read_url(&mut section, name.as_deref());
    let mirrors = read_mirrors(&mut section);
    let connect = read_connect(&mut section, url.as_ref());
    let aliases = each(&mut section, "aliases", parse_alias);
    let default = section.or("default", only);
    let ca_file = read_file(&mut section, "ca_file", "the system's certificate authorities alone", places);
    let token_realms = each(&mut section, "token_realms", parse_host);
    let data_hosts = each(&mut section, "data_hosts", parse_host);
    let connect_timeout = positive(&mut section, "connect_timeout", Duration::from_secs(10));
    let first_byte_timeout = positive(&mut section, "first_byte_timeout", Duration::from_secs(30));
    let stall_timeout = positive(&mut section, "stall_timeout", Duration::from_secs(30));
    let resume_timeout = positive(&mut section, "resume_timeout", Duration::from_secs(60));
    let sealed = section.or("sealed", false);
    let isolate = section.or("isolate", false);
    let max_rate = section.or("max_rate", Rate(None)).0;
    let tier = section.or("tier", Tier::Unknown);
    let credential = read_credential(section.section("credential"), places);
    let freshness = read_freshness(section.section("freshness"), name.as_deref().unwrap_or_default());
    let clear = url.as_ref().filter(|url| url.scheme_str() == Some("http") && !is_loopback(url.host().unwrap_or("")));
    if let (Some(url), true) = (clear, credential != CredentialSettings::Anonymous) {
        let warning =
            format!("upstream {} is asked over plain http: its login goes over the network unprotected", show_url(url));
        section.reader.warnings.push(warning);
    }
    section.finish();
    Some(UpstreamSettings {
        name: Registry::new(&name?),
        aliases,
        default,
        url: url?,
        mirrors,
        connect,
        ca_file,
        token_realms,
        data_hosts,
        credential,
        freshness,
        sealed,
        isolate,
        max_rate,
        tier,
        connect_timeout,
        first_byte_timeout,
        stall_timeout,
        resume_timeout,
    })
}

/// Where Docker Hub's registry answers.
const HUB: &str = "https://registry-1.docker.io";

/// The name, or the url's host where it is left out.
fn read_name(section: &mut Section<'_>) -> Option<String> {
    let url = section.peek("url").map(parse_url);
    let host = url.as_ref().and_then(|url| Some(url.as_ref().ok()?.authority()?.to_string()));
    let given = match host {
        Some(host) => Some(section.or("name", host)),
        None => section.optional::<String>("name", "the url's host"),
    };
    match given.as_deref().map(parse_host) {
        Some(Ok(name)) => {
            section.show_as("name", &name);
            check_loopback(section, &name);
            return Some(name);
        }
        Some(Err(message)) => section.error("name", message),
        // A wrong url or a name that is no text has been or will be reported itself.
        None if url.is_none() && section.origin_of("name") == Origin::Default => {
            section.error("name", r#"the upstream has no name: write name = "myacr.azurecr.io""#);
        }
        None => {}
    }
    None
}

/// The address, or `https://NAME` where it is left out.
fn read_url(section: &mut Section<'_>, name: Option<&str>) -> Option<Uri> {
    let text = match name {
        // References say docker.io; the registry behind them answers elsewhere.
        Some(name) if DOCKER_HUB.contains(&name) => section.or("url", HUB.to_owned()),
        Some(name) => section.or("url", format!("https://{name}")),
        None => section.optional::<String>("url", "https://NAME")?,
    };
    match parse_url(&text) {
        Ok(url) if is_hub(&url) => {
            section.show_as("url", &HUB.to_owned());
            parse_url(HUB).ok()
        }
        Ok(url) => Some(url),
        Err(message) => {
            section.error("url", message);
            None
        }
    }
}

/// Whether an address is Docker Hub's by the name that people know, at which there are web pages.
fn is_hub(url: &Uri) -> bool {
    let port = url.port_u16().is_none_or(|port| port == 443);
    port && url.scheme_str() == Some("https") && url.host().is_some_and(|host| DOCKER_HUB.contains(&host))
}

/// Addresses that are asked when the upstream's own does not answer.
fn read_mirrors(section: &mut Section<'_>) -> Vec<Uri> {
    let texts = each(section, "mirrors", |text| parse_url(text).map(|url| show_url(&url)));
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// What is dialled instead of what the name of `url` resolves to.
fn read_connect(section: &mut Section<'_>, url: Option<&Uri>) -> Vec<SocketAddr> {
    let port = url.and_then(|url| url.port_u16().or((url.scheme_str() == Some("http")).then_some(80))).unwrap_or(443);
    let addresses =
        read_addresses(section, "connect", port, r#"write an IP address and a port, such as "20.1.2.3:443""#);
    let host = url.and_then(Uri::host).unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    if !addresses.is_empty() && host.parse::<std::net::IpAddr>().is_ok() {
        section.error("connect", "url names an address already: write the registry's name into url, or remove connect");
    }
    addresses
}

pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// A list of texts, each parsed; every wrong one is reported.
pub(super) fn each(
    section: &mut Section<'_>,
    key: &'static str,
    parse: impl Fn(&str) -> Result<String, String>,
) -> Vec<String> {
    let mut values = Vec::new();
    for text in section.or::<Vec<String>>(key, Vec::new()) {
        match parse(&text) {
            Ok(value) => values.push(value),
            Err(message) => section.error(key, message),
        }
    }
    values
}

/// A file that is no secret and must be there.
fn read_file(
    section: &mut Section<'_>,
    key: &'static str,
    absent: &'static str,
    places: Places<'_>,
) -> Option<PathBuf> {
    let path = section.optional::<PathBuf>(key, absent)?;
    let path = base_of(&section.origin_of(key), places.here).join(path);
    section.show_as(key, &path);
    if let Err(error) = std::fs::File::open(&path) {
        section
            .error(key, format!("cannot open {}: {error}: correct the path or let this user read it", path.display()));
    }
    Some(path)
}

/// A secret file that must be there; its content is looked at and forgotten.
pub(super) fn read_secret_file(section: &mut Section<'_>, key: &'static str, places: Places<'_>) -> Option<PathBuf> {
    let Some(path) = section.optional::<PathBuf>(key, "missing") else {
        if section.origin_of(key) == Origin::Default {
            section.error(
                key,
                format!("this kind of credential needs {key}: write the path of the file that holds the secret"),
            );
        }
        return None;
    };
    let path = secret_path(&path, places.environment, &base_of(&section.origin_of(key), places.here));
    section.show_as(key, &path);
    if let Err(error) = read_secret(&path) {
        section.error(key, error.to_string());
    }
    Some(path)
}

const KINDS: [&str; 10] = [
    "anonymous",
    "password",
    "refresh-token",
    "docker-config",
    "azure-cli",
    "caller",
    "service-principal",
    "managed-identity",
    "workload-identity",
    "auto",
];

fn read_credential(mut section: Section<'_>, places: Places<'_>) -> CredentialSettings {
    let kind = section.or::<String>("kind", "anonymous".to_owned());
    let credential = match kind.as_str() {
        "anonymous" => Some(CredentialSettings::Anonymous),
        "azure-cli" => Some(CredentialSettings::AzureCli),
        "caller" => Some(CredentialSettings::Caller),
        "auto" => Some(CredentialSettings::Auto),
        "docker-config" => Some(CredentialSettings::DockerConfig {
            file: read_file(&mut section, "config_file", "$DOCKER_CONFIG/config.json, else the user's", places),
        }),
        "refresh-token" => read_secret_file(&mut section, "token_file", places)
            .map(|token_file| CredentialSettings::RefreshToken { token_file }),
        "service-principal" => entra::read_service_principal(&mut section, places),
        "managed-identity" => entra::read_managed_identity(&mut section),
        "workload-identity" => entra::read_workload_identity(&mut section, places),
        "password" => {
            let username = read_username(&mut section);
            let password_file = read_secret_file(&mut section, "password_file", places);
            username
                .zip(password_file)
                .map(|(username, password_file)| CredentialSettings::Password { username, password_file })
        }
        other => {
            section.error("kind", unknown_kind(other));
            // What belongs to an unknown kind is unknown too: complaining about it would only hide the cause.
            return CredentialSettings::Anonymous;
        }
    };
    section.finish();
    credential.unwrap_or(CredentialSettings::Anonymous)
}

fn unknown_kind(kind: &str) -> String {
    match nearest(kind, &KINDS) {
        Some(near) => format!("kind '{kind}' is unknown: did you mean \"{near}\"?"),
        None => format!("kind '{kind}' is unknown: write one of {}", KINDS.join(", ")),
    }
}

fn read_username(section: &mut Section<'_>) -> Option<String> {
    let username = section.optional::<String>("username", "missing");
    let problem = match username.as_deref() {
        None if section.origin_of("username") == Origin::Default => "kind \"password\" needs a username: write one",
        None => return None,
        Some("") => "the username is empty: write one",
        // Basic authentication separates user and password with the first colon (RFC 7617).
        Some(name) if name.contains(':') || name.chars().any(char::is_control) => {
            "a username has no colon and no control character: write the name alone, the password belongs into password_file"
        }
        Some(_) => return username,
    };
    section.error("username", problem);
    None
}
