//! Where larder is, as a client sees it, and how each upstream is named there.

use crate::config::{Listen, ServerSettings, UpstreamSettings, parse_url};
use http::Uri;
use std::fmt;

/// Larder's address, as a client dials it.
#[derive(Clone, Debug)]
pub(super) struct At(Uri);

impl At {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        parse_url(text)
            .map(Self)
            .map_err(|problem| format!("--at: {problem}").replace("myacr.azurecr.io", "larder.lan"))
    }

    /// The first listener that is no socket; loopback and "everywhere" are `localhost`, unless larder has another name.
    pub(super) fn of_listeners(server: &ServerSettings) -> Self {
        // A plain listener, where there is one, needs no certificate to be trusted.
        let listeners = || server.listen.iter().filter(|listen| listen.address().is_some());
        let plain = listeners().find(|listen| matches!(listen, Listen::Tcp(_)));
        let listen = plain.or_else(|| listeners().next());
        let address = listen.and_then(Listen::address);
        let scheme = if matches!(listen, Some(Listen::Tls(_))) { "https" } else { "http" };
        let port = address.map_or(5000, |address| address.port());
        let host = match address {
            Some(address) if !address.ip().is_loopback() && !address.ip().is_unspecified() => match address.ip() {
                std::net::IpAddr::V4(ip) => ip.to_string(),
                std::net::IpAddr::V6(ip) => format!("[{ip}]"),
            },
            Some(address) if address.ip().is_unspecified() && !server.names.is_empty() => server.names[0].clone(),
            _ => "localhost".to_owned(),
        };
        let uri = Uri::builder().scheme(scheme).authority(format!("{host}:{port}")).path_and_query("/").build();
        Self(uri.unwrap_or_else(|_| Uri::from_static("http://localhost:5000/")))
    }

    /// As a container on the same desktop reaches it.
    pub(super) fn in_container(self) -> Self {
        if !self.is_loopback() {
            return self;
        }
        let port = self.0.port_u16().map_or_else(String::new, |port| format!(":{port}"));
        let scheme = self.0.scheme_str().unwrap_or("http");
        let authority = format!("host.docker.internal{port}");
        Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build().map_or(self, Self)
    }

    pub(super) fn is_https(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    pub(super) fn is_loopback(&self) -> bool {
        let host = self.0.host().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    /// Whether it is named `localhost`, to which ORAS, Helm and notation speak plain HTTP without being told.
    pub(super) fn is_localhost(&self) -> bool {
        self.0.host() == Some("localhost")
    }

    /// `localhost:5000`
    pub(super) fn authority(&self) -> &str {
        self.0.authority().map_or("localhost:5000", http::uri::Authority::as_str)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_string().trim_end_matches('/'))
    }
}

/// An upstream, as clients name it.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// The registry's own name, as in references.
    pub(super) name: String,
    /// What stands for it in a path: its name, or an alias if the name has a port. `None`: it can be no part of a path.
    pub(super) component: Option<String>,
    /// A name without a dot, for clients that take one with a dot for a host.
    pub(super) dotless: Option<String>,
    /// Whether larder goes there when nothing is named.
    pub(super) default: bool,
}

impl Route {
    fn new(upstream: &UpstreamSettings) -> Self {
        let name = upstream.name.as_str().to_owned();
        let aliases = || upstream.aliases.iter();
        let component = if name.contains(':') { aliases().next().cloned() } else { Some(name.clone()) };
        let dotless = aliases().chain([&name]).find(|name| !name.contains(['.', ':'])).cloned();
        Self { name, component, dotless, default: upstream.default }
    }

    /// What stands for the upstream in a path.
    pub(super) fn component(&self) -> Result<&str, String> {
        let problem = || {
            format!(
                "upstream {0} has a port, which no path can name, and no alias: add aliases = [\"…\"] to it in larder's \
                 configuration",
                self.name
            )
        };
        self.component.as_deref().ok_or_else(problem)
    }

    /// The name of a folder for it, as containerd writes one: a colon would end a path on Windows.
    pub(super) fn folder(&self) -> String {
        self.name.rsplit_once(':').map_or_else(|| self.name.clone(), |(host, port)| format!("{host}_{port}_"))
    }
}

/// Everything that a guide is made of.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) at: At,
    /// The certificate authority in PEM, where larder's https needs one.
    pub(super) ca: Option<String>,
    pub(super) sealed: bool,
    pub(super) in_container: bool,
    pub(super) routes: Vec<Route>,
}

impl Site {
    /// The site with all upstreams, or those that `only` names.
    pub(super) fn new(
        at: At,
        ca: Option<String>,
        sealed: bool,
        in_container: bool,
        upstreams: &[UpstreamSettings],
        only: &[String],
    ) -> Result<Self, String> {
        for name in only {
            if !upstreams.iter().any(|upstream| is_called(upstream, name)) {
                let known: Vec<&str> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
                return Err(format!("no upstream is called '{name}'; configured: {}", known.join(", ")));
            }
        }
        let chosen = upstreams.iter().filter(|one| only.is_empty() || only.iter().any(|name| is_called(one, name)));
        Ok(Self { at, ca, sealed, in_container, routes: chosen.map(Route::new).collect() })
    }

    /// `localhost:5000/myacr.azurecr.io`: what replaces the registry in a reference.
    pub(super) fn base(&self, route: &Route) -> Result<String, String> {
        Ok(format!("{}/{}", self.at.authority(), route.component()?))
    }

    /// The flag, with a space before it, if larder's plain HTTP needs to be allowed and `unless` does not hold.
    pub(super) fn plain_http<'a>(&self, flag: &'a str, unless: bool) -> &'a str {
        if self.at.is_https() || unless { "" } else { flag }
    }
}

fn is_called(upstream: &UpstreamSettings, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    upstream.name.as_str() == name || upstream.aliases.contains(&name)
}
