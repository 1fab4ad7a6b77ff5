//! How names become addresses, and which addresses are larder's own: there it would ask itself for ever.

use super::dns;
use super::origin::Origin;
use super::resolve::Resolver;
use crate::config::{Limits, UpstreamSettings};
use crate::upstream::error::SetupError;
use crate::upstream::limits::documents::Documents;
use hyper_util::client::legacy::connect::dns::Name;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use tower_service::Service as _;

/// How long a start waits for a name, to see that it does not lead back here.
const LOOK: Duration = Duration::from_secs(1);

/// What all upstreams share of the network. A cheap clone.
#[derive(Clone)]
pub struct Network {
    pub(in crate::upstream) resolver: Resolver,
    pub(in crate::upstream) documents: Documents,
    own: Arc<[SocketAddr]>,
}

impl Network {
    /// Names are resolved by these servers, by the system if there are none; `own` is where larder listens.
    #[must_use]
    pub fn new(servers: &[SocketAddr], own: impl IntoIterator<Item = SocketAddr>) -> Self {
        let resolver = if servers.is_empty() {
            Resolver::of_system()
        } else {
            let servers = servers.to_vec();
            Resolver::with(move |name| dns::lookup(&servers, name))
        };
        Self { own: own.into_iter().collect(), ..Self::of(resolver) }
    }

    /// The same, with this much memory for the large documents that all of larder holds at once.
    #[must_use]
    pub fn with_documents(self, documents: Documents) -> Self {
        Self { documents, ..self }
    }

    pub(in crate::upstream) fn of(resolver: Resolver) -> Self {
        Self { resolver, documents: Documents::new(Limits::default().document_memory), own: Arc::default() }
    }

    /// Whether larder listens at this address.
    pub(in crate::upstream) fn is_own(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.own.iter().any(|own| {
            let listening = own.ip().to_canonical();
            // Only an address of this machine can be bound.
            own.port() == address.port()
                && (listening == ip
                    || listening.is_unspecified() && (ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()))
        })
    }

    /// An error if one of an upstream's addresses is larder's own. Names that cannot be looked up soon are left for later.
    pub async fn check(&self, settings: &UpstreamSettings) -> Result<(), SetupError> {
        for (url, connect) in std::iter::once((&settings.url, &settings.connect[..]))
            .chain(settings.mirrors.iter().map(|url| (url, &[][..])))
        {
            let Some(origin) = Origin::of(url) else { continue };
            let found = if connect.is_empty() { self.addresses(&origin).await } else { connect.to_vec() };
            if let Some(address) = found.into_iter().find(|address| self.is_own(*address)) {
                return Err(SetupError::Itself {
                    upstream: settings.name.to_string(),
                    origin: origin.to_string(),
                    address,
                });
            }
        }
        Ok(())
    }

    /// Where an upstream is, if larder listens on a port of that number at all.
    async fn addresses(&self, origin: &Origin) -> Vec<SocketAddr> {
        if !self.own.iter().any(|own| own.port() == origin.port) {
            return Vec::new();
        }
        let found = match (origin.host.parse(), origin.host.parse::<Name>()) {
            (Ok(ip), _) => vec![SocketAddr::new(ip, 0)],
            (_, Ok(name)) => {
                let found = tokio::time::timeout(LOOK, self.resolver.clone().call(name)).await;
                found.ok().and_then(Result::ok).map(Iterator::collect).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        found.into_iter().map(|address| SocketAddr::new(address.ip(), origin.port)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Registry;

    fn settings(url: &str) -> UpstreamSettings {
        UpstreamSettings::new(Registry::new("r.io"), url.parse().unwrap())
    }

    fn network(own: &[&str]) -> Network {
        let resolver = Resolver::with(|name| match name {
            "here.lan" => Ok(vec![([127, 0, 0, 1], 0).into()]),
            "elsewhere.lan" => Ok(vec![([192, 0, 2, 7], 0).into()]),
            _ => Err(std::io::Error::other("no such name")),
        });
        Network { own: own.iter().map(|own| own.parse().unwrap()).collect(), ..Network::of(resolver) }
    }

    #[tokio::test]
    async fn an_upstream_that_is_larder_itself_is_found_out_by_its_name() {
        for own in ["127.0.0.1:443", "0.0.0.0:443", "[::]:443"] {
            let network = network(&[own]);
            let error = network.check(&settings("https://here.lan")).await.unwrap_err().to_string();
            assert!(error.contains("larder itself") && error.contains("connect"), "{error}");
            for fine in ["https://elsewhere.lan", "https://gone.lan", "https://here.lan:444", "http://here.lan"] {
                network.check(&settings(fine)).await.unwrap();
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_name_server_that_hangs_holds_a_start_up_for_a_second() {
        let resolver = Resolver::with(|_| {
            std::thread::sleep(LOOK * 3);
            Ok(vec![([127, 0, 0, 1], 0).into()])
        });
        let network = Network { own: Arc::from([([127, 0, 0, 1], 443).into()]), ..Network::of(resolver) };
        let began = tokio::time::Instant::now();
        network.check(&settings("https://here.lan")).await.unwrap();
        assert!(began.elapsed() >= LOOK && began.elapsed() < LOOK * 2, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn what_it_is_told_to_dial_counts_and_not_the_name() {
        let network = network(&["0.0.0.0:443"]);
        let told = |connect: &str| UpstreamSettings {
            connect: vec![connect.parse().unwrap()],
            ..settings("https://here.lan")
        };
        network.check(&told("192.0.2.7:443")).await.unwrap();
        assert!(network.check(&told("127.0.0.9:443")).await.is_err());
    }
}
