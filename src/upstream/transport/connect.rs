//! Opens connections: straight, through a forward proxy, or through its tunnel; with TLS where the address says so.

use super::inside::{AddressScope, Border};
use super::network::Network;
use super::origin::Origin;
use super::resolve::Resolver;
use super::tls;
use crate::config::Environment;
use crate::upstream::error::{ErrorKind, Failure, SetupError};
use http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::{Future, Ready, ready};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::vec::IntoIter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower_service::Service;

pub(in crate::upstream) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

pub(in crate::upstream) type Stream = TokioIo<Box<dyn Io>>;

/// An open connection on which requests may be written.
pub(in crate::upstream) struct Opened {
    pub(in crate::upstream) io: Stream,
    pub(in crate::upstream) route: Route,
    /// Who is at the other end; unknown through a proxy.
    pub(in crate::upstream) peer: Option<IpAddr>,
}

/// How requests on a connection are addressed.
#[derive(Clone)]
pub(in crate::upstream) enum Route {
    /// To the server itself.
    Direct,
    /// To a forward proxy, which wants whole URLs and perhaps a credential of its own.
    Forwarded(Option<HeaderValue>),
}

/// Opens connections within a time limit that spans name, TCP, proxy and TLS.
pub(in crate::upstream) struct Connector {
    tls: Trust,
    proxies: Matcher,
    tcp: HttpConnector<Resolver>,
    resolver: Resolver,
    border: Border,
    network: Network,
    /// A host, and what is dialled for it.
    told: Option<(Origin, Vec<SocketAddr>)>,
    limit: Duration,
}

/// How TLS is spoken; or why it cannot be, as long as nobody needs it.
type Trust = Result<Arc<ClientConfig>, Arc<str>>;

impl Connector {
    pub(in crate::upstream) fn new(
        upstream: &str,
        ca_file: Option<&Path>,
        environment: &Environment,
        resolver: Resolver,
        border: Border,
        limit: Duration,
    ) -> Result<Self, SetupError> {
        let tcp = connector(resolver.clone());
        let proxies = proxies(upstream, environment)?;
        let tls = match tls::config(upstream, ca_file, environment) {
            // An upstream without TLS needs nobody to trust, until something leads from it to a host with TLS.
            Err(error @ SetupError::NoRoots { .. }) if !border.own().https => Err(error.to_string().into()),
            config => Ok(config?),
        };
        let network = Network::new(&[], []);
        Ok(Self { tls, proxies, tcp, resolver, border, network, told: None, limit })
    }

    /// The same, which knows larder's own addresses.
    pub(in crate::upstream) fn within(self, network: &Network) -> Self {
        Self { network: network.clone(), ..self }
    }

    /// The same, which dials these addresses for a host instead of asking for its name.
    pub(in crate::upstream) fn dialling(self, origin: &Origin, addresses: Vec<SocketAddr>) -> Self {
        Self { told: (!addresses.is_empty()).then(|| (origin.clone(), addresses)), ..self }
    }

    pub(in crate::upstream) fn border(&self) -> &Border {
        &self.border
    }

    /// A new connection to `origin`.
    pub(in crate::upstream) async fn open(&self, origin: &Origin, scope: AddressScope) -> Result<Opened, Failure> {
        let opened = tokio::time::timeout(self.limit, self.route(origin, scope)).await;
        opened.unwrap_or_else(|_| {
            let limit = self.limit.as_secs_f32();
            let reason = format!("no connection to {origin} within {limit} s; check name, route, firewall and proxy");
            Err(Failure::new(ErrorKind::Timeout, reason))
        })
    }

