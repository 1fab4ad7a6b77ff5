//! What larder wants to know of a certificate: whom it names, and from when to when it holds.
//!
//! Whether a certificate is to be believed is decided elsewhere, by the TLS library. This reads only as much as that leaves open.

mod der;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Bytes of a name; a longer one is no name.
const LONGEST_NAME: usize = 255;

const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ORGANIZATION: &[u8] = &[0x55, 4, 10];
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1D, 17];
/// The kinds of alternative names that are looked at.
const EMAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
const IP: u8 = 0x87;

/// Whom a client's verified certificate names: its subject's common name, else its first alternative name of DNS, e-mail and URI, in
/// this order.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientName(Arc<str>);

impl ClientName {
    /// The name in a certificate. `None`: it names nobody, or several, or not in a text that people could write down.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let certificate = Certificate::parse(certificate)?;
        let mut common = certificate.subject_values(COMMON_NAME);
        let name = match (common.next(), common.next()) {
            (Some((tag, content)), None) => der::text(tag, content)?,
            (Some(_), Some(_)) => return None,
            (None, _) => certificate.first_alternative()?,
        };
        let is_usable = !name.is_empty()
            && name.len() <= LONGEST_NAME
            && name.trim() == name
            && !name.chars().any(|c| c.is_control() || is_invisible(c));
        is_usable.then(|| Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Characters that show nothing or turn the text around: a name with them looks like another one in a log.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
}

/// The parts of an X.509 certificate that are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Certificate<'a> {
    issuer: &'a [u8],
    subject: &'a [u8],
    extensions: &'a [u8],
    not_before: i64,
    not_after: i64,
}

impl<'a> Certificate<'a> {
    /// Reads DER. `None`: that is no certificate.
    #[must_use]
    pub fn parse(certificate: &'a [u8]) -> Option<Self> {
        let (outer, _) = der::tagged(certificate, der::SEQUENCE)?;
        let (tbs, _) = der::tagged(outer, der::SEQUENCE)?;
        let (tag, _, mut rest) = der::element(tbs)?;
        if tag == 0xA0 {
            (_, _, rest) = der::element(rest)?; // the serial number, behind an explicit version
        }
        let (_, rest) = der::tagged(rest, der::SEQUENCE)?; // the signature's algorithm
        let (issuer, rest) = der::tagged(rest, der::SEQUENCE)?;
        let (validity, rest) = der::tagged(rest, der::SEQUENCE)?;
        let (subject, rest) = der::tagged(rest, der::SEQUENCE)?;
        let (_, rest) = der::tagged(rest, der::SEQUENCE)?; // the public key
        let extensions = der::elements(rest).find(|(tag, _)| *tag == 0xA3);
        let extensions = extensions.and_then(|(_, wrapped)| der::tagged(wrapped, der::SEQUENCE));
        let mut times = der::elements(validity).map(|(tag, text)| der::unix_time(tag, text));
        let (not_before, not_after) = (times.next()??, times.next()??);
        let extensions = extensions.map_or(&[][..], |(content, _)| content);
        Some(Self { issuer, subject, extensions, not_before, not_after })
    }

    /// When it begins to hold, in Unix seconds.
    #[must_use]
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// When it ends, in Unix seconds.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// The subject's common name, if it has one.
    #[must_use]
    pub fn common_name(&self) -> Option<String> {
        let (tag, content) = self.subject_values(COMMON_NAME).next()?;
        der::text(tag, content)
    }

    /// Who issued it, as `CN=…, O=…`, for people. `None` if neither is there.
    #[must_use]
    pub fn issuer(&self) -> Option<String> {
        shown(self.issuer)
    }

    /// The issuer's whole name as it stands there, to be held against another certificate's [`Self::subject_der`].
    #[must_use]
    pub fn issuer_der(&self) -> &'a [u8] {
        self.issuer
    }

    /// The subject's whole name as it stands there.
    #[must_use]
    pub fn subject_der(&self) -> &'a [u8] {
        self.subject
    }

    /// The DNS names and addresses that it holds for, in their order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let names = self.alternatives().filter_map(|(tag, content)| match tag {
            DNS => der::text(der::IA5, content),
            IP => address(content).map(|address| address.to_string()),
            _ => None,
        });
        names.collect()
    }

    fn subject_values(&self, oid: &'static [u8]) -> impl Iterator<Item = (u8, &'a [u8])> {
        values(self.subject, oid)
    }

    fn first_alternative(&self) -> Option<String> {
        let first = |wanted| self.alternatives().find(|(tag, _)| *tag == wanted);
        let (_, content) = first(DNS).or_else(|| first(EMAIL)).or_else(|| first(URI))?;
        der::text(der::IA5, content)
    }

    fn alternatives(&self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let names = der::elements(self.extensions).find_map(|(_, extension)| {
            let (_, oid, rest) = der::element(extension)?;
            let (tag, content, rest) = der::element(rest)?;
            let content = if tag == der::BOOLEAN { der::element(rest)?.1 } else { content };
            (oid == SUBJECT_ALTERNATIVE_NAME).then(|| der::tagged(content, der::SEQUENCE))?
        });
        der::elements(names.map_or(&[][..], |(names, _)| names))
    }
}

