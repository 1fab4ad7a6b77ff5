//! What the tables of the file say about each other: an upstream that is larder itself, patterns that name no upstream.

use super::choices::Listen;
use super::credential::CredentialSettings;
use super::reader::Reader;
use super::settings::Settings;
use super::upstreams::UpstreamSettings;
use http::Uri;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Checks all of it.
pub(super) fn check_across(reader: &mut Reader, settings: &Settings) {
    check_loops(reader, settings);
    check_asking(reader, settings);
    let rules = settings.access.rules.iter().enumerate();
    let rules: Vec<_> = rules
        .flat_map(|(index, rule)| {
            rule.repositories.iter().map(move |pattern| (format!("access.rules.{index}"), pattern.as_str()))
        })
        .collect();
    let pins = settings.store.pin.iter().map(|pin| ("store.pin".to_owned(), pin.as_str()));
    let doubtful = rules.into_iter().chain(pins).filter_map(|(key, pattern)| {
        let problem = names_nothing(pattern, &settings.upstreams)?;
        Some(format!("{key}: '{pattern}' matches nothing, since {problem}"))
    });
    reader.warnings.extend(doubtful);
}

/// An upstream that larder reads anonymously shows the same to all callers: larder cannot ask it about a caller, and would believe any name.
fn check_asking(reader: &mut Reader, settings: &Settings) {
    if !settings.access.ask_upstream {
        return check_callers(reader, settings);
    }
    for (index, upstream) in settings.upstreams.iter().enumerate() {
        if upstream.credential == CredentialSettings::Anonymous {
            let path = format!("upstream.{index}");
            let message = format!(
                "ask_upstream is on, and upstream {} is read anonymously, so that there is nothing to ask it about callers: give it a \
                 credential ([upstream.credential], or --login), or set ask_upstream = false",
                upstream.name
            );
            let origin = reader.origin_of("access", "ask_upstream");
            reader.error(origin, &format!("{path}.credential"), message);
        }
    }
}

/// Nobody has a credential to show where none is looked at.
fn check_callers(reader: &mut Reader, settings: &Settings) {
    for (index, upstream) in settings.upstreams.iter().enumerate() {
        if upstream.credential == CredentialSettings::Caller {
            let path = format!("upstream.{index}.credential");
            let origin = reader.origin_of(&path, "kind");
            let message =
                "kind \"caller\" needs callers who show a credential: write ask_upstream = true into [access]";
            reader.error(origin, &format!("{path}.kind"), message);
        }
    }
}

/// Why no repository can be meant by a pattern, which begins with an upstream's own name.
fn names_nothing(pattern: &str, upstreams: &[UpstreamSettings]) -> Option<String> {
    let (first, rest) = pattern.split_once('/')?;
    if first.contains('*') || upstreams.iter().any(|upstream| upstream.name.as_str() == first) {
        return None;
    }
    Some(match upstreams.iter().find(|upstream| upstream.aliases.iter().any(|alias| alias == first)) {
        Some(upstream) => format!("{first} is an alias: write {}/{rest}", upstream.name),
        None => format!("no upstream is named {first}"),
    })
}

/// An upstream at one of larder's own addresses would have larder ask itself for ever.
fn check_loops(reader: &mut Reader, settings: &Settings) {
    for (index, upstream) in settings.upstreams.iter().enumerate() {
        for address in &upstream.connect {
            let own =
                settings.server.listen.iter().find(|listen| listen.address().is_some_and(|own| is_own(*address, own)));
            if let Some(own) = own {
                let path = format!("upstream.{index}");
                let message = format!(
                    "{address} is larder itself, which listens on {}: write the registry's real address",
                    own.shown()
                );
                let origin = reader.origin_of(&path, "connect");
                reader.error(origin, &format!("{path}.connect"), message);
            }
        }
        let own_url = upstream.connect.is_empty().then_some(("url", &upstream.url));
        let addresses = own_url.into_iter().chain(upstream.mirrors.iter().map(|url| ("mirrors", url)));
        for (key, url) in addresses {
            if let Some(own) = settings.server.listen.iter().find(|listen| leads_to(url, listen)) {
                let path = format!("upstream.{index}");
                let message = format!(
                    "{url} is larder itself, which listens on {}: write the registry's address, or have larder listen elsewhere",
                    own.shown()
                );
                let origin = reader.origin_of(&path, key);
                reader.error(origin, &format!("{path}.{key}"), message);
            }
        }
    }
}

fn leads_to(url: &Uri, listen: &Listen) -> bool {
    let Some(own) = listen.address() else { return false };
    let Some(host) = url.host() else { return false };
    let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 });
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_own = |address: IpAddr| is_own(SocketAddr::new(address, port), own);
    match host.parse::<IpAddr>() {
        Ok(address) => is_own(address),
        Err(_) => {
            host.eq_ignore_ascii_case("localhost")
                && (is_own(Ipv4Addr::LOCALHOST.into()) || is_own(Ipv6Addr::LOCALHOST.into()))
        }
    }
}

/// Port 0 is any that is free, and so none that an upstream has. Which other addresses an unspecified one stands for is not known.
fn is_own(asked: SocketAddr, own: SocketAddr) -> bool {
    own.port() != 0
        && own.port() == asked.port()
        && (own.ip() == asked.ip() || own.ip().is_unspecified() && asked.ip().is_loopback())
}
