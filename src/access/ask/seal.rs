//! Keyed hashes under which credentials are found again, and tokens of larder's own: both with a key that dies with the process.

use super::Shown;
use crate::oci::{Deed, Grants, Registry};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(in crate::access) type Key = [u8; 32];

/// Makes keys of credentials, and signs.
pub(in crate::access) struct Seal {
    hashing: hmac::Key,
    signing: hmac::Key,
}

/// What a token of larder's own says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::access) struct Own {
    /// `user`: of the users file; `access`: what upstream granted before; `refresh`: that upstream let this login in before.
    pub(in crate::access) kind: String,
    /// The upstream's name.
    pub(in crate::access) aud: String,
    /// Unix seconds.
    pub(in crate::access) exp: u64,
    /// The user's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::access) sub: Option<String>,
    /// What it allows, as a scope.
    #[serde(default)]
    pub(in crate::access) access: serde_json::Value,
    /// Of a user, the key of the stored hash; of a login, its key.
    #[serde(default)]
    pub(in crate::access) of: String,
}

impl Own {
    pub(in crate::access) fn grants(&self) -> Grants {
        let claims = serde_json::json!({ "access": self.access });
        Grants::of_claims(claims.to_string().as_bytes()).unwrap_or_default()
    }
}

/// Whatever is signed begins so.
const HEAD: &str = r#"{"alg":"HS256","typ":"JWT","kid":"larder"}"#;

impl Seal {
    pub(in crate::access) fn new() -> Self {
        Self { hashing: process_key(), signing: process_key() }
    }

