//! What `Authorization` shows.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderValue;
use zeroize::Zeroizing;

/// Padding is often left out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A user and a password, wiped from memory when dropped.
pub(super) struct Basic {
    pair: Zeroizing<Vec<u8>>,
    colon: usize,
}

impl Basic {
    /// Reads `Basic …` (RFC 7617). `None`: it is something else, or no text.
    pub(super) fn read(authorization: &HeaderValue) -> Option<Self> {
        let encoded = scheme(authorization, "basic")?;
        // The whole capacity at once: growing would leave copies behind that nobody wipes.
        let mut pair = Zeroizing::new(Vec::with_capacity(encoded.len()));
        BASE64.decode_vec(encoded, &mut pair).ok()?;
        std::str::from_utf8(&pair).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        Some(Self { pair, colon })
    }

    /// The same of a user and a password that came otherwise.
    pub(super) fn of(user: &str, password: &str) -> Self {
        let mut pair = Zeroizing::new(Vec::with_capacity(user.len() + 1 + password.len()));
        pair.extend_from_slice(user.as_bytes());
        pair.push(b':');
        pair.extend_from_slice(password.as_bytes());
        Self { pair, colon: user.len() }
    }

    /// The user's name.
    pub(super) fn user(&self) -> &str {
        std::str::from_utf8(&self.pair[..self.colon]).unwrap_or_default()
    }

    pub(super) fn password(&self) -> &[u8] {
        &self.pair[self.colon + 1..]
    }

    /// User and password, as they came.
    pub(super) fn pair(&self) -> &[u8] {
        &self.pair
    }
}

/// What stands behind a scheme's name.
pub(super) fn scheme<'a>(authorization: &'a HeaderValue, name: &str) -> Option<&'a str> {
    let (scheme, rest) = authorization.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case(name).then(|| rest.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(line: &str) -> Option<(String, Vec<u8>)> {
        let basic = Basic::read(&HeaderValue::from_str(line).unwrap())?;
        Some((basic.user().to_owned(), basic.password().to_vec()))
    }

    #[test]
    fn user_and_password_are_split_at_the_first_colon() {
        let both = Some(("ci".to_owned(), b"p:w".to_vec()));
        for line in ["Basic Y2k6cDp3", "basic Y2k6cDp3", "BASIC   Y2k6cDp3 "] {
            assert_eq!(read(line), both, "{line}");
        }
        assert_eq!(read("Basic YTo="), Some(("a".to_owned(), Vec::new())));
        assert_eq!(read("Basic YTo"), Some(("a".to_owned(), Vec::new())), "without its padding");
        for line in ["Basic", "Basic ", "Basic Y2k", "Basic ****", "Bearer Y2k6cDp3", "Basic /w==", "Y2k6cDp3"] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(32u8..=126, 0..80)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let _ = Basic::read(&value);
            }
        }
    }
}
