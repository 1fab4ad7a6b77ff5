//! Entra and those who give out managed identities, as far as a registry's client meets them: the token endpoint for secret,
//! certificate and federated token, a machine's metadata service (IMDS), App Service's endpoint and Azure Arc's agent.
//!
//! ```ignore
//! let entra = Entra::start().await;
//! let acr = Acr::start(Options { entra: Some(entra.directory()), ..Options::default() }).await;
//! entra.turn(|k| k.applications.push(Application::with_secret("app", "secret")));
//! // … let the thing under test log in at entra.url() …
//! ```
//!
//! What each refuses and how it words it follows azure_identity 1.0's and MSAL's sources and Microsoft's pages on IMDS;
//! `docs/simulator.md` has what is assumed. All of them share one loopback listener, told apart by their paths.

mod arc;
mod login;
mod metadata;
mod settings;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::task::{AbortHandle, JoinSet};

pub use settings::{Application, ArcServer, AssignedIdentity, EntraSettings, Mood, RegisteredCertificate};

use super::reply::{self, Reply};
use super::route::form;
use super::serve::Port;
use super::{clock, jwt};

/// What a registry's tokens are for (v1 has it as `resource`, v2 as `scope` with `/.default`).
pub const RESOURCE: &str = "https://containerregistry.azure.net";
/// `X-IDENTITY-HEADER` of App Service.
pub const IDENTITY_HEADER: &str = "app-service-header";

/// A running Entra; dropped, it is gone.
pub struct Entra {
    directory: Directory,
    port: Arc<Port>,
    task: AbortHandle,
}

/// What the directory knows: shared with the registries that trust its tokens.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

#[derive(Default)]
struct Inner {
    settings: Mutex<EntraSettings>,
    /// Tokens with the second in which each ends, by the directory's clock.
    issued: Mutex<HashMap<String, u64>>,
    federated: Mutex<HashMap<String, u64>>,
    seen: Mutex<Vec<AskedIdentity>>,
    number: Mutex<u64>,
}

/// A request for an identity.
#[derive(Clone, Debug)]
pub struct AskedIdentity {
    /// `login`, `imds`, `app-service` or `arc`.
    pub service: &'static str,
    pub target: String,
    /// The form's or query's names and values.
    pub fields: Vec<(String, String)>,
    pub status: u16,
    pub headers: HeaderMap,
}

impl AskedIdentity {
    pub fn field(&self, name: &str) -> Option<&str> {
        super::route::value(&self.fields, name)
    }
}

impl Entra {
    #[expect(clippy::unused_async, reason = "binding needs a runtime, and an async fn can only be called from one")]
    pub async fn start() -> Self {
        Self::on(Port::open(0).expect("a free port"))
    }

    /// At a certain address, as in a network namespace that has the metadata service's.
    #[expect(clippy::unused_async, reason = "as above")]
    pub async fn start_at(address: std::net::SocketAddr) -> Self {
        Self::on(Port::open_at(address).expect("the address is this machine's"))
    }

    fn on(port: Arc<Port>) -> Self {
        let directory = Directory(Arc::default());
        let task = tokio::spawn(run(directory.clone(), Arc::clone(&port))).abort_handle();
        Self { directory, port, task }
    }

    /// The base of every service here.
    pub fn url(&self) -> String {
        format!("http://{}", self.port.address)
    }

    /// `IDENTITY_ENDPOINT` of App Service.
    pub fn app_service(&self) -> String {
        format!("{}/msi/token", self.url())
    }

    pub fn directory(&self) -> Directory {
        self.directory.clone()
    }

    pub fn turn(&self, change: impl FnOnce(&mut EntraSettings)) {
        change(&mut lock(&self.directory.0.settings));
    }

    /// A service account's token, signed by the cluster, good for so many seconds by the directory's clock.
    pub fn federated_token(&self, subject: &str, life_s: i64) -> String {
        self.directory.federate(subject, "api://AzureADTokenExchange", life_s)
    }

    /// The same, for whom it is not meant.
    pub fn federated_token_for(&self, subject: &str, audience: &str) -> String {
        self.directory.federate(subject, audience, 3600)
    }

    /// Every request so far.
    pub fn log(&self) -> Vec<AskedIdentity> {
        lock(&self.directory.0.seen).clone()
    }

    pub fn count(&self, matches: impl Fn(&AskedIdentity) -> bool) -> usize {
        self.log().iter().filter(|asked| matches(asked)).count()
    }

    /// Refuses connections.
    pub fn stop_listening(&self) {
        self.port.close();
    }

