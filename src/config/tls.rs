//! `[server.tls]`: the setting, and the files behind it, which are read here at start and whenever they change.
//!
//! Everything that is wrong with them is found by [`TlsFiles::check`], so that `check`, the start and a reload say the same.

use super::certificate::Certificate;
use super::declare::settings;
use super::reader::Section;
use super::secret::read_private;
use super::values::PrivateFile;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// Bytes of a file of certificates.
const LONGEST: u64 = 1 << 20;

const CERTIFICATE: &str = "certificate_file";
const KEY: &str = "key_file";
const CLIENT_CA: &str = "client_ca_file";

/// `[server.tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM file of the server's certificate, and of those that lead from it to its authority.
    pub certificate_file: PathBuf,
    /// PEM file of its key.
    pub key_file: PathBuf,
    /// PEM file of the authorities of clients' certificates. `None`: clients are not asked for one.
    pub client_ca_file: Option<PathBuf>,
}

settings! { "server.tls";
/// A certificate for TLS; without this table, plain HTTP. With it every TCP listener speaks TLS, unless some are written
/// `tls://0.0.0.0:5443`: then those alone do. `larder tls init` makes both files. larder reads them again when they change
/// ([tls.md](tls.md)).
pub(super) struct TlsTable {
    /// PEM: the server's certificate, and those that lead from it to its authority.
    certificate_file: Option<PathBuf> [PathBuf, unset "plain HTTP", example "\"/etc/larder/tls.crt\""];
    /// PEM: its key, without a passphrase; sought in `$CREDENTIALS_DIRECTORY` like a secret.
    key_file: Option<PathBuf> [PrivateFile, unset "plain HTTP", example "\"/etc/larder/tls.key\""];
    /// PEM: authorities of clients' certificates. A client that presents one is known by its name; none is demanded.
    client_ca_file: Option<PathBuf> [PathBuf, unset "clients' certificates are not asked for", example "\"/etc/larder/clients.pem\""];
}}

/// What is wrong with one of the files, and with which setting it came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[server.tls] {setting}: {message}")]
pub struct TlsProblem {
    /// The key of the setting.
    pub setting: &'static str,
    /// The file, what is wrong with it, and what to do.
    pub message: String,
}

fn problem(setting: &'static str, message: impl Into<String>) -> TlsProblem {
    TlsProblem { setting, message: message.into() }
}

/// The content of the files, as it was at one moment.
pub struct TlsFiles {
    certificate: Vec<u8>,
    key: Zeroizing<String>,
    clients: Option<Vec<u8>>,
}

/// What larder presents, and whom it believes.
#[derive(Clone)]
pub struct TlsIdentity {
    /// The chain and the key that belongs to it.
    pub certified: Arc<CertifiedKey>,
    /// Decides about clients' certificates. `None`: none is asked for.
    pub clients: Option<Arc<dyn ClientCertVerifier>>,
    /// When the first certificate of all that are presented ends.
    pub not_after: SystemTime,
    /// How long the server's certificate holds altogether.
    pub lifetime: Duration,
    /// The names and addresses that it holds for.
    pub names: Vec<String>,
    /// A hash of everything that was read.
    pub fingerprint: [u8; 32],
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("names", &self.names)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl TlsFiles {
    /// Reads them; may block.
    pub fn read(settings: &TlsSettings) -> Result<Self, TlsProblem> {
        let certificate = read_file(CERTIFICATE, &settings.certificate_file)?;
        let key = read_private(&settings.key_file).map_err(|error| problem(KEY, error.to_string()))?;
        let clients = settings.client_ca_file.as_ref().map(|path| read_file(CLIENT_CA, path)).transpose()?;
        Ok(Self { certificate, key, clients })
    }

    /// A hash of their content.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for part in [&self.certificate[..], self.key.as_bytes(), self.clients.as_deref().unwrap_or_default()] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize().into()
    }

    /// Whether they can be used now, and what they are.
    pub fn check(&self, settings: &TlsSettings, now: SystemTime) -> Result<TlsIdentity, TlsProblem> {
        let file = settings.certificate_file.display();
        let chain = certificates(CERTIFICATE, &settings.certificate_file, &self.certificate)?;
        let unreadable = || {
            problem(CERTIFICATE, format!("{file}: its first certificate cannot be read: write the server's own first"))
        };
        let own = Certificate::parse(&chain[0]).ok_or_else(unreadable)?;
        let (begins, ends) = (time(own.not_before()), time(own.not_after()));
        let day = |time| humantime::format_rfc3339_seconds(time);
        if ends <= now {
            let message = format!(
                "{file}: the certificate expired on {}: renew it (`larder tls init --force` makes one of larder's own)",
                day(ends)
            );
            return Err(problem(CERTIFICATE, message));
        }
        if begins > now {
            let message =
                format!("{file}: the certificate is not valid before {}: check this machine's clock", day(begins));
            return Err(problem(CERTIFICATE, message));
        }
        let names = own.names();
        if names.is_empty() {
            let message = format!(
                "{file}: the certificate names no host (no subject alternative name), so that no client accepts it: make one that does"
            );
            return Err(problem(CERTIFICATE, message));
        }
        let lifetime = ends.duration_since(begins).unwrap_or_default();
        let rest = chain[1..].iter().filter_map(|one| Certificate::parse(one));
        let not_after = rest.map(|one| time(one.not_after())).fold(ends, SystemTime::min);
        let certified = Arc::new(self.certified(chain, settings)?);
        let clients = match (&self.clients, &settings.client_ca_file) {
            (Some(content), Some(path)) => Some(verifier(path, content)?),
            _ => None,
        };
        Ok(TlsIdentity { certified, clients, not_after, lifetime, names, fingerprint: self.fingerprint() })
    }

