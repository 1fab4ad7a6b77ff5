//! The key and certificate with which a service principal proves itself: one PEM file, read again at each need.

use super::secret::read_private;
use rustls::SignatureAlgorithm;
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// An RSA key with its certificate, and perhaps with the certificates of those who issued it.
pub struct SigningCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn SigningKey>,
}

impl SigningCertificate {
    /// Reads and checks the file; the error is a sentence that names it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = read_private(path).map_err(|error| error.to_string())?;
        Self::parse(&text).map_err(|problem| format!("certificate file {} {problem}", path.display()))
    }

    fn parse(pem: &str) -> Result<Self, String> {
        if pem.contains("ENCRYPTED") {
            return Err("has an encrypted key: write the key without a passphrase (openssl pkey -in OLD -out NEW), readable for \
                        larder alone"
                .to_owned());
        }
        let both = "put both in one PEM file: -----BEGIN PRIVATE KEY----- and -----BEGIN CERTIFICATE-----";
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let mut chain = chain.map_err(|error| format!("cannot be read as PEM ({error}): {both}"))?;
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| format!("holds no private key: {both}"))?;
        if chain.is_empty() {
            return Err(format!("holds no certificate: {both}"));
        }
        let key = any_supported_type(&key).map_err(|_| format!("holds a private key that cannot be used: {RSA}"))?;
        if key.algorithm() != SignatureAlgorithm::RSA {
            return Err(format!("holds a key that is not RSA (an elliptic-curve key, say): {RSA}"));
        }
        // The key's own certificate goes first, wherever it stands in the file.
        let is_own = |certificate: &CertificateDer<'static>| {
            CertifiedKey::new(vec![certificate.clone()], Arc::clone(&key)).keys_match().is_ok()
        };
        let Some(own) = chain.iter().position(is_own) else {
            return Err("holds a key and a certificate that do not belong together: write the key that this certificate was made \
                        for"
            .to_owned());
        };
        chain[..=own].rotate_right(1);
        Ok(Self { chain, key })
    }

    /// The key's own certificate, then the others.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Signs as `RS256` does (RFC 7518, section 3.3).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256])?.sign(message).ok()
    }
}

/// What Entra takes.
const RSA: &str =
    "Entra takes RSA keys, make one (openssl req -x509 -newkey rsa:2048 -nodes) and register its certificate";

impl fmt::Debug for SigningCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningCertificate")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};
    use std::sync::OnceLock;

    fn certificate(key: &KeyPair) -> String {
        CertificateParams::new(vec!["larder".to_owned()]).unwrap().self_signed(key).unwrap().pem()
    }

    /// An RSA key in PKCS#8; making one takes a while.
    fn rsa() -> &'static KeyPair {
        static KEY: OnceLock<KeyPair> = OnceLock::new();
        KEY.get_or_init(|| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap())
    }

    fn problem(pem: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.pem");
        std::fs::write(&path, pem).unwrap();
        let problem = SigningCertificate::read(&path).unwrap_err();
        assert!(problem.contains(&path.display().to_string()), "{problem}");
        problem
    }

    #[test]
    fn a_pair_in_any_order_is_taken_and_signs() {
        let (key, own) = (rsa().serialize_pem(), certificate(rsa()));
        let issuer = certificate(&KeyPair::generate().unwrap());
        let pkcs1 = pem_of_pkcs1();
        for pem in
            [format!("{key}{own}"), format!("{own}{key}"), format!("{issuer}{own}{key}"), format!("{pkcs1}{own}")]
        {
            let pair = SigningCertificate::parse(&pem).unwrap();
            assert_eq!(pair.chain()[0], CertificateDer::from_pem_slice(own.as_bytes()).unwrap());
            assert_eq!(pair.chain().len(), pem.matches("BEGIN CERTIFICATE").count());
            assert_eq!(pair.sign(b"x").unwrap().len(), 256);
        }
    }

    /// The same key as PKCS#1: what stands within PKCS#8's octet string.
    fn pem_of_pkcs1() -> String {
        use base64::Engine as _;
        let pkcs8 = rsa().serialize_der();
        // SEQUENCE, version, algorithm (15 bytes), OCTET STRING with a length of two bytes.
        let inner = &pkcs8[4 + 3 + 15 + 4..];
        let body = base64::engine::general_purpose::STANDARD.encode(inner);
        format!("-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----\n")
    }

    #[test]
    fn what_cannot_sign_for_entra_is_refused_in_words() {
        let (key, own) = (rsa().serialize_pem(), certificate(rsa()));
        let curve = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        assert!(problem(&own).contains("holds no private key"));
        assert!(problem(&key).contains("holds no certificate"));
        assert!(problem(&format!("{key}{}", certificate(&curve))).contains("do not belong together"));
        assert!(problem(&format!("{}{}", curve.serialize_pem(), certificate(&curve))).contains("not RSA"));
        let locked = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        assert!(problem(&format!("{locked}{own}")).contains("without a passphrase"));
        assert!(problem("nonsense\n").contains("holds no private key"));
    }
}
