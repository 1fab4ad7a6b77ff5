//! TLS towards clients: the certificate, which is read again when its files change, and handshakes.
//!
//! A certificate that cannot be used never replaces one that can: the old one stays, the log and `status` say why. A handshake's
//! arithmetic is done by few connections at a time, each of which lets everybody else go first: a thousand handshakes that arrive
//! at once hold a running download up by one of them, not by all. Whether the client's certificate names somebody who may do
//! something is not decided here.

mod accept;
mod authority;
mod plain;
mod renew;

pub use authority::{Authority, AuthorityError, server_key};

use crate::config::{TlsFiles, TlsIdentity, TlsProblem, TlsSettings};
use crate::telemetry::Metrics;
use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How often a certificate that is about to end, or has ended, is mentioned.
const REMIND: Duration = Duration::from_secs(24 * 3600);
/// What is left of a certificate's life when that is said: a quarter, at most this.
const NEAR: Duration = Duration::from_secs(14 * 24 * 3600);

/// What all connections present, and whom they believe. A cheap clone.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    settings: TlsSettings,
    current: RwLock<Current>,
    /// Why the files, as they are now, are not used.
    problem: Mutex<Option<String>>,
    /// Turns of the arithmetic of handshakes.
    turns: Semaphore,
    metrics: Arc<Metrics>,
}

struct Current {
    config: Arc<ServerConfig>,
    identity: TlsIdentity,
}

/// The certificate, for `status`.
#[derive(Clone, Debug)]
pub struct TlsState {
    /// The names that it holds for.
    pub names: Vec<String>,
    /// When it ends.
    pub not_after: SystemTime,
    /// Why the files, as they are now, are not used.
    pub problem: Option<String>,
}

/// What the last look at the files showed.
#[derive(Default)]
struct Seen {
    /// Content, or the reason why it could not be read, that was found unusable.
    unusable: Option<Result<[u8; 32], String>>,
    /// Whether that has been said.
    said: bool,
    reminded: Option<Instant>,
    /// Why it could not be made anew, as far as that has been said.
    failed: Option<String>,
}

impl Tls {
    /// Reads the files. May block.
    pub fn load(settings: &TlsSettings, metrics: Arc<Metrics>) -> Result<Self, TlsProblem> {
        let identity = TlsFiles::read(settings)?.check(settings, SystemTime::now())?;
        let current = RwLock::new(Current { config: config(&identity)?, identity });
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let turns = Semaphore::new((processors / 2).max(1));
        let tls =
            Self(Arc::new(Inner { settings: settings.clone(), current, problem: Mutex::default(), turns, metrics }));
        tls.note_expiry();
        Ok(tls)
    }

    /// Looks at the files again and again, and takes over what they hold. Never ends.
    pub async fn follow(self) {
        let mut seen = Seen::default();
        loop {
            self.renew(&mut seen).await;
            self.remind(&mut seen);
            sleep(LOOK).await;
            self.look(&mut seen).await;
        }
    }