    async fn route(&self, origin: &Origin, scope: AddressScope) -> Result<Opened, Failure> {
        let unreachable = |reason: String| Failure::new(ErrorKind::Unreachable, reason);
        let url: Uri = format!("{origin:?}/").parse().map_err(|_| unreachable(format!("'{origin}' is no address")))?;
        let Some(proxy) = self.proxies.intercept(&url) else {
            let tcp = match (&self.told, scope) {
                // The operator has said where the host is.
                (Some((host, addresses)), _) if host == origin => self.dial_told(origin, addresses).await?,
                (_, AddressScope::Anywhere) => dial(&self.tcp, url, origin).await?,
                (_, AddressScope::Outside(setting)) => {
                    let addresses = self.judged(origin, setting).await?;
                    dial(&connector(Known(addresses)), url, origin).await?
                }
            };
            let peer = tcp.peer_addr().ok();
            if let Some(address) = peer.filter(|address| self.network.is_own(*address)) {
                let remedy = "give its real address in connect, or a name server that knows it in [network] dns";
                let reason = format!("{origin} leads to {address}, which is larder itself: {remedy}");
                return Err(Failure::foreign(reason));
            }
            let peer = peer.map(|peer| peer.ip());
            return Ok(Opened { io: self.secured(Box::new(tcp), origin).await?, route: Route::Direct, peer });
        };
        if let AddressScope::Outside(setting) = scope {
            self.locate().await;
            self.border.judge_text(origin, setting)?;
        }
        let name = proxy_name(&proxy);
        let refused = |error: String| unreachable(format!("no connection to {origin} through proxy {name}: {error}"));
        let mut to_proxy = ToProxy { tcp: self.tcp.clone(), tls: self.tls.clone() };
        let credential = proxy.basic_auth().cloned();
        if !origin.https {
            let io = to_proxy.call(proxy.uri().clone()).await.map_err(|error| refused(chain(&*error)))?;
            return Ok(Opened { io, route: Route::Forwarded(credential), peer: None });
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), to_proxy);
        if let Some(credential) = credential {
            tunnel = tunnel.with_auth(credential);
        }
        let through = format!("https://{}:{}/", bracketed(&origin.host), origin.port);
        let through = through.parse().map_err(|_| unreachable(format!("'{origin}' is no address")))?;
        let io = tunnel.call(through).await.map_err(|error| refused(in_words(&chain(&error))))?;
        let io = self
            .secured(io.into_inner(), origin)
            .await
            .map_err(|failure| Failure { reason: format!("{} (through proxy {name})", failure.reason), ..failure })?;
        Ok(Opened { io, route: Route::Direct, peer: None })
    }

    /// The first of the addresses that takes a connection; each has its part of the time.
    async fn dial_told(&self, origin: &Origin, addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
        let part = self.limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let mut problems = Vec::new();
        for address in addresses {
            match tokio::time::timeout(part, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // As for connections by name; a socket that refuses is already broken.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => problems.push(format!("{address}: {error}")),
                Err(_) => problems.push(format!("{address}: no answer within {} s", part.as_secs_f32())),
            }
        }
        let reason =
            format!("no connection to {origin}: none of its connect addresses answers ({})", problems.join("; "));
        Err(Failure::new(ErrorKind::Unreachable, reason))
    }

    /// The addresses of a host that an answer has named. Each is checked, and only these are dialled.
    async fn judged(&self, origin: &Origin, setting: &str) -> Result<Vec<SocketAddr>, Failure> {
        self.locate().await;
        let unreachable =
            |reason: &str| Failure::new(ErrorKind::Unreachable, format!("no connection to {origin}: {reason}"));
        let addresses = if let Ok(address) = origin.host.parse::<IpAddr>() {
            vec![SocketAddr::new(address, origin.port)]
        } else {
            let name: Name = origin.host.parse().map_err(|_| unreachable("its name cannot be looked up"))?;
            let found = self.resolver.clone().call(name).await;
            found.map_err(|error| unreachable(&format!("dns error: {error}")))?.collect()
        };
        for address in &addresses {
            self.border.judge(origin, setting, address.ip())?;
        }
        Ok(addresses)
    }

    /// Finds out where the upstream itself is, if it has not been asked since larder began: an upload may continue after a restart.
    async fn locate(&self) {
        if self.border.is_located() {
            return;
        }
        let own = self.border.own();
        if let Ok(opened) = Box::pin(self.route(own, AddressScope::Anywhere)).await {
            self.border.answered(own, opened.peer);
        }
    }

    async fn secured(&self, io: Box<dyn Io>, origin: &Origin) -> Result<Stream, Failure> {
        if !origin.https {
            return Ok(TokioIo::new(io));
        }
        let io = handshake(&self.tls, &origin.host, io).await;
        let io = io.map_err(|error| {
            Failure::new(ErrorKind::Tls, format!("TLS with {origin} failed: {}", tls::explain(&error)))
        })?;
        Ok(TokioIo::new(io))
    }
}

