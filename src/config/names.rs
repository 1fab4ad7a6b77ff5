//! Names of hosts and upstreams, and the addresses of upstreams.

use crate::oci::{DOCKER_HUB, Registry};
use http::Uri;

/// Where Docker Hub's registry answers.
const HUB: &str = "https://registry-1.docker.io";

pub(super) fn parse_upstream_name(text: &str) -> Result<Registry, String> {
    let name = parse_host(text)?;
    if is_loopback(&name) || name.ends_with(".localhost") {
        // A request to larder under a loopback name without a port would be taken for one to that upstream.
        return Err(format!(
            "an upstream named '{name}' would be meant by every request to larder at {name}: write another name, such as \
             name = \"registry.local\", and the address into url = \"http://{name}\""
        ));
    }
    Ok(Registry::new(&name))
}

/// The address of an upstream that has only a name. References say docker.io; the registry behind them answers elsewhere.
pub(super) fn default_url(name: &str) -> String {
    if DOCKER_HUB.contains(&name) { HUB.to_owned() } else { format!("https://{name}") }
}

pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Whether an address is Docker Hub's by the name that people know, at which there are web pages.
fn is_hub(url: &Uri) -> bool {
    let port = url.port_u16().is_none_or(|port| port == 443);
    port && url.scheme_str() == Some("https") && url.host().is_some_and(|host| DOCKER_HUB.contains(&host))
}

/// The base of a service, to which the paths of its protocol are added.
pub(super) fn parse_base(text: &str, example: &str) -> Result<Uri, String> {
    let advice = format!("write scheme and host, such as {example}");
    let uri: Uri = text.parse().map_err(|_| format!("'{text}' is not a url: {advice}"))?;
    let scheme = uri.scheme_str().unwrap_or_default();
    let Some(host) = uri.host().filter(|_| matches!(scheme, "http" | "https") && !text.contains('@')) else {
        return Err(format!("this is not an address that can be asked: {advice}"));
    };
    if scheme == "http" && !is_loopback(host) {
        return Err(format!(
            "'{text}' is plain http, which would show tokens and secrets to the network: write https, http is for loopback \
             addresses only"
        ));
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err(format!("'{text}' has a path: larder adds the paths of the protocol itself; {advice}"));
    }
    Ok(uri)
}

/// The form of `host` or `host:port` that names are compared in, or why it is none.
pub(super) fn parse_host(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    let (host, port) = match lower.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (lower.as_str(), None),
    };
    let advice = "write a host name, with a port if it needs one, such as myacr.azurecr.io or registry.lan:5000";
    if text.contains('/') {
        return Err(format!("'{}' is not a host: {advice}", without_userinfo(text)));
    }
    if port.is_some_and(|port| port.parse::<u16>().ok().is_none_or(|port| port == 0)) {
        return Err(format!("'{}' has no valid port: {advice}", without_userinfo(text)));
    }
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match literal {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_host_name(host),
    };
    if good { Ok(lower) } else { Err(format!("'{}' is not a host: {advice}", without_userinfo(text))) }
}

fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= 253 && host.split('.').all(label)
}