    fn certified(
        &self,
        chain: Vec<CertificateDer<'static>>,
        settings: &TlsSettings,
    ) -> Result<CertifiedKey, TlsProblem> {
        let (certificate, file) = (settings.certificate_file.display(), settings.key_file.display());
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes());
        let key = key.map_err(|_| {
            let hint = if self.key.contains("ENCRYPTED") {
                "the key is encrypted: write it without a passphrase (`openssl pkey -in KEY -out PLAIN`), readable for larder's user alone"
            } else {
                "holds no private key; it must be PEM (-----BEGIN PRIVATE KEY-----)"
            };
            problem(KEY, format!("{file}: {hint}"))
        })?;
        let key = aws_lc_rs::default_provider().key_provider.load_private_key(key);
        let key = key.map_err(|error| {
            problem(
                KEY,
                format!(
                    "{file}: the key cannot be used ({error}): make an ECDSA P-256 or an RSA key of 2048 bits or more"
                ),
            )
        })?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
            Err(rustls::Error::InconsistentKeys(_)) => Err(problem(
                KEY,
                format!(
                    "{file} is not the key of the certificate in {certificate}: write the pair that belongs together"
                ),
            )),
            Err(error) => Err(problem(CERTIFICATE, format!("{certificate}: the certificate cannot be used: {error}"))),
        }
    }
}

fn time(seconds: i64) -> SystemTime {
    match u64::try_from(seconds) {
        Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds),
        Err(_) => UNIX_EPOCH,
    }
}

fn certificates(
    setting: &'static str,
    path: &Path,
    content: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    let file = path.display();
    let found = found.map_err(|error| problem(setting, format!("{file}: not PEM: {error}")))?;
    if found.is_empty() {
        return Err(problem(
            setting,
            format!("{file}: holds no certificate; it must be PEM (-----BEGIN CERTIFICATE-----)"),
        ));
    }
    Ok(found)
}

fn verifier(path: &Path, content: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, TlsProblem> {
    let unusable = |error: String| problem(CLIENT_CA, format!("{}: {error}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in certificates(CLIENT_CA, path, content)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(format!("a certificate is no authority that can be used: {error}")))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), aws_lc_rs::default_provider().into());
    // One way in beside others: who presents none may have another.
    let verifier = builder.allow_unauthenticated().build();
    verifier.map_err(|error| unusable(error.to_string()))
}

fn read_file(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsProblem> {
    let failed = |error: &dyn fmt::Display| {
        problem(setting, format!("cannot read {}: {error}: correct the path or let this user read it", path.display()))
    };
    // Before it is opened: opening a pipe may wait for ever.
    if !std::fs::metadata(path).map_err(|error| failed(&error))?.is_file() {
        return Err(failed(&"it is no regular file"));
    }
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    let mut content = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut content).map_err(|error| failed(&error))?;
    if content.len() as u64 > LONGEST {
        return Err(failed(&"it is larger than 1 MiB"));
    }
    Ok(content)
}

/// Reads `[server.tls]` and holds its files against each other.
pub(super) fn read_tls(server: &mut Section<'_>) -> Option<TlsSettings> {
    let TlsTable { certificate_file, key_file, client_ca_file } = server.table("tls");
    let reader = &mut *server.reader;
    let (certificate_file, key_file) = match (certificate_file, key_file) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) if !reader.was_written("server", "tls") => return None,
        (certificate_file, _) => {
            let (missing, there) = if certificate_file.is_none() { (CERTIFICATE, KEY) } else { (KEY, CERTIFICATE) };
            // A wrong value has been reported itself.
            if !reader.was_written("server.tls", missing) {
                let message = format!(
                    "TLS needs certificate_file and key_file: write {missing}, or remove [server.tls] for plain HTTP"
                );
                reader.error_at("server.tls", there, message);
            }
            return None;
        }
    };
    let settings = TlsSettings { certificate_file, key_file, client_ca_file };
    if let Err(wrong) = TlsFiles::read(&settings).and_then(|files| files.check(&settings, SystemTime::now())) {
        reader.error_at("server.tls", wrong.setting, wrong.message);
    }
    Some(settings)
}
