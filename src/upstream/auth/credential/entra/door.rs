use crate::config::Environment;
use crate::oci::Registry;
use crate::telemetry::Metrics;
use crate::upstream::error::{ErrorKind, Failure, SetupError};
use crate::upstream::limits::op::ConnectionClass;
use crate::upstream::transport::body::Body;
use crate::upstream::transport::connect::Connector;
use crate::upstream::transport::inside::{AddressScope, Border};
use crate::upstream::transport::origin::Origin;
use crate::upstream::transport::pool::{Outgoing, Pool, Turn};
use crate::upstream::transport::resolve::Resolver;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A busy machine's metadata service takes up to six seconds to accept a connection.
const CONNECT: Duration = Duration::from_secs(8);
/// How long an identity service may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Few ask at a time, and their answers are small.
const CONNECTIONS: usize = 2;
const AGENT: &str = concat!("larder/", env!("CARGO_PKG_VERSION"));
const MAX_ANSWER: usize = 64 << 10;

/// The way to identity services: to login hosts as to any other host, to this machine's own and the link's never by a proxy.
pub(in crate::upstream) struct Door {
    out: Pool,
    here: Pool,
    pub(super) name: Registry,
    pub(super) metrics: Arc<Metrics>,
}

/// An answer as it came.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) host: String,
    /// When it was asked for: what it says of times counts from there.
    pub(super) asked: Instant,
}

impl Door {
    pub(in crate::upstream) fn new(
        name: &Registry,
        registry: &Origin,
        ca_file: Option<&Path>,
        environment: &Environment,
        resolver: &Resolver,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, SetupError> {
        let is_proxy = |name: &str| name.to_ascii_lowercase().ends_with("_proxy");
        let straight: Environment = environment.iter().filter(|(name, _)| !is_proxy(name)).collect();
        let pool = |environment: &Environment| {
            // The operator has named the identity service, or it is the machine's own: no redirect leads there.
            let border = Border::new(name.as_str(), registry, &[], &[]);
            let connector = Connector::new(name.as_str(), ca_file, environment, resolver.clone(), border, CONNECT)?;
            Ok(Pool::new(connector, CONNECTIONS, ANSWER, ANSWER))
        };
        let (out, here) = (pool(environment)?, pool(&straight)?);
        Ok(Arc::new(Self { out, here, name: name.clone(), metrics }))
    }

    /// Sends one request and reads its answer whole. Redirects are not followed: no identity service has any.
    pub(super) async fn ask(&self, mut outgoing: Outgoing) -> Result<Reply, Failure> {
        let Some(origin) = Origin::of(&outgoing.url) else {
            return Err(Failure::foreign("the identity service's address is neither http:// nor https://"));
        };
        outgoing.headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        outgoing.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let asked = Instant::now();
        let pool = if is_near(&origin.host) { &self.here } else { &self.out };
        let turn = Turn { share: ConnectionClass::Small, admit: &|| Ok(()), again: None };
        let head = pool.send(&outgoing, (&origin, AddressScope::Anywhere), turn).await?;
        let (parts, incoming) = head.response.into_parts();
        let received = self.metrics.upstream_received_bytes.with_label_values(&[self.name.as_str()]);
        let body = Body::new(incoming, head.lease, ANSWER, received, origin.to_string());
        let body = body.collect(MAX_ANSWER).await.map_err(|failure| match failure.kind {
            // Too large for a token is something else, and says nothing about any content.
            ErrorKind::TooLarge => Failure::foreign(failure.reason),
            _ => failure,
        })?;
        Ok(Reply { status: parts.status, headers: parts.headers, body, host: origin.to_string(), asked })
    }
}

/// Whether the host is this machine or its link, as metadata services are.
fn is_near(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unicast_link_local(),
        Err(_) => host == "localhost",
    }
}

impl Reply {
    /// A header as text.
    pub(super) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::testing::{Server, bare, environment};

    #[tokio::test]
    async fn an_identity_services_answer_is_bounded() {
        let server = Server::start(|_| bare(200, &[], vec![b'x'; MAX_ANSWER + 1])).await;
        let failure = ask(&server).await.err().unwrap();
        assert_eq!(failure.kind, ErrorKind::Foreign, "{}", failure.reason);
    }

    #[tokio::test(start_paused = true)]
    async fn an_identity_service_that_says_nothing_has_its_limits() {
        let server = Server::start_async(|_| std::future::pending()).await;
        let begun = Instant::now();
        let failure = ask(&server).await.err().unwrap();
        assert_eq!(failure.kind, ErrorKind::Timeout, "{}", failure.reason);
        assert!(begun.elapsed() >= CONNECT && begun.elapsed() <= CONNECT + ANSWER, "{:?}", begun.elapsed());
    }

    async fn ask(server: &Server) -> Result<Reply, Failure> {
        let name = Registry::new("test.registry");
        let metrics = Arc::new(Metrics::new());
        // A proxy that is not there: what is near is not asked by it.
        let environment = environment().with("HTTP_PROXY", "http://127.0.0.1:1");
        let own = Origin::of(&server.url().parse().unwrap()).unwrap();
        let door = Door::new(&name, &own, None, &environment, &Resolver::of_system(), metrics).unwrap();
        let outgoing = Outgoing {
            method: http::Method::GET,
            url: server.url().parse().unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        door.ask(outgoing).await
    }

    #[test]
    fn metadata_services_are_near_and_login_hosts_are_not() {
        for host in ["169.254.169.254", "127.0.0.1", "::1", "localhost"] {
            assert!(is_near(host), "{host}");
        }
        for host in ["login.microsoftonline.com", "10.0.0.1", "localhost.evil.com"] {
            assert!(!is_near(host), "{host}");
        }
    }
}
