//! A certificate authority for one larder: it can speak for the names that it was made for, and for no other.
//!
//! Whoever trusts it trusts it for those names alone (name constraints), so that its key is worth no more than they are. Without its
//! key clients still trust it; only its certificates end after ninety days.

use crate::config::{Certificate, ServerNames};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType, SigningKey,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long the authority is good: a machine outlives it seldom, and its key does not leave the machine.
const AUTHORITY: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How long a server's certificate is good.
pub(in crate::server) const CERTIFICATE: Duration = Duration::from_secs(90 * 24 * 3600);

/// What went wrong, for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuthorityError(String);

fn failed(what: &str) -> impl Fn(rcgen::Error) -> AuthorityError {
    move |error| AuthorityError(format!("{what}: {error}"))
}

/// An authority with its key.
pub struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one for these names and addresses.
    pub fn create(names: &ServerNames, now: SystemTime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate().map_err(failed("cannot make a key"))?;
        let mut params = subject(&format!("larder's authority for {}", names.first()), now, AUTHORITY);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = Some(constraints(names));
        let made = params.self_signed(&key).map_err(failed("cannot make the authority"))?;
        let (certificate, pem) = (made.der().clone(), made.pem());
        Ok(Self { certificate, pem, issuer: Issuer::new(params, key) })
    }

    /// One that was made before, by the same program: its certificate and its key in PEM.
    pub fn load(pem: &str, key: &str) -> Result<Self, AuthorityError> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes());
        let certificate =
            certificate.map_err(|error| AuthorityError(format!("the authority's certificate: {error}")))?;
        let name = Certificate::parse(&certificate).and_then(|certificate| certificate.common_name());
        let name = name.ok_or_else(|| AuthorityError("the authority's certificate has no name".to_owned()))?;
        let key = KeyPair::from_pem(key).map_err(failed("the authority's key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished(&name);
        Ok(Self { certificate, pem: pem.to_owned(), issuer: Issuer::new(params, key) })
    }

    /// Its certificate in PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate in PEM for these names, held against the authority's own before it is given out.
    pub fn issue(&self, names: &ServerNames, key: &impl SigningKey, now: SystemTime) -> Result<String, AuthorityError> {
        let mut params = subject(names.first(), now, CERTIFICATE);
        params.subject_alt_names = names.dns().iter().map(|name| dns(name)).collect::<Result<_, _>>()?;
        params.subject_alt_names.extend(names.addresses().iter().copied().map(SanType::IpAddress));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let made = params.signed_by(key, &self.issuer).map_err(failed("cannot make the certificate"))?;
        self.verify(made.der(), names, now)?;
        Ok(made.pem())
    }

    /// Whether clients that trust the authority accept the certificate for each of the names.
    fn verify(&self, made: &CertificateDer<'_>, names: &ServerNames, now: SystemTime) -> Result<(), AuthorityError> {
        let wrong =
            |error: rustls::Error| AuthorityError(format!("the authority does not vouch for these names: {error}"));
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).map_err(wrong)?;
        let provider = aws_lc_rs::default_provider().into();
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build();
        let verifier = verifier.map_err(|error| AuthorityError(error.to_string()))?;
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        let dns = names.dns().iter().filter_map(|name| ServerName::try_from(name.as_str()).ok());
        let addresses = names.addresses().iter().map(|address| ServerName::from(*address));
        for name in dns.chain(addresses) {
            verifier.verify_server_cert(made, &[], &name, &[], now).map_err(wrong)?;
        }
        Ok(())
    }
}

/// A new key for a server.
pub fn server_key() -> Result<KeyPair, AuthorityError> {
    KeyPair::generate().map_err(failed("cannot make a key"))
}

fn subject(name: &str, now: SystemTime, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished(name);
    // A client whose clock is a little behind accepts it too.
    params.not_before = now.checked_sub(DAY).unwrap_or(now).into();
    params.not_after = (now + lifetime).into();
    params
}

fn distinguished(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    // Names of certificates have 64 characters at most.
    distinguished.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    distinguished
}

fn dns(name: &str) -> Result<SanType, AuthorityError> {
    let name = name.try_into().map_err(failed("a name that no certificate can hold"))?;
    Ok(SanType::DnsName(name))
}

/// A kind of name that is not mentioned would be free, so each is.
fn constraints(names: &ServerNames) -> NameConstraints {
    let subnet = |address: IpAddr| CidrSubnet::from_addr_prefix(address, if address.is_ipv4() { 32 } else { 128 });
    let dns = names.dns().iter().cloned().map(GeneralSubtree::DnsName);
    let addresses = names.addresses().iter().map(|address| GeneralSubtree::IpAddress(subnet(*address)));
    NameConstraints { permitted_subtrees: dns.chain(addresses).collect(), excluded_subtrees: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> ServerNames {
        ServerNames::parse(names.iter().map(|name| (*name).to_owned())).unwrap()
    }

    #[test]
    fn a_certificate_is_good_for_ninety_days_and_the_names_that_were_asked_for() {
        let now = SystemTime::now();
        let wanted = names(&["myacr.azurecr.io", "10.0.0.7"]);
        let authority = Authority::create(&wanted, now).unwrap();
        let pem = authority.issue(&wanted, &server_key().unwrap(), now).unwrap();
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let certificate = Certificate::parse(&der).unwrap();
        assert_eq!(certificate.names(), ["myacr.azurecr.io", "localhost", "10.0.0.7", "127.0.0.1", "::1"]);
        assert_eq!((certificate.not_after() - certificate.not_before()) / 86_400, 91);
    }

    #[test]
    fn an_authority_speaks_for_no_other_name() {
        let now = SystemTime::now();
        let authority = Authority::create(&names(&["myacr.azurecr.io"]), now).unwrap();
        for other in ["github.com", "azurecr.io", "notmyacr.azurecr.io", "10.0.0.7", "2001:db8::1"] {
            let error = authority.issue(&names(&[other]), &server_key().unwrap(), now).unwrap_err();
            assert!(error.to_string().contains("does not vouch"), "{other}: {error}");
        }
    }

    #[test]
    fn an_authority_that_was_written_down_issues_again_and_a_foreign_key_does_not() {
        let now = SystemTime::now();
        let wanted = names(&["myacr.azurecr.io"]);
        let authority = Authority::create(&wanted, now).unwrap();
        let again = Authority::load(authority.pem(), &authority.key_pem()).unwrap();
        again.issue(&wanted, &server_key().unwrap(), now).unwrap();
        let foreign = Authority::load(authority.pem(), &server_key().unwrap().serialize_pem()).unwrap();
        assert!(foreign.issue(&wanted, &server_key().unwrap(), now).is_err());
        assert!(Authority::load("", &authority.key_pem()).is_err() && Authority::load(authority.pem(), "x").is_err());
    }
}
