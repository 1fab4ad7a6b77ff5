//! Whom larder trusts, and what it can say about a certificate that it does not trust.

use crate::config::{Certificate, Environment};
use crate::upstream::error::SetupError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use std::path::Path;
use std::sync::Arc;

/// The client side of TLS: the system's roots or those of `SSL_CERT_FILE`/`SSL_CERT_DIR`, and those of `ca_file`.
///
/// The cryptography is named here and not taken from the process, so that no order of start-up matters. ALPN is left out:
/// every server then speaks HTTP/1.1, of which several connections carry more than one HTTP/2 window.
pub(in crate::upstream) fn config(
    upstream: &str,
    ca_file: Option<&Path>,
    environment: &Environment,
) -> Result<Arc<ClientConfig>, SetupError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let refused = |error: String| SetupError::Tls { upstream: upstream.to_owned(), problem: error };
    let (roots, given) = roots(upstream, ca_file, environment)?;
    let roots = Arc::new(roots);
    let inner = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .map_err(|error| refused(error.to_string()))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { inner, given }))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Whom to trust, and what `ca_file` holds of it.
fn roots(
    upstream: &str,
    ca_file: Option<&Path>,
    environment: &Environment,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), SetupError> {
    let (file, folder) = (environment.path("SSL_CERT_FILE"), environment.path("SSL_CERT_DIR"));
    let system = if file.is_some() || folder.is_some() {
        rustls_native_certs::load_certs_from_paths(file.as_deref(), folder.as_deref())
    } else {
        rustls_native_certs::load_native_certs()
    };
    let (mut roots, mut given) = (RootCertStore::empty(), Vec::new());
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca_file {
        let unusable =
            |problem: String| SetupError::CaFile { upstream: upstream.to_owned(), path: path.to_owned(), problem };
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))? {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots.add(certificate.clone()).map_err(|error| unusable(error.to_string()))?;
            given.push(certificate);
        }
        if roots.len() == before {
            return Err(unusable("holds no certificate; it must be PEM (-----BEGIN CERTIFICATE-----)".to_owned()));
        }
    }
    if roots.is_empty() {
        let problem = system.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(SetupError::NoRoots { upstream: upstream.to_owned(), problem });
    }
    Ok((roots, given))
}

/// Why a handshake failed, for an operator.
pub(in crate::upstream) fn explain(error: &std::io::Error) -> String {
    let source = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match source {
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) => inner.to_string(),
        Some(Error::InvalidMessage(_)) => "the answer is not TLS; is this the right port, or is it http://?".to_owned(),
        Some(other) => other.to_string(),
        None => format!("the handshake broke off: {error}"),
    }
}

/// The usual verification, whose refusals remember who had issued what was presented.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    /// Certificates that the operator trusts as they are. A registry may present one of them itself: what the documentation of registries
    /// has people make (`openssl req -x509`) is its own authority, which the usual verification takes for no server's.
    given: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// Whether the operator has given this very certificate, for this name, and it has not expired.
    fn is_given(&self, presented: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> bool {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let holds = |it: Certificate<'_>| (it.not_before()..=it.not_after()).contains(&now);
        self.given.iter().any(|given| given == presented)
            && Certificate::parse(presented).is_some_and(holds)
            && ParsedCertificate::try_from(presented).is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{problem}, issued by {issuer}; {remedy}")]
struct Untrusted {
    problem: String,
    issuer: String,
    remedy: &'static str,
}

impl Untrusted {
    fn new(error: &CertificateError, presented: &CertificateDer<'_>) -> Self {
        let (problem, remedy) = match error {
            CertificateError::UnknownIssuer => (
                "the certificate is not trusted".to_owned(),
                "if that is your network's inspection or your own authority, give its root in ca_file or SSL_CERT_FILE",
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                ("the certificate has expired".to_owned(), "check this machine's clock, else renew it at the server")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                ("the certificate is not valid yet".to_owned(), "check this machine's clock")
            }
            other => (
                format!("the certificate is not accepted ({other})"),
                "check the address; a root of your own goes into ca_file or SSL_CERT_FILE",
            ),
        };
        let issuer = Certificate::parse(presented).and_then(|certificate| certificate.issuer());
        let issuer = issuer.map_or_else(|| "nobody named".to_owned(), |name| format!("'{name}'"));
        Self { problem, issuer, remedy }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if verdict.is_err() && self.is_given(end_entity, server_name, now) {
            return Ok(ServerCertVerified::assertion());
        }
        verdict.map_err(|error| match error {
            Error::InvalidCertificate(reason) => {
                let untrusted = Untrusted::new(&reason, end_entity);
                Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(untrusted))))
            }
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_root_store_and_a_wrong_ca_file_are_said_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        let environment = Environment::default().with("SSL_CERT_FILE", &empty);
        let error = config("r.io", None, &environment).unwrap_err().to_string();
        assert!(error.contains("no trusted root certificate") && error.contains("ca_file"), "{error}");
        let error = config("r.io", Some(&empty), &environment).unwrap_err().to_string();
        assert!(error.contains("empty.pem: holds no certificate"), "{error}");
        let missing = folder.path().join("missing.pem");
        let error = config("r.io", Some(&missing), &environment).unwrap_err().to_string();
        assert!(error.contains("missing.pem"), "{error}");
    }
}