    /// The key of some parts, each with its length: nothing can be moved from one to the next.
    pub(in crate::access) fn key(&self, parts: &[&[u8]]) -> Key {
        let mut context = hmac::Context::with_key(&self.hashing);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.sign().as_ref());
        key
    }

    /// The key of a verdict: of this credential, on this upstream, for this and nothing else.
    pub(in crate::access) fn verdict(&self, registry: &Registry, shown: &Shown, deed: &Deed) -> Key {
        let (what, name) = deed.right();
        let [kind, user, secret] = parts(shown);
        self.key(&[b"verdict", registry.as_str().as_bytes(), kind, user, secret, what.as_bytes(), name.as_bytes()])
    }

    /// The key of a credential at an upstream.
    pub(in crate::access) fn credential(&self, registry: &Registry, shown: &Shown) -> Key {
        let [kind, user, secret] = parts(shown);
        self.key(&[b"credential", registry.as_str().as_bytes(), kind, user, secret])
    }

    /// A signed token.
    pub(in crate::access) fn sign(&self, own: &Own) -> String {
        let claims = serde_json::to_string(own).unwrap_or_default();
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEAD), URL_SAFE_NO_PAD.encode(claims));
        let signature = hmac::sign(&self.signing, text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Reads a token that larder has signed for this upstream and that lives still.
    pub(in crate::access) fn open(&self, token: &str, registry: &Registry) -> Option<Own> {
        let (text, signature) = token.rsplit_once('.')?;
        let (head, claims) = text.split_once('.')?;
        hmac::verify(&self.signing, text.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        if URL_SAFE_NO_PAD.decode(head).ok()? != HEAD.as_bytes() {
            return None;
        }
        let own: Own = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        (own.aud == registry.as_str() && own.exp > unix(SystemTime::now())).then_some(own)
    }

    /// Whether a token says to be larder's own: nobody else is to be shown it.
    pub(in crate::access) fn is_own(token: &str) -> bool {
        token.split('.').next().is_some_and(|head| head == URL_SAFE_NO_PAD.encode(HEAD))
    }
}

fn parts(shown: &Shown) -> [&[u8]; 3] {
    match shown {
        Shown::Password { user, password } => [b"password", user.as_bytes(), password.as_bytes()],
        Shown::Bearer(token) => [b"token", b"", token.as_bytes()],
    }
}

/// Unix seconds.
pub(in crate::access) fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// A key that dies with the process.
pub(in crate::access) fn process_key() -> hmac::Key {
    // The system's random numbers do not fail once the process has begun; without them nothing is safe.
    let mut bytes = [0; 32];
    if rand::fill(&mut bytes).is_err() {
        tracing::error!("the system gives no random numbers: larder stops, since it could keep no secret");
        std::process::abort();
    }
    hmac::Key::new(hmac::HMAC_SHA256, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn own(kind: &str, aud: &str, exp: u64) -> Own {
        let access = Grants::of_scope("repository:a:pull").to_claim();
        Own { kind: kind.into(), aud: aud.into(), exp, sub: None, access, of: String::new() }
    }

    #[test]
    fn a_token_is_good_for_its_upstream_while_it_lives_and_with_its_signature_alone() {
        let (seal, registry) = (Seal::new(), Registry::new("a.io"));
        let later = unix(SystemTime::now()) + 60;
        let token = seal.sign(&own("access", "a.io", later));
        let opened = seal.open(&token, &registry).unwrap();
        assert!(opened.grants().cover(&Grants::of_scope("repository:a:pull")) && opened.kind == "access");
        assert!(Seal::is_own(&token) && !Seal::is_own("x.y.z"));
        assert!(seal.open(&token, &Registry::new("b.io")).is_none(), "another upstream's");
        assert!(Seal::new().open(&token, &registry).is_none(), "another process's");
        assert!(seal.open(&seal.sign(&own("access", "a.io", later - 120)), &registry).is_none(), "dead");
        let mut parts: Vec<&str> = token.split('.').collect();
        let claims = URL_SAFE_NO_PAD.encode(serde_json::to_string(&own("user", "a.io", later)).unwrap());
        parts[1] = &claims;
        assert!(seal.open(&parts.join("."), &registry).is_none(), "changed");
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        for forged in
            [format!("{none}.{claims}."), format!("{none}.{claims}"), claims.clone(), String::new(), "..".into()]
        {
            assert!(seal.open(&forged, &registry).is_none(), "{forged}");
        }
    }

    #[test]
    fn a_verdict_is_for_one_credential_one_upstream_one_repository_and_one_thing() {
        let seal = Seal::new();
        let password = |user: &str, password: &str| Shown::Password {
            user: user.into(),
            password: Zeroizing::new(password.into()),
        };
        let bearer = |token: &str| Shown::Bearer(Zeroizing::new(token.into()));
        let (a, b) = (Registry::new("a.io"), Registry::new("b.io"));
        let tag: crate::oci::Reference = "v1".parse().unwrap();
        let pull = |name: &str| Deed::Manifest(name.parse().unwrap(), tag.clone());
        let one = seal.verdict(&a, &password("ann", "pw"), &pull("x"));
        let digest = crate::oci::Digest::of(crate::oci::Algorithm::Sha256, b"");
        assert_eq!(
            one,
            seal.verdict(&a, &password("ann", "pw"), &Deed::Blob("x".parse().unwrap(), digest)),
            "one right"
        );
        for other in [
            seal.verdict(&b, &password("ann", "pw"), &pull("x")),
            seal.verdict(&a, &password("ann", "p"), &pull("x")),
            seal.verdict(&a, &password("annp", "w"), &pull("x")),
            seal.verdict(&a, &bearer("annpw"), &pull("x")),
            seal.verdict(&a, &password("ann", "pw"), &pull("x/y")),
            seal.verdict(&a, &password("ann", "pw"), &Deed::Push("x".parse().unwrap())),
            seal.verdict(&a, &password("ann", "pw"), &Deed::Tags("x".parse().unwrap())),
            seal.credential(&a, &password("ann", "pw")),
            Seal::new().verdict(&a, &password("ann", "pw"), &pull("x")),
        ] {
            assert_ne!(one, other);
        }
    }
}
