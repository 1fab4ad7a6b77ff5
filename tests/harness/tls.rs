//! Certificates, and a client that speaks TLS and says what it saw.

use super::{PATIENCE, Setup};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use larder::config::{Listen, TlsSettings};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// An authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names, good for years.
    pub fn issue(&self, names: &[&str]) -> Pair {
        self.issue_with(names, |_| {})
    }

    /// The same, with a last word on it.
    pub fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Pair { certificate: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }

    /// A client's certificate with this common name.
    pub fn client(&self, name: &str) -> Pair {
        self.issue_with(&[], |params| params.distinguished_name.push(DnType::CommonName, name))
    }
}

impl Setup {
    /// Every listener speaks TLS, with this certificate.
    #[must_use]
    pub fn tls(self, pair: &Pair) -> Self {
        let certificate_file = self.file("tls/server.pem", &pair.certificate);
        let key_file = self.file("tls/server.key", &pair.key);
        self.with(|settings| {
            settings.server.tls = Some(TlsSettings { certificate_file, key_file, client_ca_file: None });
            for listen in &mut settings.server.listen {
                if let Listen::Tcp(address) = listen {
                    *listen = Listen::Tls(*address);
                }
            }
        })
    }

    /// Clients' certificates of this authority are believed.
    #[must_use]
    pub fn client_ca(self, authority: &Authority) -> Self {
        let path: PathBuf = self.file("tls/clients.pem", &authority.pem());
        self.with(|settings| settings.server.tls.as_mut().unwrap().client_ca_file = Some(path))
    }
}

/// How a client speaks TLS.
#[derive(Clone)]
pub struct Dialer {
    roots: String,
    client: Option<Pair>,
    alpn: Vec<&'static str>,
    versions: Vec<&'static SupportedProtocolVersion>,
}

impl Dialer {
    /// Trusts this authority, and offers HTTP/1.1.
    pub fn trusting(authority: &Authority) -> Self {
        Self::trusting_pem(&authority.pem())
    }

    pub fn trusting_pem(pem: &str) -> Self {
        let versions = rustls::ALL_VERSIONS.to_vec();
        Self { roots: pem.to_owned(), client: None, alpn: vec!["http/1.1"], versions }
    }

    #[must_use]
    pub fn presenting(self, client: &Pair) -> Self {
        Self { client: Some(client.clone()), ..self }
    }

    #[must_use]
    pub fn alpn(self, alpn: &[&'static str]) -> Self {
        Self { alpn: alpn.to_vec(), ..self }
    }

    #[must_use]
    pub fn version(self, version: &'static SupportedProtocolVersion) -> Self {
        Self { versions: vec![version], ..self }
    }

    pub fn config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.roots.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into());
        let builder = builder.with_protocol_versions(&self.versions).unwrap().with_root_certificates(roots);
        let mut config = match &self.client {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A connection after its handshake.
    pub async fn connect(&self, address: SocketAddr, name: &str) -> io::Result<TlsStream<TcpStream>> {
        Self::connect_with(&self.config(), address, name).await
    }

    /// The same with a configuration that is kept, and with it the sessions that can be resumed.
    pub async fn connect_with(
        config: &Arc<ClientConfig>,
        address: SocketAddr,
        name: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        let connected = async {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from(name.to_owned()).unwrap();
            TlsConnector::from(Arc::clone(config)).connect(name, stream).await
        };
        timeout(PATIENCE, connected).await.expect("a handshake ends")
    }

    /// One request, by HTTP/2 if that was agreed upon, and its whole answer.
    pub async fn request(
        &self,
        address: SocketAddr,
        name: &str,
        request: Request<Empty<Bytes>>,
    ) -> io::Result<Response<Bytes>> {
        let stream = self.connect(address, name).await?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        let answer = if http2 {
            let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
            let (mut sender, connection) = shaken.map_err(io::Error::other)?;
            tokio::spawn(connection);
            whole(sender.send_request(request).await).await
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            whole(sender.send_request(request).await).await
        };
        answer.map_err(io::Error::other)
    }

    /// `GET` with the name as `Host`.
    pub async fn get(&self, address: SocketAddr, name: &str, path: &str) -> io::Result<Response<Bytes>> {
        self.request(address, name, get(name, path)).await
    }
}

/// A request that both versions of HTTP can carry.
pub fn get(host: &str, path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://{host}{path}")).header("host", host).body(Empty::new()).unwrap()
}

async fn whole(response: hyper::Result<Response<hyper::body::Incoming>>) -> hyper::Result<Response<Bytes>> {
    let (head, body) = response?.into_parts();
    let body = timeout(PATIENCE, body.collect()).await.expect("the body ends")?.to_bytes();
    Ok(Response::from_parts(head, body))
}
