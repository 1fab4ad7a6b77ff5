//! An Azure Container Registry to test against, in process: it imitates what recordings of the real service show,
//! refuses what the real one refuses, and writes down what clients did.
//!
//! ```ignore
//! let registry = Simulator::start(Options::public()).await;
//! let artifact = registry.push_artifact("samples/config", "v1", &[("config.json", "application/json", bytes)]);
//! registry.knobs().damage(Damage::once(DamageKind::Cut, 1000));
//! // … pull through the thing under test from registry.host() …
//! assert_eq!(registry.count(|seen| seen.is_blob_body() && seen.range.is_none()), 1);
//! assert_eq!(registry.violations(), Vec::<String>::new());
//! ```
//!
//! It uses nothing of `larder`, so that an error in larder's idea of the protocol cannot hide in it. HTTP/1.1 only.
//! `docs/simulator.md` says what rests on which evidence.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "included by several test targets and an example, none of which uses all of it"
)]
#![allow(
    clippy::result_large_err,
    clippy::unused_self,
    reason = "a refusal is an answer like any other; the signing key is shared, and callers need not know"
)]
#![allow(
    clippy::expect_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a simulator that cannot start or sign is a failed test; rates and quotas are far below the limits of f64"
)]

mod acr;
mod artifact;
mod auth;
mod blob;
mod body;
mod clock;
mod content;
mod control;
mod delete;
mod effects;
pub mod entra;
mod faults;
mod intake;
mod jwt;
mod knobs;
mod lists;
mod login;
mod manifest;
mod manifest_push;
mod oauth;
mod options;
mod record;
mod replicas;
mod reply;
mod route;
pub mod samples;
mod serve;
mod signature;
mod state;
mod storage;
mod throttle;
pub mod tls;
mod tokens;
mod uploads;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::task::AbortHandle;

pub use artifact::Artifact;
pub use faults::{Damage, DamageKind, Fault, FaultAnswer, PathClass};
pub use knobs::{Knobs, Mount, Redirect, Settings, Side};
pub use manifest::{OCI_ARTIFACT, OCI_INDEX, OCI_MANIFEST};
pub use manifest_push::MAX_MANIFEST;
pub use options::{NULL_GUID, Options, User, UserKind};
pub use record::{Credential, Listener, Seen};
pub use replicas::{Answers, Replication};
pub use throttle::Limits;

use record::Log;
use replicas::{Content, Replicas};
use serve::Port;
use state::{Region, State};
use throttle::Throttle;
use tokens::{Identity, Tokens};
use uploads::Uploads;

/// `auth.token.issuer` of a Distribution registry that takes its tokens from here.
pub const DISTRIBUTION_ISSUER: &str = "acr-sim";

/// A running registry; dropped, it is gone: listeners and connections closed.
pub struct Simulator {
    state: Arc<State>,
    tasks: Vec<AbortHandle>,
    control: Option<Arc<Port>>,
    ca_pem: Option<String>,
}

impl Simulator {
    /// Starts on the current runtime. Panics if it cannot; `try_start` says why instead.
    pub async fn start(options: Options) -> Self {
        Self::try_start(options).await.expect("the simulator starts")
    }

    #[expect(clippy::unused_async, reason = "binding needs a runtime, and an async fn can only be called from one")]
    pub async fn try_start(options: Options) -> io::Result<Self> {
        let (login, storage) = (Port::open(options.port)?, Port::open_apart(options.storage_port)?);
        let control = options.control_port.map(Port::open).transpose()?;
        let tls = options.tls.then(|| tls::acceptor(&options.tls_names)).transpose()?;
        let (ca_pem, acceptor) = tls.unzip();
        // The key takes a while to make; the first token must not be what waits for it.
        let _ = jwt::certificate_pem();
        let started = clock::now();
        let secret = Sha256::digest(format!("{:?} {}", std::time::SystemTime::now(), login.address)).into();
        let state = Arc::new(State {
            knobs: Arc::new(Knobs::new(options.knobs.clone())),
            replicas: Replicas::default(),
            uploads: Uploads::default(),
            log: Log::default(),
            effects: Arc::default(),
            tokens: Tokens::default(),
            throttle: Throttle::default(),
            total_pace: Arc::default(),
            login,
            storage,
            secret,
            started,
            issued_ids: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            options,
        });
        let expires = started + state.knobs.read(|k| k.refresh_life_s);
        for token in &state.options.refresh_tokens {
            state.tokens.keep_refresh(token.clone(), Identity::everything("refresh-token"), expires);
        }
        let mut tasks = Vec::new();
        for listener in [Listener::Login, Listener::Storage] {
            let run = serve::run(Arc::clone(&state), listener, acceptor.clone());
            tasks.push(tokio::spawn(run).abort_handle());
        }
        if let Some(port) = &control {
            tasks.push(tokio::spawn(control::run(Arc::clone(&state), Arc::clone(port))).abort_handle());
        }
        Ok(Self { state, tasks, control, ca_pem })
    }

    /// The login server, `http://127.0.0.1:PORT` (`https` with TLS).
    pub fn url(&self) -> String {
        format!("{}://{}", self.state.scheme(), self.host())
    }

