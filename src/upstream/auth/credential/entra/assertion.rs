//! The signed statement with which an application proves that it has its certificate's key (RFC 7523).

use crate::config::SigningCertificate;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use std::time::{Duration, SystemTime};

/// How long a statement is good, beside what it is back-dated: Entra wants at most five minutes. It is used at once.
const GOOD_FOR: Duration = Duration::from_secs(240);
/// How far this machine's clock may be ahead of Entra's.
const BACK_DATED: Duration = Duration::from_secs(60);

/// The statement of `client` for the token endpoint `audience`. The certificate is named by its SHA-1, which is a name here and
/// protects nothing; the chain goes along if the file has one, for applications that trust a subject and an issuer.
pub(super) fn signed(pair: &SigningCertificate, audience: &str, client: &str) -> Result<String, String> {
    let chain = pair.chain();
    let own = chain.first().ok_or("the certificate is gone")?;
    let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, own));
    let mut header = serde_json::json!({ "alg": "RS256", "typ": "JWT", "x5t": thumbprint });
    if chain.len() > 1 {
        header["x5c"] = chain.iter().map(|certificate| STANDARD.encode(certificate)).collect();
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let claims = serde_json::json!({
        "aud": audience,
        "iss": client,
        "sub": client,
        "jti": random_id()?,
        "nbf": now.saturating_sub(BACK_DATED).as_secs(),
        "exp": (now + GOOD_FOR).as_secs(),
    });
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = pair.sign(text.as_bytes()).ok_or("the certificate's key does not sign")?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// A random UUID (RFC 9562, version 4).
fn random_id() -> Result<String, String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "the system gives no random numbers")?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let number = format!("{:032x}", u128::from_be_bytes(bytes));
    Ok([&number[..8], &number[8..12], &number[12..16], &number[16..20], &number[20..]].join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_random_and_of_version_4() {
        let (one, other) = (random_id().unwrap(), random_id().unwrap());
        assert!(one != other && one.len() == 36 && one.as_bytes()[14] == b'4', "{one}");
    }
}
