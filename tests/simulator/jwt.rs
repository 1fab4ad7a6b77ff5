//! Signed tokens: RS256 with the key id and the claims that ACR's tokens have, and the kind that Distribution accepts.
//!
//! One key for the whole process: making one takes longer than most tests, and nothing depends on it being fresh. The
//! simulator itself never checks a signature; it remembers what it issued.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256, PublicKeyData as _, RsaKeySize, SigningKey as _};
use sha2::{Digest as _, Sha256};

struct Signer {
    key: KeyPair,
    key_id: String,
    certificate_pem: String,
    certificate_base64: String,
}

fn signer() -> &'static Signer {
    static SIGNER: OnceLock<Signer> = OnceLock::new();
    SIGNER.get_or_init(|| {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("an RSA key");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("certificate parameters");
        params.distinguished_name.push(DnType::CommonName, "acr-sim token signer");
        let certificate = params.self_signed(&key).expect("a self-signed certificate");
        Signer {
            key_id: libtrust_key_id(&key.subject_public_key_info()),
            certificate_pem: certificate.pem(),
            certificate_base64: STANDARD.encode(certificate.der()),
            key,
        }
    })
}

/// The certificate that checks the signatures, for `auth.token.rootcertbundle` of Distribution.
pub(super) fn certificate_pem() -> &'static str {
    &signer().certificate_pem
}

/// A token in ACR's form: `{"alg","typ","kid"}` and these claims (JSON).
pub(super) fn sign(claims: &str) -> String {
    let header = format!("{{\"alg\":\"RS256\",\"typ\":\"JWT\",\"kid\":\"{}\"}}", signer().key_id);
    sign_with(&header, claims)
}

/// A token whose header carries the certificate, which Distribution checks against its bundle.
pub(super) fn sign_with_certificate(claims: &str) -> String {
    let signer = signer();
    let header = format!(
        "{{\"alg\":\"RS256\",\"typ\":\"JWT\",\"kid\":\"{}\",\"x5c\":[\"{}\"]}}",
        signer.key_id, signer.certificate_base64
    );
    sign_with(&header, claims)
}

/// An RSA key with a certificate of its own: PEM of both, the certificate's DER, the public key (PKCS#1).
pub(super) fn pair(name: &str) -> (String, Vec<u8>, Vec<u8>) {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("an RSA key");
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("certificate parameters");
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.self_signed(&key).expect("a self-signed certificate");
    let pem = format!("{}{}", key.serialize_pem(), certificate.pem());
    (pem, certificate.der().to_vec(), key.der_bytes().to_vec())
}

fn sign_with(header: &str, claims: &str) -> String {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = signer().key.sign(text.as_bytes()).expect("an RSA signature");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// `ABCD:EFGH:…`: the first 240 bits of the public key's SHA-256 in base32, in twelve groups of four.
fn libtrust_key_id(public_key: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let hash = Sha256::digest(public_key);
    let letter = |five_bits: usize| {
        let value = (0..5).fold(0, |value, bit| {
            let at = five_bits * 5 + bit;
            value << 1 | usize::from(hash[at / 8] >> (7 - at % 8) & 1)
        });
        char::from(ALPHABET[value])
    };
    let letters: Vec<char> = (0..48).map(letter).collect();
    letters.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join(":")
}