    /// The login server's `host:port`.
    pub fn host(&self) -> String {
        self.state.host()
    }

    /// Where blob requests are redirected to.
    pub fn storage_host(&self) -> String {
        self.state.storage_host()
    }

    /// Where scripts turn knobs.
    pub fn control_url(&self) -> Option<String> {
        self.control.as_ref().map(|port| format!("http://{}", port.address))
    }

    /// The certificate to trust, with TLS.
    pub fn ca_pem(&self) -> Option<String> {
        self.ca_pem.clone()
    }

    /// The token endpoint (`auth.token.realm`) for a Distribution registry.
    pub fn distribution_realm(&self) -> String {
        format!("{}/distribution/token", self.url())
    }

    /// Writes `auth.token.rootcertbundle` for a Distribution registry.
    pub fn write_token_certificate(&self, path: impl AsRef<Path>) -> io::Result<()> {
        std::fs::write(path, jwt::certificate_pem())
    }

    /// Puts a blob in and returns its digest.
    pub fn push_blob(&self, repository: &str, content: impl Into<Bytes>) -> String {
        self.push_blob_as(repository, content, "sha256")
    }

    /// The same, named by `sha256` or `sha512`.
    pub fn push_blob_as(&self, repository: &str, content: impl Into<Bytes>, algorithm: &str) -> String {
        self.content().push_blob(repository, content.into(), algorithm)
    }

    /// Puts a manifest in, tags it, and lists it as a referrer of its `subject`.
    pub fn push_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        content: impl Into<Bytes>,
    ) -> String {
        self.push_manifest_as(repository, tag, media_type, content, "sha256")
    }

    /// The same, named by `sha256` or `sha512`.
    pub fn push_manifest_as(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        content: impl Into<Bytes>,
        algorithm: &str,
    ) -> String {
        self.content().push_manifest(repository, tag, media_type, content.into(), algorithm)
    }

    /// Puts files (title, media type, content) in as ORAS does.
    pub fn push_artifact(&self, repository: &str, tag: &str, files: &[(&str, &str, Bytes)]) -> Artifact {
        artifact::push(self, repository, tag, files)
    }

    pub fn delete_tag(&self, repository: &str, tag: &str) {
        self.content().delete_tag(repository, tag);
    }

    /// The manifest and every tag on it.
    pub fn delete_manifest(&self, repository: &str, digest: &str) {
        self.content().delete_manifest(repository, digest);
    }

    pub fn delete_blob(&self, repository: &str, digest: &str) {
        self.content().delete_blob(repository, digest);
    }

    pub fn delete_repository(&self, repository: &str) {
        self.content().delete_repository(repository);
    }

    /// A blob's bytes, if the repository has it.
    pub fn blob(&self, repository: &str, digest: &str) -> Option<Bytes> {
        self.content().blob(repository, digest)
    }

    /// A manifest's type and bytes, by tag or digest.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<(String, Bytes)> {
        self.content().manifest(repository, reference).map(|(_, manifest)| (manifest.media_type, manifest.content))
    }

    /// Uploads that have been begun, and neither finished nor cancelled.
    pub fn open_uploads(&self) -> usize {
        self.state.uploads.open()
    }

    fn content(&self) -> Content<'_> {
        self.state.replicas.everywhere()
    }

    /// Every repository with its tags.
    pub fn contents(&self) -> Vec<(String, Vec<String>)> {
        let tags = |name: &str| self.content().with(name, |r| r.tags.keys().cloned().collect()).unwrap_or_default();
        self.content().names().into_iter().map(|name| (name.clone(), tags(&name))).collect()
    }

    pub fn knobs(&self) -> &Knobs {
        &self.state.knobs
    }

    /// Every request so far.
    pub fn log(&self) -> Vec<Seen> {
        self.state.log.seen()
    }

    /// Forgets requests and violations.
    pub fn clear_log(&self) {
        self.state.log.clear();
    }

    pub fn count(&self, matches: impl Fn(&Seen) -> bool) -> usize {
        self.log().iter().filter(|seen| matches(seen)).count()
    }

    /// Whatever a client did that ACR would refuse.
    pub fn violations(&self) -> Vec<String> {
        self.state.log.violations()
    }

    /// How often each thing that can go wrong on purpose took effect so far: `cut`, `flip`, `hang login`, `manifests status 503`.
    pub fn effects(&self) -> BTreeMap<String, u64> {
        self.state.effects.counts()
    }

    /// Whether bytes or a length have left as this blob's that are not its own.
    pub fn has_spoiled(&self, digest: &str) -> bool {
        self.state.effects.is_spoiled(digest)
    }

    /// Every token issued so far is refused from now on.
    pub fn revoke_tokens(&self) {
        self.state.tokens.revoke();
    }

    /// Both ports refuse connections, and those that are open end.
    pub fn stop_listening(&self) {
        self.state.login.close();
        self.state.storage.close();
    }

    /// Both ports listen again.
    pub fn resume_listening(&self) {
        let resumed = self.state.login.reopen().and_then(|()| self.state.storage.reopen());
        resumed.expect("the simulator's ports are still free");
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop_listening();
        if let Some(control) = &self.control {
            control.close();
        }
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}
