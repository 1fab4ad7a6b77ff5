//! Reads the issuer's name out of a certificate, for the one sentence that tells an operator whose certificate was presented.
//!
//! Only as much DER as that needs; what does not fit is no error but an unknown issuer. Nothing is decided upon this.

/// `CN` and `O` of the issuer as `CN=…, O=…`; `None` if the certificate has neither or cannot be read.
pub(in crate::upstream) fn issuer(certificate: &[u8]) -> Option<String> {
    let (_, outer, _) = element(certificate)?;
    let (_, tbs, _) = element(outer)?;
    let (tag, _, mut rest) = element(tbs)?;
    if tag == 0xA0 {
        (_, _, rest) = element(rest)?; // the serial number, behind an explicit version
    }
    let (_, _, rest) = element(rest)?; // the signature's algorithm
    let (_, name, _) = element(rest)?;
    let parts = [(&[0x55, 4, 3], "CN"), (&[0x55, 4, 10], "O")];
    let found: Vec<_> =
        parts.iter().filter_map(|(oid, label)| Some(format!("{label}={}", attribute(name, oid.as_slice())?))).collect();
    (!found.is_empty()).then(|| found.join(", "))
}

/// The first value of the attribute in a distinguished name.
fn attribute(mut name: &[u8], wanted: &[u8]) -> Option<String> {
    while let Some((_, set, rest)) = element(name) {
        name = rest;
        let Some((_, pair, _)) = element(set) else { continue };
        let Some((_, oid, value)) = element(pair) else { continue };
        if oid == wanted {
            let (_, text, _) = element(value)?;
            let text = String::from_utf8_lossy(text);
            return Some(text.chars().filter(|c| !c.is_control()).take(100).collect());
        }
    }
    None
}

/// Tag, content and what follows of the first element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            (bytes.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_the_issuer() {
        let mut parameters = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "Contoso Inspection");
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "Contoso Root");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        assert_eq!(issuer(certificate.der()).unwrap(), "CN=Contoso Root, O=Contoso Inspection");
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            issuer(&bytes);
        }
    }
}