    pub fn resume_listening(&self) {
        self.port.reopen().expect("the port is still free");
    }
}

impl Drop for Entra {
    fn drop(&mut self) {
        self.port.close();
        self.task.abort();
    }
}

impl Directory {
    fn settings(&self) -> EntraSettings {
        lock(&self.0.settings).clone()
    }

    /// The directory's clock.
    fn now(&self) -> u64 {
        clock::now().saturating_add_signed(lock(&self.0.settings).clock_s)
    }

    /// Whether a registry of this tenant takes the token.
    pub(super) fn takes(&self, token: &str, tenant: Option<&str>) -> bool {
        let is_ours = tenant.is_none_or(|tenant| tenant == lock(&self.0.settings).registry_tenant);
        is_ours && lock(&self.0.issued).get(token).is_some_and(|end| *end > self.now())
    }

    fn number(&self) -> u64 {
        let mut number = lock(&self.0.number);
        *number += 1;
        *number
    }

    fn issue(&self, client: &str) -> (String, u64) {
        let settings = self.settings();
        let end = self.now() + settings.life_s;
        let (tenant, number) = (&settings.tenant, self.number());
        let claims = format!(
            "{{\"aud\":\"{RESOURCE}\",\"tid\":\"{tenant}\",\"appid\":\"{client}\",\"exp\":{end},\"uti\":\"{number}\"}}"
        );
        let token = jwt::sign(&claims);
        lock(&self.0.issued).insert(token.clone(), end);
        (token, end)
    }

    fn federate(&self, subject: &str, audience: &str, life_s: i64) -> String {
        let (end, number) = (self.now().saturating_add_signed(life_s), self.number());
        let claims = format!(
            "{{\"aud\":[\"{audience}\"],\"iss\":\"https://cluster.example/\",\"sub\":\"{subject}\",\"exp\":{end},\"jti\":\"{number}\"}}"
        );
        let token = jwt::sign(&claims);
        lock(&self.0.federated).insert(token.clone(), end);
        token
    }

    async fn answer(&self, request: Request<Incoming>) -> io::Result<Reply> {
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, 1 << 20).collect().await.map_err(io::Error::other)?.to_bytes();
        let settings = self.settings();
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        let post = parts.method == Method::POST;
        let fields = if post { form(&String::from_utf8_lossy(&body)) } else { form(query) };
        let service = match path {
            "/metadata/identity/oauth2/token" if settings.arc.is_some() => "arc",
            "/metadata/identity/oauth2/token" => "imds",
            "/msi/token" => "app-service",
            _ => "login",
        };
        let at = {
            let mut seen = lock(&self.0.seen);
            let (target, headers) = (parts.uri.to_string(), parts.headers.clone());
            seen.push(AskedIdentity { service, target, fields: fields.clone(), status: 0, headers });
            seen.len() - 1
        };
        let mood = lock(&self.0.settings).take_mood();
        let spoiled = match mood {
            None => None,
            Some(Mood::Slow(milliseconds)) => {
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                None
            }
            Some(mood) => Some(mood.answer()),
        };
        let mut reply = spoiled.unwrap_or_else(|| match service {
            "arc" => arc::answer(self, &settings, &parts.headers, &fields),
            "imds" => metadata::imds(self, &settings, &parts.headers, &fields),
            "app-service" => metadata::app_service(self, &settings, &parts.headers, &fields),
            _ if post => login::answer(self, &settings, path, &fields),
            _ => reply::empty(404),
        });
        reply::set(&mut reply, "date", &clock::http_date(self.now()));
        lock(&self.0.seen)[at].status = reply.status().as_u16();
        Ok(reply)
    }
}

async fn run(directory: Directory, port: Arc<Port>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            next = port.next() => if let Some((stream, _)) = next {
                let directory = directory.clone();
                connections.spawn(async move {
                    let service = service_fn(|request| directory.answer(request));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            },
            Some(_) = connections.join_next() => {}
        }
        if port.take_closing() {
            connections.shutdown().await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An RSA key with a certificate as an application has them: the PEM of both, and what is registered with the directory.
pub fn certificate(name: &str) -> (String, RegisteredCertificate) {
    let (pem, der, public_key) = jwt::pair(name);
    (pem, RegisteredCertificate { der, public_key })
}

/// Writes a file in the place of another at once, as rotation does.
pub fn replace(path: &Path, content: &str) {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, content).expect("a draft is written");
    std::fs::rename(&draft, path).expect("it takes its place");
}