fn connector<R>(resolver: R) -> HttpConnector<R> {
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(Duration::from_secs(60)));
    tcp
}

async fn dial<R>(tcp: &HttpConnector<R>, url: Uri, origin: &Origin) -> Result<TcpStream, Failure>
where
    HttpConnector<R>: Service<Uri, Response = TokioIo<TcpStream>> + Clone,
    <HttpConnector<R> as Service<Uri>>::Error: StdError + 'static,
{
    let dialled = tcp.clone().call(url).await;
    dialled
        .map(TokioIo::into_inner)
        .map_err(|error| Failure::new(ErrorKind::Unreachable, format!("no connection to {origin}: {}", chain(&error))))
}

/// A name whose addresses are known.
#[derive(Clone)]
struct Known(Vec<SocketAddr>);

impl Service<Name> for Known {
    type Response = IntoIter<SocketAddr>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(self.0.clone().into_iter()))
    }
}

async fn handshake(tls: &Trust, host: &str, io: Box<dyn Io>) -> std::io::Result<Box<dyn Io>> {
    let tls = tls.as_ref().map_err(|none| std::io::Error::other(rustls::Error::General(none.to_string())))?;
    let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
    Ok(Box::new(TlsConnector::from(Arc::clone(tls)).connect(name, io).await?))
}

fn proxies(upstream: &str, environment: &Environment) -> Result<Matcher, SetupError> {
    let text = |upper: &str, lower: &str| environment.first(&[upper, lower]).unwrap_or_default().to_owned();
    let matcher = Matcher::builder()
        .all(text("ALL_PROXY", "all_proxy"))
        .http(text("HTTP_PROXY", "http_proxy"))
        .https(text("HTTPS_PROXY", "https_proxy"))
        .no(text("NO_PROXY", "no_proxy"))
        .build();
    let unfiltered = Matcher::builder()
        .all(text("ALL_PROXY", "all_proxy"))
        .http(text("HTTP_PROXY", "http_proxy"))
        .https(text("HTTPS_PROXY", "https_proxy"))
        .build();
    for scheme in ["http://upstream.invalid/", "https://upstream.invalid/"] {
        let proxy = unfiltered.intercept(&Uri::from_static(scheme));
        if let Some(proxy) = proxy.filter(|proxy| !matches!(proxy.uri().scheme_str(), Some("http" | "https"))) {
            return Err(SetupError::Proxy { upstream: upstream.to_owned(), proxy: proxy_name(&proxy) });
        }
    }
    Ok(matcher)
}

/// The proxy's address without its credential.
fn proxy_name(proxy: &Intercept) -> String {
    let uri = proxy.uri();
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or_default())
}

/// What the tunnel's own words for an answer to `CONNECT` mean for an operator.
fn in_words(error: &str) -> String {
    let advice = match error {
        _ if error.contains("authorization required") => "it wants a login; write it into HTTPS_PROXY",
        _ if error.contains("unsuccessful") => "it refuses the tunnel; its rules or its log say why",
        _ => return error.to_owned(),
    };
    format!("{advice} ({error})")
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// An error with its causes: connectors put the useful part last.
pub(in crate::upstream) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Connects to a proxy, which may itself want TLS.
struct ToProxy {
    tcp: HttpConnector<Resolver>,
    tls: Trust,
}

impl Service<Uri> for ToProxy {
    type Response = Stream;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, proxy: Uri) -> Self::Future {
        let (mut tcp, tls) = (self.tcp.clone(), self.tls.clone());
        Box::pin(async move {
            let io: Box<dyn Io> = Box::new(tcp.call(proxy.clone()).await?.into_inner());
            if proxy.scheme_str() != Some("https") {
                return Ok(TokioIo::new(io));
            }
            let host = proxy.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            let io =
                handshake(&tls, host, io).await.map_err(|error| format!("TLS failed: {}", tls::explain(&error)))?;
            Ok(TokioIo::new(io))
        })
    }
}