/// The values of an attribute in a distinguished name.
fn values<'a>(name: &'a [u8], oid: &'static [u8]) -> impl Iterator<Item = (u8, &'a [u8])> {
    der::elements(name).flat_map(|(_, set)| der::elements(set)).filter_map(move |(_, pair)| {
        let (_, found, rest) = der::element(pair)?;
        let (tag, value, _) = der::element(rest)?;
        (found == oid).then_some((tag, value))
    })
}

fn shown(name: &[u8]) -> Option<String> {
    let parts = [(COMMON_NAME, "CN"), (ORGANIZATION, "O")].into_iter().filter_map(|(oid, label)| {
        let (_, text) = values(name, oid).next()?;
        let text = String::from_utf8_lossy(text);
        let text: String = text.chars().filter(|c| !c.is_control()).take(100).collect();
        Some(format!("{label}={text}"))
    });
    let parts: Vec<_> = parts.collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};

    fn made(subject: &[(DnType, DnValue)], alternatives: Vec<SanType>) -> Vec<u8> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            parameters.distinguished_name.push(kind.clone(), value.clone());
        }
        parameters.subject_alt_names = alternatives;
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 2);
        parameters.not_after = rcgen::date_time_ymd(2051, 3, 4);
        parameters.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn common(name: &str) -> Vec<(DnType, DnValue)> {
        vec![(DnType::OrganizationName, "Contoso".into()), (DnType::CommonName, name.into())]
    }

    fn name(subject: &[(DnType, DnValue)], alternatives: Vec<SanType>) -> Option<String> {
        ClientName::of(&made(subject, alternatives)).map(|name| name.to_string())
    }

    fn alternatives() -> [SanType; 4] {
        [
            SanType::URI("spiffe://contoso/ci".try_into().unwrap()),
            SanType::Rfc822Name("ci@contoso.com".try_into().unwrap()),
            SanType::IpAddress([10, 0, 0, 1].into()),
            SanType::DnsName("ci.contoso.com".try_into().unwrap()),
        ]
    }

    #[test]
    fn a_client_is_its_common_name_else_its_first_alternative_of_dns_mail_and_uri() {
        let [uri, mail, ip, dns] = alternatives();
        assert_eq!(name(&common("ci"), vec![dns.clone()]).unwrap(), "ci");
        let organization = [(DnType::OrganizationName, DnValue::from("Contoso"))];
        assert_eq!(name(&organization, vec![uri.clone(), mail.clone(), ip.clone(), dns]).unwrap(), "ci.contoso.com");
        assert_eq!(name(&organization, vec![uri.clone(), mail, ip.clone()]).unwrap(), "ci@contoso.com");
        assert_eq!(name(&[], vec![ip.clone(), uri]).unwrap(), "spiffe://contoso/ci");
        assert_eq!(name(&[], vec![ip]), None);
        let bmp = DnValue::BmpString("bücher".try_into().unwrap());
        assert_eq!(name(&[(DnType::CommonName, bmp)], Vec::new()).unwrap(), "bücher");
    }

    #[test]
    fn a_name_that_could_pass_for_another_names_nobody() {
        let [_, _, _, dns] = alternatives();
        for odd in ["", " ci", "ci\0", "ci\nadmin", "c\u{200B}i", "\u{202E}ic", &"x".repeat(256)] {
            assert_eq!(name(&common(odd), vec![dns.clone()]), None, "{odd:?}");
        }
    }

    #[test]
    fn several_common_names_name_nobody() {
        // rcgen writes one of each kind, so a second kind of the same length is turned into a common name.
        let mut der =
            made(&[(DnType::CommonName, "ci".into()), (DnType::OrganizationName, "admin".into())], Vec::new());
        assert_eq!(ClientName::of(&der).unwrap().as_str(), "ci");
        let organization = [0x06, 3, 0x55, 4, 10];
        let places: Vec<_> = (0..der.len() - 5).filter(|&at| der[at..at + 5] == organization).collect();
        for at in places {
            der[at + 4] = 3;
        }
        assert_eq!(ClientName::of(&der), None);
    }

    #[test]
    fn a_certificate_says_how_long_it_holds_and_for_what() {
        let [uri, _, ip, dns] = alternatives();
        let der = made(&common("Contoso Root"), vec![uri, ip, dns]);
        let certificate = Certificate::parse(&der).unwrap();
        assert_eq!((certificate.not_before(), certificate.not_after()), (1_767_312_000, 2_561_500_800));
        assert_eq!(certificate.issuer().unwrap(), "CN=Contoso Root, O=Contoso");
        assert_eq!(certificate.issuer_der(), certificate.subject_der());
        assert_eq!(certificate.names(), ["10.0.0.1", "ci.contoso.com"]);
    }

    #[test]
    fn a_certificate_cut_anywhere_is_none_or_names_the_same() {
        let der = made(&common("ci"), alternatives().to_vec());
        for end in 0..der.len() {
            assert_eq!(ClientName::of(&der[..end]), None, "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0..2000_usize, byte: u8) {
            let _ = (ClientName::of(&bytes), Certificate::parse(&bytes).map(|it| (it.names(), it.issuer())));
            let mut real = made(&common("ci"), alternatives().to_vec());
            let at = at % real.len();
            real[at] = byte;
            let _ = (ClientName::of(&real), Certificate::parse(&real).map(|it| (it.names(), it.issuer())));
        }
    }
}
