//! The parsers of settings: each says how a value is read, how it is written, and what to write instead of a wrong one.

use super::environment::Environment;
use super::names::{parse_alias, parse_base, parse_host, parse_tag_pattern, parse_upstream_name, parse_url, show_url};
use super::origin::Origin;
use super::reader::{Reading, Setting};
use super::secret::{read_secret, secret_path};
use super::signing::SigningCertificate;
use super::tree::{Node, Value};
use crate::oci::{Registry, RepositoryPattern};
use http::Uri;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// A text as TOML.
pub(super) fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The string of a node, or the complaint that there is none.
fn string(node: &Node, expected: &str, at: &mut Reading<'_>) -> Option<String> {
    match (&node.value, &node.text) {
        (Value::String(text), _) => Some(text.clone()),
        (Value::Array(_) | Value::Table(_), _) | (_, None) => {
            at.wrong(node, format!("found {}: {expected}", node.found()));
            None
        }
        (_, Some(text)) => Some(text.clone()),
    }
}

/// A string of a node that has a form of its own.
pub(super) fn parsed<T>(
    node: &Node,
    expected: &str,
    at: &mut Reading<'_>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    let text = string(node, expected, at)?;
    parse(&text).map_err(|message| at.wrong(node, message)).ok()
}

/// Parsers of texts: what is expected, how a text is read, and how a value is written.
macro_rules! texts {
    ($($(#[doc = $doc:literal])+ $Name:ident: $Value:ty, $expected:expr, $parse:expr, $show:expr;)+) => {$(
        $(#[doc = $doc])+
        pub(super) struct $Name;

        impl Setting for $Name {
            type Value = $Value;
            fn read(node: &Node, at: &mut Reading<'_>) -> Option<$Value> {
                parsed(node, $expected, at, $parse)
            }
            fn show(value: &$Value) -> String {
                let show: fn(&$Value) -> String = $show;
                quote(&show(value))
            }
        }
    )+};
}

const A_TEXT: &str = "write a text in double quotes";
const A_LOGIN_HOST: &str = "https://login.microsoftonline.com";
const A_METADATA_SERVICE: &str = "http://127.0.0.1:40342";

texts! {
    /// `host` or `host:port`.
    Host: String, A_TEXT, parse_host, String::clone;
    /// A host's name without a port.
    BareHost: String, A_TEXT, parse_bare_host, String::clone;
    /// An upstream's name.
    RegistryName: Registry, A_TEXT, parse_upstream_name, ToString::to_string;
    /// Scheme and host of a registry.
    RegistryUrl: Uri, A_TEXT, parse_url, show_url;
    /// Another name of an upstream.
    Alias: String, A_TEXT, parse_alias, String::clone;
    /// A pattern of tags.
    TagPattern: String, A_TEXT, parse_tag_pattern, String::clone;
    /// An address that can be dialled; port 0 where none is written.
    Address: SocketAddr, A_TEXT, parse_target, show_target;
    /// A pattern of upstreams' repositories in a rule of access.
    RulePattern: RepositoryPattern, A_TEXT, parse_rule_pattern, |pattern| pattern.as_str().to_owned();
    /// A pattern of one upstream's repositories.
    OwnPattern: RepositoryPattern, A_TEXT, parse_own_pattern, |pattern| pattern.as_str().to_owned();
    /// A pattern of repositories that are never evicted.
    Pin: String, A_TEXT, parse_pin, String::clone;
    /// The user of a password.
    UserName: String, A_TEXT, parse_user_name, String::clone;
    /// An id that Azure gives.
    AzureId: String, A_TEXT, parse_id, String::clone;
    /// The path of an Azure resource.
    ResourceId: String, A_TEXT, parse_resource_id, String::clone;
    /// The base of a login host.
    LoginHost: Uri, A_TEXT, |text| parse_base(text, A_LOGIN_HOST), ToString::to_string;
    /// The base of a metadata service.
    MetadataService: Uri, A_TEXT, |text| parse_base(text, A_METADATA_SERVICE), ToString::to_string;
}

/// The base of a login host.
///
/// # Errors
/// What is wrong with it and what to write instead.
pub fn parse_authority(text: &str) -> Result<Uri, String> {
    parse_base(text, A_LOGIN_HOST)
}

fn parse_bare_host(text: &str) -> Result<String, String> {
    match parse_host(text)? {
        host if host.contains(':') => Err(format!("name '{text}' has a port: write the host alone")),
        host => Ok(host),
    }
}

fn parse_target(text: &str) -> Result<SocketAddr, String> {
    let ip = text.trim_start_matches('[').trim_end_matches(']').parse().map(|ip| SocketAddr::new(ip, 0));
    let address = text.parse().ok().filter(|address: &SocketAddr| address.port() != 0).or(ip.ok());
    address.filter(|address| !address.ip().is_unspecified()).ok_or_else(|| {
        format!(r#"'{text}' is no address that could be asked: write an IP address, such as "10.0.0.53", with a port if it has another"#)
    })
}

fn show_target(address: &SocketAddr) -> String {
    if address.port() == 0 { address.ip().to_string() } else { address.to_string() }
}

fn names_tag_or_digest(pattern: &str) -> bool {
    pattern.rsplit('/').next().is_some_and(|last| last.contains([':', '@']))
}

fn parse_rule_pattern(text: &str) -> Result<RepositoryPattern, String> {
    if text.contains('/') || text.contains("**") {
        return Ok(RepositoryPattern::new(text));
    }
    Err(format!("'{text}' matches no repository: {RULE_ADVICE}"))
}

/// What to write into `repositories` of a rule of access.
pub(super) const RULE_ADVICE: &str =
    r#"write upstream and repository, such as "myacr.azurecr.io/samples/**", or "**" for all"#;
/// What to write into `repositories` of a rule of freshness.
pub(super) const OWN_ADVICE: &str = r#"write repositories of this upstream, such as "base/**""#;

fn parse_own_pattern(text: &str) -> Result<RepositoryPattern, String> {
    if names_tag_or_digest(text) {
        return Err(format!("'{text}' names a tag or a digest, and rules are for whole repositories: {OWN_ADVICE}"));
    }
    Ok(RepositoryPattern::new(text))
}

fn parse_pin(text: &str) -> Result<String, String> {
    let advice = r#"write upstream and repository, such as "myacr.azurecr.io/base/**""#;
    if names_tag_or_digest(text) {
        return Err(format!("'{text}' names a tag or a digest, and whole repositories are pinned: {advice}"));
    }
    if !text.contains('/') && !text.contains("**") {
        return Err(format!("'{text}' matches no repository: {advice}"));
    }
    Ok(text.to_owned())
}

fn parse_user_name(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("the username is empty: write one".to_owned());
    }
    // Basic authentication separates user and password with the first colon (RFC 7617).
    if text.contains(':') || text.chars().any(char::is_control) {
        return Err(
            "a username has no colon and no control character: write the name alone, the password belongs into \
                    password_file"
                .to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// Ids become part of paths and forms: a character that no id has is a mistake that Entra's own words would hide.
fn parse_id(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        return Ok(text.to_owned());
    }
    Err(format!("'{text}' is no id: write it as Azure shows it, such as 11111111-2222-3333-4444-555555555555"))
}

fn parse_resource_id(text: &str) -> Result<String, String> {
    if text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    let advice = "write /subscriptions/…/providers/Microsoft.ManagedIdentity/userAssignedIdentities/NAME";
    Err(format!("'{text}' is no resource id: {advice}"))
}

/// Parsers of paths. A relative path in the file is relative to the file's folder, another one to the current folder.
macro_rules! paths {
    ($($(#[doc = $doc:literal])+ $Name:ident: $resolve:expr, $check:expr;)+) => {$(
        $(#[doc = $doc])+
        pub(super) struct $Name;

        impl Setting for $Name {
            type Value = PathBuf;
            fn read(node: &Node, at: &mut Reading<'_>) -> Option<PathBuf> {
                let path = PathBuf::read(node, at)?;
                let written = parsed(node, A_TEXT, at, |text| Ok(PathBuf::from(text)))?;
                let resolve: fn(&Path, PathBuf, &Environment, &Path) -> PathBuf = $resolve;
                let path = resolve(&written, path, &at.places.environment, &base_of(&node.origin, &at.places.here));
                let check: fn(&Path) -> Result<(), String> = $check;
                check(&path).map_err(|message| at.wrong(node, message)).ok()?;
                Some(path)
            }
            fn show(value: &PathBuf) -> String {
                PathBuf::show(value)
            }
        }
    )+};
}

paths! {
    /// A file that must be there, and is no secret.
    ReadableFile: |_, path, _, _| path, |path| match std::fs::File::open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("cannot open {}: {error}: correct the path or let this user read it", path.display())),
    };
    /// A file that is sought where secrets are; whether it can be used is seen elsewhere.
    PrivateFile: |written, _, environment, base| secret_path(written, environment, base), |_| Ok(());
    /// A secret that must be there. It is looked at and forgotten.
    SecretFile: |written, _, environment, base| secret_path(written, environment, base),
        |path| read_secret(path).map(drop).map_err(|error| error.to_string());
    /// The key and certificate of an application.
    SigningFile: |written, _, environment, base| secret_path(written, environment, base),
        |path| SigningCertificate::read(path).map(drop);
}

/// The folder that a relative path belongs to.
fn base_of(origin: &Origin, here: &Path) -> PathBuf {
    match origin {
        Origin::File { file, .. } => here.join(file.parent().unwrap_or(Path::new(""))),
        _ => here.to_owned(),
    }
}

impl Setting for PathBuf {
    type Value = Self;
    fn read(node: &Node, at: &mut Reading<'_>) -> Option<Self> {
        let path = parsed(node, "write a path in double quotes", at, |text| match text {
            "" => Err("the path is empty: write one, or remove the key".to_owned()),
            _ => Ok(Self::from(text)),
        })?;
        Some(base_of(&node.origin, &at.places.here).join(path))
    }
    fn show(value: &Self) -> String {
        quote(&value.to_string_lossy())
    }
}

impl Setting for bool {
    type Value = Self;
    fn read(node: &Node, at: &mut Reading<'_>) -> Option<Self> {
        if let Value::Boolean(value) = node.value {
            return Some(value);
        }
        at.wrong(node, format!("found {}: write true or false, without quotes", node.found()));
        None
    }
    fn show(value: &Self) -> String {
        value.to_string()
    }
}

impl Setting for usize {
    type Value = Self;
    fn read(node: &Node, at: &mut Reading<'_>) -> Option<Self> {
        if let Value::Integer(number) = node.value
            && (1..=1_000_000_000).contains(&number)
        {
            return Self::try_from(number).ok();
        }
        at.wrong(node, format!("found {}: write a whole number from 1 to 1000000000, without quotes", node.found()));
        None
    }
    fn show(value: &Self) -> String {
        value.to_string()
    }
}

impl Setting for String {
    type Value = Self;
    fn read(node: &Node, at: &mut Reading<'_>) -> Option<Self> {
        string(node, A_TEXT, at)
    }
    fn show(value: &Self) -> String {
        quote(value)
    }
}

/// A list; every wrong item is reported.
pub(super) struct List<P>(PhantomData<P>);

impl<P: Setting> Setting for List<P> {
    type Value = Vec<P::Value>;
    fn read(node: &Node, at: &mut Reading<'_>) -> Option<Vec<P::Value>> {
        let Value::Array(items) = &node.value else {
            let found = node.found();
            let example = if found.starts_with('"') { found.clone() } else { format!("\"{found}\"") };
            at.wrong(node, format!("found {found}: write a list in square brackets, [{example}]"));
            return None;
        };
        let before = at.wrong.len();
        let values: Vec<P::Value> = items.iter().filter_map(|item| P::read(item, at)).collect();
        (at.wrong.len() == before).then_some(values)
    }
    fn show(value: &Vec<P::Value>) -> String {
        format!("[{}]", value.iter().map(P::show).collect::<Vec<_>>().join(", "))
    }
}

/// Groups of users, by their names.
pub(super) type Groups = BTreeMap<String, Vec<String>>;

impl Setting for Groups {
    type Value = Self;
    fn read(node: &Node, at: &mut Reading<'_>) -> Option<Self> {
        let Value::Table(table) = &node.value else {
            let advice = "write [access.groups] and below it lines such as builders = [\"ann\"]";
            at.wrong(node, format!("found {}: {advice}", node.found()));
            return None;
        };
        let group = |(name, (_, users)): (&String, &(_, Node))| Some((name.clone(), List::<String>::read(users, at)?));
        Some(table.0.iter().filter_map(group).collect())
    }
    fn show(value: &Self) -> String {
        let group =
            |(name, users): (&String, &Vec<String>)| format!("{} = {}", quote(name), List::<String>::show(users));
        format!("{{ {} }}", value.iter().map(group).collect::<Vec<_>>().join(", ")).replace("{  }", "{}")
    }
}

/// The users of a rule; `None`, written "*": every caller who is let in.
pub(super) struct Callers;

impl Setting for Callers {
    type Value = Option<Vec<String>>;
    fn read(node: &Node, at: &mut Reading<'_>) -> Option<Option<Vec<String>>> {
        List::<String>::read(node, at).map(Some)
    }
    fn show(value: &Option<Vec<String>>) -> String {
        value.as_ref().map_or_else(|| r#"["*"]"#.to_owned(), List::<String>::show)
    }
}

impl Setting for SocketAddr {
    type Value = Self;
    fn read(node: &Node, at: &mut Reading<'_>) -> Option<Self> {
        parsed(node, r#"write an address such as "127.0.0.1:5001""#, at, parse_address)
    }
    fn show(value: &Self) -> String {
        quote(&value.to_string())
    }
}

pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let numeric = text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    numeric.parse().map_err(|_| {
        let advice = match text.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("the port is missing, write \"[{ip}]:5000\""),
            Ok(ip) => format!("the port is missing, write \"{ip}:5000\""),
            Err(_) => r#"write an IP address and a port, such as "127.0.0.1:5000" or "[::1]:5000""#.to_owned(),
        };
        format!("'{text}' is not a listen address: {advice}")
    })
}

impl Setting for IpNet {
    type Value = Self;
    fn read(node: &Node, at: &mut Reading<'_>) -> Option<Self> {
        parsed(node, r#"write a network such as "10.0.0.0/8""#, at, |text| {
            if let Ok(address) = text.parse::<IpAddr>() {
                return Ok(Self::from(address));
            }
            let network: Self = text.parse().map_err(|_| {
                format!(r#"'{text}' is not a network: write one such as "10.0.0.0/8", or "0.0.0.0/0" and "::/0" for everybody"#)
            })?;
            if network == network.trunc() {
                return Ok(network);
            }
            Err(format!("network '{text}' has bits behind its prefix: write \"{}\"", network.trunc()))
        })
    }
    fn show(value: &Self) -> String {
        quote(&value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_say_what_is_missing() {
        assert_eq!(parse_address("localhost:5000"), Ok("127.0.0.1:5000".parse().unwrap()));
        assert!(parse_address("127.0.0.1").unwrap_err().contains("\"127.0.0.1:5000\""));
        assert!(parse_address("::1").unwrap_err().contains("\"[::1]:5000\""));
        assert!(parse_address("example.com:80").is_err());
    }
}