    /// The certificate that is presented now.
    #[must_use]
    pub fn state(&self) -> TlsState {
        let current = self.0.current.read();
        TlsState {
            names: current.identity.names.clone(),
            not_after: current.identity.not_after,
            problem: self.0.problem.lock().clone(),
        }
    }

    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.current.read().config)
    }

    fn note_expiry(&self) {
        let expiry = self.0.current.read().identity.not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
        let expiry = i64::try_from(expiry.as_secs()).unwrap_or(i64::MAX);
        self.0.metrics.tls_certificate_expiry.with_label_values(&[] as &[&str]).set(expiry);
    }

    /// One look at the files.
    async fn look(&self, seen: &mut Seen) {
        let settings = self.0.settings.clone();
        let read = tokio::task::spawn_blocking(move || TlsFiles::read(&settings)).await;
        let Ok(read) = read else { return };
        let content = read.as_ref().map(TlsFiles::fingerprint).map_err(ToString::to_string);
        let is_current = content.as_ref().is_ok_and(|content| *content == self.0.current.read().identity.fingerprint);
        if is_current {
            (seen.unusable, seen.said) = (None, false);
            *self.0.problem.lock() = None;
            return;
        }
        if seen.said && seen.unusable.as_ref() == Some(&content) {
            return;
        }
        let checked = read.and_then(|files| files.check(&self.0.settings, SystemTime::now()));
        match checked.and_then(|identity| Ok((config(&identity)?, identity))) {
            Ok((config, identity)) => {
                let (names, until) = (identity.names.join(", "), humantime::format_rfc3339_seconds(identity.not_after));
                tracing::info!(
                    "the files of [server.tls] changed: from now on the certificate for {names}, good until {until}"
                );
                *self.0.current.write() = Current { config, identity };
                *self.0.problem.lock() = None;
                *seen = Seen::default();
                self.note_expiry();
            }
            // Somebody may be in the middle of replacing the two files: said only when the next look shows the same.
            Err(_) if seen.unusable.as_ref() != Some(&content) => {
                (seen.unusable, seen.said) = (Some(content), false);
            }
            Err(problem) => {
                tracing::error!("the certificate before stays in use, since the new one cannot be used: {problem}");
                *self.0.problem.lock() = Some(problem.to_string());
                seen.said = true;
            }
        }
    }

    /// Has a certificate of larder's own authority made anew in time.
    async fn renew(&self, seen: &mut Seen) {
        let (settings, not_after) = (self.0.settings.clone(), self.0.current.read().identity.not_after);
        let renewed = tokio::task::spawn_blocking(move || renew::renew(&settings, not_after, SystemTime::now())).await;
        match renewed.unwrap_or(Ok(false)) {
            Ok(true) => {
                tracing::info!("the certificate in {} was made anew", self.0.settings.certificate_file.display());
            }
            Ok(false) => seen.failed = None,
            Err(problem) if seen.failed.as_ref() == Some(&problem) => {}
            Err(problem) => {
                tracing::error!("the certificate could not be made anew, and is not before that is mended: {problem}");
                seen.failed = Some(problem);
            }
        }
    }

    /// Says that the certificate is about to end.
    fn remind(&self, seen: &mut Seen) {
        if seen.reminded.is_some_and(|at| at.elapsed() < REMIND) {
            return;
        }
        let (not_after, lifetime) = {
            let current = self.0.current.read();
            (current.identity.not_after, current.identity.lifetime)
        };
        let left = not_after.duration_since(SystemTime::now()).unwrap_or_default();
        if left > NEAR.min(lifetime / 4) {
            return;
        }
        let (file, until) = (self.0.settings.certificate_file.display(), humantime::format_rfc3339_seconds(not_after));
        if left.is_zero() {
            tracing::error!(
                "the certificate in {file} expired on {until}, clients refuse it: replace the file, it is read again by itself"
            );
        } else {
            tracing::warn!(
                "the certificate in {file} expires on {until}: replace the file, it is read again by itself"
            );
        }
        seen.reminded = Some(Instant::now());
    }
}

/// What rustls is told.
fn config(identity: &TlsIdentity) -> Result<Arc<ServerConfig>, TlsProblem> {
    let refused = |error: rustls::Error| TlsProblem {
        setting: "certificate_file",
        message: format!("TLS cannot be set up: {error}"),
    };
    let builder = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into());
    let builder = builder.with_safe_default_protocol_versions().map_err(refused)?;
    let clients = identity.clients.clone().unwrap_or_else(WebPkiClientVerifier::no_client_auth);
    let resolver = Arc::new(SingleCertAndKey::from(Arc::clone(&identity.certified)));
    let mut config = builder.with_client_cert_verifier(clients).with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if identity.clients.is_some() {
        // A resumed session is let in by a check of long ago, perhaps against authorities that are no longer believed.
        config.send_tls13_tickets = 0;
    } else {
        // Sessions are kept by clients, sealed: they need no memory here.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(refused)?;
        config.send_tls13_tickets = 1;
    }
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests;