/// A registry's address: scheme and authority, nothing else. Nothing of a user or password in it is repeated.
///
/// # Errors
/// What is wrong with it and what to write instead.
pub fn parse_url(text: &str) -> Result<Uri, String> {
    let advice = "write scheme and host, such as https://myacr.azurecr.io";
    if text.contains('@') {
        return Err(format!(
            "a user or password does not belong into a url: {advice}, and put the login into the credential"
        ));
    }
    // A query may hold a key.
    let whole = text;
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let uri: Uri = whole.parse().map_err(|_| format!("'{text}' is not a url: {advice}"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(format!("'{text}' is not a url: {advice}"));
    };
    if scheme != "https" && scheme != "http" {
        return Err(format!("url '{text}' has the scheme {scheme}: https and http are spoken; {advice}"));
    }
    if uri.path() != "/" || uri.query().is_some() || whole.contains('#') {
        return Err(format!(
            "url '{text}' has a path or a query: a registry stands at the root of its host; write {scheme}://{authority}"
        ));
    }
    let authority = parse_host(authority.as_str())?;
    let built = Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build();
    let url = built.map_err(|_| format!("'{text}' is not a url: {advice}"))?;
    Ok(if is_hub(&url) { Uri::from_static(HUB) } else { url })
}

/// `scheme://authority`, as people write it.
pub(super) fn show_url(uri: &Uri) -> String {
    uri.to_string().trim_end_matches('/').to_owned()
}

/// An alias stands as the first component of a path and in `ns`.
pub(super) fn parse_alias(text: &str) -> Result<String, String> {
    if text.contains([':', '/']) {
        return Err(format!("alias '{text}' has a colon or slash: an alias is one path component, such as acr"));
    }
    match text.parse::<crate::oci::Name>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!(
            "'{text}' is not an alias: write lower-case letters, digits and single . _ - between them, such as acr"
        )),
    }
}

/// A pattern of tags: the characters of tags and `*`.
pub(super) fn parse_tag_pattern(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._-*".contains(&b);
    if !text.is_empty() && text.len() <= 256 && text.bytes().all(good) && !text.starts_with(['.', '-']) {
        return Ok(text.to_owned());
    }
    Err(format!("'{text}' is not a pattern of tags: write the characters of a tag, and * for any of them, such as v*"))
}

/// `text` without what stands before an `@` or after a `?`, for messages.
fn without_userinfo(text: &str) -> &str {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    text.rsplit_once('@').map_or(text, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_lower_case_with_an_optional_port() {
        for (text, host) in [
            ("MyACR.azurecr.io", "myacr.azurecr.io"),
            ("127.0.0.1:5555", "127.0.0.1:5555"),
            ("[::1]:5000", "[::1]:5000"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(parse_host(text).as_deref(), Ok(host));
        }
        for text in ["", "a b", "host:", "host:99999", "host:0", "-a", "a..b", "a/b", "::1", "[x]:1", "user:pw@host"] {
            assert!(parse_host(text).is_err(), "{text}");
        }
        assert!(!parse_host("user:hunter2@ho st").unwrap_err().contains("hunter2"));
    }

    #[test]
    fn urls_are_scheme_and_authority() {
        assert_eq!(show_url(&parse_url("http://127.0.0.1:5555").unwrap()), "http://127.0.0.1:5555");
        assert_eq!(show_url(&parse_url("https://MyAcr.azurecr.io/").unwrap()), "https://myacr.azurecr.io");
        for text in
            ["myacr.azurecr.io", "ftp://a", "https://a/v2", "https://a?b", "https://", "https://a b", "https://a/#x"]
        {
            assert!(parse_url(text).is_err(), "{text}");
        }
        for text in [
            "https://ci:hunter2@a",
            "https://a/?sig=hunter2",
            "https://a b?hunter2",
            "ftp://a?hunter2",
            "https://a/#hunter2",
        ] {
            assert!(!parse_url(text).unwrap_err().contains("hunter2"), "{text}");
        }
        assert!(!parse_host("https://a?hunter2").unwrap_err().contains("hunter2"));
    }

    #[test]
    fn aliases_and_patterns_fit_where_they_stand() {
        assert!(parse_alias("acr").is_ok() && parse_alias("docker.io").is_ok());
        for text in ["", "a:b", "a/b", "A", "_x"] {
            assert!(parse_alias(text).is_err(), "{text}");
        }
        assert!(parse_tag_pattern("v*").is_ok() && parse_tag_pattern("*").is_ok());
        for text in ["", "a/b", "v[0-9]", "-x", "a b"] {
            assert!(parse_tag_pattern(text).is_err(), "{text}");
        }
    }
}
