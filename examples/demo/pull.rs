use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};

use crate::Result;

const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                              application/vnd.docker.distribution.manifest.v2+json";

/// What one pull took, and where larder says that it came from.
pub(crate) struct Pull {
    pub(crate) took: Duration,
    pub(crate) bytes: u64,
    pub(crate) from_upstream: u64,
    pub(crate) manifest_status: String,
    pub(crate) blob_status: String,
}

/// larder, seen by a client that keeps nothing and believes nothing.
pub(crate) struct Registry {
    client: Client<HttpConnector, Empty<Bytes>>,
    port: u16,
    admin: u16,
}

impl Registry {
    pub(crate) fn new(port: u16, admin: u16) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), port, admin }
    }

    /// Pulls a manifest by tag and everything that it names.
    pub(crate) async fn pull(&self, repository: &str, tag: &str) -> Result<Pull> {
        let received = self.received_from_upstream().await?;
        let began = Instant::now();
        let base = format!("http://127.0.0.1:{}/v2/{repository}", self.port);
        let (manifest, head) = self.get(&format!("{base}/manifests/{tag}")).await?;
        verify("the manifest", text_of(&head, "docker-content-digest"), &hex(&Sha256::digest(&manifest)))?;
        let mut pull = Pull {
            took: Duration::ZERO,
            bytes: manifest.len() as u64,
            from_upstream: 0,
            manifest_status: text_of(&head, "cache-status").to_owned(),
            blob_status: String::new(),
        };
        for blob in children(&manifest)? {
            let (size, status) = self.drain(&format!("{base}/blobs/{blob}"), &blob).await?;
            pull.bytes += size;
            // The status of the largest part is last: a manifest names its configuration first, then its layers.
            pull.blob_status = status;
        }
        pull.took = began.elapsed();
        pull.from_upstream = self.received_from_upstream().await? - received;
        Ok(pull)
    }

    /// Reads a blob to its end and checks its digest; keeps nothing.
    async fn drain(&self, url: &str, digest: &str) -> Result<(u64, String)> {
        let answer = self.send(url).await?;
        let status = text_of(answer.headers(), "cache-status").to_owned();
        let (mut body, mut hash, mut size) = (answer.into_body(), Sha256::new(), 0);
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(|error| format!("{url}: cut after {size} bytes: {error}"))?.into_data() {
                hash.update(&data);
                size += data.len() as u64;
            }
        }
        verify(url, digest, &hex(&hash.finalize()))?;
        Ok((size, status))
    }

    async fn get(&self, url: &str) -> Result<(Bytes, HeaderMap)> {
        let (head, body) = self.send(url).await?.into_parts();
        Ok((body.collect().await?.to_bytes(), head.headers))
    }

    async fn send(&self, url: &str) -> Result<http::Response<Incoming>> {
        let request = Request::get(url).header(ACCEPT, MANIFEST_TYPES).body(Empty::new())?;
        let answer = self.client.request(request).await.map_err(|error| format!("GET {url}: {error}"))?;
        if answer.status() == StatusCode::OK {
            return Ok(answer);
        }
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        Err(format!("GET {url}: {status}: {}", String::from_utf8_lossy(&body)).into())
    }

    /// Waits until what was pulled is on disk to stay: clients have their bytes a moment before that.
    pub(crate) async fn settles(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.metric("larder_fills_inflight").await? > 0 && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Body bytes that larder has received from its upstream so far, as its metrics say.
    async fn received_from_upstream(&self) -> Result<u64> {
        self.metric("larder_upstream_received_bytes_total").await
    }

    /// The sum of all series of a metric.
    async fn metric(&self, name: &str) -> Result<u64> {
        let (text, _) = self.get(&format!("http://127.0.0.1:{}/metrics", self.admin)).await?;
        let of_line = |line: &str| line.rsplit_once(' ').and_then(|(_, number)| number.parse::<u64>().ok());
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().filter(|line| line.starts_with(name)).filter_map(of_line).sum())
    }
}

fn verify(what: &str, expected: &str, hex: &str) -> Result<()> {
    if expected.strip_prefix("sha256:") == Some(hex) {
        return Ok(());
    }
    Err(format!("{what}: expected the digest {expected}, got bytes of sha256:{hex}").into())
}

fn children(manifest: &[u8]) -> Result<Vec<String>> {
    let manifest: Value = serde_json::from_slice(manifest)?;
    let layers = manifest["layers"].as_array().ok_or("the manifest has no layers")?;
    let descriptors = std::iter::once(&manifest["config"]).chain(layers);
    descriptors.map(|d| Ok(d["digest"].as_str().ok_or("a descriptor has no digest")?.to_owned())).collect()
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
