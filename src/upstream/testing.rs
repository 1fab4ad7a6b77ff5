//! A registry that says what a test wants, and remembers what it was asked.

use super::endpoints::Upstream;
use crate::config::{CredentialSettings, Limits, UpstreamSettings};
use crate::config::{Environment, PasswordLogin};
use crate::oci::Registry;
use crate::telemetry::Metrics;
use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What the server was asked.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    pub(crate) method: Method,
    /// Path and query as they were on the wire.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl ReceivedRequest {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

pub(crate) type Reply = Response<Full<Bytes>>;

/// An in-process HTTP/1.1 server with a script.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<ReceivedRequest>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// `script` answers every request.
    pub(crate) async fn start(script: impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static) -> Self {
        let script = Arc::new(script);
        Self::start_async(move |asked| {
            let reply = script(&asked);
            async move { reply }
        })
        .await
    }

    /// As `start`, for a script that takes its time.
    pub(crate) async fn start_async<F>(script: impl Fn(ReceivedRequest) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), script)
    }

    /// As `start_async`, on a listener that is there already.
    pub(crate) fn on<F>(listener: TcpListener, script: impl Fn(ReceivedRequest) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (script, seen) = (Arc::new(script), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        let asked = ReceivedRequest {
                            method: head.method,
                            target: head.uri.to_string(),
                            headers: head.headers,
                            body: String::from_utf8(body.to_vec()).unwrap(),
                        };
                        seen.lock().push(asked.clone());
                        Ok::<_, hyper::Error>(script(asked).await)
                    }
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move { drop(connection.await) });
            }
        });
        Self { address, asked, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<ReceivedRequest> {
        self.asked.lock().clone()
    }

    /// Forgets what it was asked.
    pub(crate) fn forget(&self) {
        self.asked.lock().clear();
    }

    /// How many requests had this in method, path or query.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.asked().iter().filter(|asked| format!("{} {}", asked.method, asked.target).contains(part)).count()
    }
}

/// An answer of a speaker of the protocol.
pub(crate) fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
    let mut response = Response::builder().status(status).header("docker-distribution-api-version", "registry/2.0");
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Full::new(body.into())).unwrap()
}

/// An answer of something else.
pub(crate) fn bare(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
    let mut response = reply(status, headers, body);
    response.headers_mut().remove("docker-distribution-api-version");
    response
}

pub(crate) fn errors(code: &str, message: &str) -> String {
    format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"{message}\",\"detail\":null}}]}}\n")
}

/// Settings for an upstream at `url`, with short limits.
pub(crate) fn settings(url: &str, credential: CredentialSettings) -> UpstreamSettings {
    UpstreamSettings {
        credential,
        connect_timeout: Duration::from_secs(5),
        first_byte_timeout: Duration::from_secs(5),
        stall_timeout: Duration::from_secs(5),
        ..UpstreamSettings::new(Registry::new("test.registry"), url.parse().unwrap())
    }
}

pub(crate) fn upstream(settings: &UpstreamSettings) -> (Upstream, Arc<Metrics>) {
    upstream_in(settings, &environment())
}

pub(crate) fn upstream_in(settings: &UpstreamSettings, environment: &Environment) -> (Upstream, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    let made = Upstream::with_environment(settings, &Limits::default(), Arc::clone(&metrics), environment).unwrap();
    (made, metrics)
}

/// An environment with some root to trust, whatever the machine has.
pub(crate) fn environment() -> Environment {
    use std::sync::OnceLock;
    static ROOT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = ROOT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.pem");
        let certified = rcgen::generate_simple_self_signed(vec!["nobody.invalid".to_owned()]).unwrap();
        std::fs::write(&path, certified.cert.pem()).unwrap();
        (folder, path)
    });
    Environment::default().with("SSL_CERT_FILE", path)
}

/// A login with user `ci`, its password in a file.
pub(crate) fn password(folder: &Path, password: &str) -> CredentialSettings {
    let password_file = folder.join("password");
    std::fs::write(&password_file, password).unwrap();
    CredentialSettings::Password(PasswordLogin { username: "ci".to_owned(), password_file })
}

/// A token with these claims and no signature worth the name.
pub(crate) fn jwt(claims: &str) -> String {
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    format!("{}.{}.c2ln", engine.encode("{}"), engine.encode(claims))
}

/// A program that does `body` in a shell. Another process writes it: one of ours that forks meanwhile would keep it open for
/// writing, and such a file cannot be run.
#[cfg(unix)]
pub(crate) fn script(folder: &Path, name: &str, body: &str) -> PathBuf {
    let path = folder.join(name);
    let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0.draft\" && chmod 755 \"$0.draft\" && mv \"$0.draft\" \"$0\"";
    let status = std::process::Command::new("sh").args(["-c", write]).arg(&path).arg(body).status().unwrap();
    assert!(status.success());
    path
}
