//! A session as its client holds it: upstream's own address and how far the upload has come, encrypted in one path component: its token.
//!
//! AES-256-GCM under the store's key, with upstream and repository as associated data: a token cannot be used for another
//! repository, another upstream, or by a larder with another key. What is inside is for larder alone: upstream's address, and
//! its state, which may be signed.

use crate::oci::Repository;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;

/// No address of an upstream is longer that would still fit into a request's head.
const LONGEST: usize = 16 << 10;
/// Set where it is not known how far the upload has come.
const UNKNOWN: u64 = u64::MAX;

/// A session of an upload.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Session {
    /// What its local copy is known by.
    pub(super) id: u128,
    /// Bytes that upstream has, if that is known.
    pub(super) offset: Option<u64>,
    /// Upstream's own address for it, absolute.
    pub(super) location: String,
}

/// Never the location: it holds what upstream has signed.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("offset", &self.offset).finish_non_exhaustive()
    }
}

/// The key that encrypts sessions.
pub(super) struct SessionKey(RandomizedNonceKey);

impl SessionKey {
    /// `None`: the library takes no such key, which does not happen with 32 bytes.
    pub(super) fn new(key: &[u8; 32]) -> Option<Self> {
        RandomizedNonceKey::new(&AES_256_GCM, key).ok().map(Self)
    }

    /// The session as one path component. `None`: its address is longer than any that could be used.
    pub(super) fn encrypt(&self, repository: &Repository, session: &Session) -> Option<String> {
        let mut content = Vec::with_capacity(session.location.len() + 64);
        content.extend_from_slice(&session.id.to_be_bytes());
        content.extend_from_slice(&session.offset.unwrap_or(UNKNOWN).to_be_bytes());
        content.extend_from_slice(session.location.as_bytes());
        if content.len() > LONGEST {
            return None;
        }
        self.encrypt_content(repository, content)
    }

    fn encrypt_content(&self, repository: &Repository, mut content: Vec<u8>) -> Option<String> {
        let nonce = self.0.seal_in_place_append_tag(bound_to(repository), &mut content).ok()?;
        let mut token = nonce.as_ref().to_vec();
        token.append(&mut content);
        Some(URL_SAFE_NO_PAD.encode(token))
    }

    /// The session in a component that this key has encrypted for this repository; `None` for anything else.
    pub(super) fn decrypt(&self, repository: &Repository, token: &str) -> Option<Session> {
        if token.len() > 2 * LONGEST {
            return None;
        }
        let mut token = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (nonce, content) = token.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let content = self.0.open_in_place(nonce, bound_to(repository), content).ok()?;
        let (id, rest) = content.split_first_chunk::<16>()?;
        let (offset, location) = rest.split_first_chunk::<8>()?;
        let offset = u64::from_be_bytes(*offset);
        Some(Session {
            id: u128::from_be_bytes(*id),
            offset: (offset != UNKNOWN).then_some(offset),
            location: String::from_utf8(location.to_vec()).ok()?,
        })
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey")
    }
}

/// A line feed is in no name, so that two of them cannot be taken for another two.
fn bound_to(repository: &Repository) -> Aad<String> {
    Aad::from(format!("larder upload 1\n{}\n{}", repository.registry, repository.name))
}

/// Whatever a client sends as a session, and whatever is encrypted: see `crate::fuzzing`.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(input: &[u8]) {
    use crate::oci::Registry;
    use std::sync::LazyLock;

    const KEY: [u8; 32] = [1; 32];
    static KEYS: LazyLock<Option<(SessionKey, SessionKey)>> =
        LazyLock::new(|| Some((SessionKey::new(&KEY)?, SessionKey::new(&[2; 32])?)));
    let (Some((session_key, stranger)), Ok(name)) = (&*KEYS, "samples/config".parse()) else {
        panic!("no session_key")
    };
    let here = Repository { registry: Registry::new("myacr.azurecr.io"), name };
    let there = Repository { registry: Registry::new("other.azurecr.io"), ..here.clone() };

    // A client's word: only what was encrypted opens, so that it can be encrypted again.
    if let Some(session) = std::str::from_utf8(input).ok().and_then(|text| session_key.decrypt(&here, text)) {
        let again = session_key.encrypt(&here, &session).and_then(|again| session_key.decrypt(&here, &again));
        assert_eq!(again, Some(session));
    }

    // What another larder with this key may have encrypted, one of another version: it is a session or it is not.
    let foreign = session_key.encrypt_content(&here, input.to_vec()).unwrap_or_default();
    let session = session_key.decrypt(&here, &foreign);
    assert_eq!(
        session.is_some(),
        foreign.len() <= 2 * LONGEST && input.len() >= 24 && std::str::from_utf8(&input[24..]).is_ok()
    );
    assert!(session_key.decrypt(&there, &foreign).is_none(), "another repository");
    assert!(stranger.decrypt(&here, &foreign).is_none(), "another key");

    // One bit of it is another: of the bytes, and of the text, where the last character has bits that say nothing.
    let (Some((at, _)), Some(session)) = (input.split_first_chunk::<4>(), session) else { return };
    let at = usize::try_from(u32::from_le_bytes(*at)).unwrap_or(0);
    let token = session_key.encrypt(&here, &session).unwrap_or_default();
    assert_eq!(session_key.decrypt(&here, &token), Some(session));
    let mut bytes = URL_SAFE_NO_PAD.decode(&token).unwrap_or_default();
    let bit = at % (bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    assert!(session_key.decrypt(&here, &URL_SAFE_NO_PAD.encode(bytes)).is_none(), "bit {bit}");
    let mut text = token.into_bytes();
    let bit = at % (text.len() * 8);
    text[bit / 8] ^= 1 << (bit % 8);
    assert!(
        std::str::from_utf8(&text).is_ok_and(|text| session_key.decrypt(&here, text).is_none()) || text[bit / 8] > 0x7f
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Registry;

    fn repository(registry: &str, name: &str) -> Repository {
        Repository { registry: Registry::new(registry), name: name.parse().unwrap() }
    }

    fn session(offset: Option<u64>) -> Session {
        let location = "https://myacr.azurecr.io/v2/a/blobs/uploads/1?_nouploadcache=false&_state=secret";
        Session { id: 7, offset, location: location.to_owned() }
    }

    #[test]
    fn a_session_comes_back_as_it_was_and_shows_nothing() {
        let session_key = SessionKey::new(&[1; 32]).unwrap();
        let here = repository("myacr.azurecr.io", "samples/config");
        for offset in [None, Some(0), Some(5 << 32)] {
            let token = session_key.encrypt(&here, &session(offset)).unwrap();
            assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{token}");
            let decoded = URL_SAFE_NO_PAD.decode(&token).unwrap();
            assert!(!decoded.windows(6).any(|part| part == b"secret" || part == b"myacr."));
            assert_eq!(session_key.decrypt(&here, &token), Some(session(offset)));
            assert_ne!(session_key.encrypt(&here, &session(offset)).unwrap(), token, "no nonce twice");
        }
        assert!(!format!("{:?}", session(None)).contains("secret"));
        // One that something else has encrypted, which the fuzzer begins with.
        let seed = include_str!("../../../../tests/fuzz/corpus/session/sealed");
        assert_eq!(session_key.decrypt(&here, seed).and_then(|session| session.offset), Some(7));
    }

    #[test]
    fn anything_else_opens_nothing() {
        let session_key = SessionKey::new(&[1; 32]).unwrap();
        let here = repository("myacr.azurecr.io", "samples/config");
        let token = session_key.encrypt(&here, &session(Some(3))).unwrap();
        for other in
            [repository("other.azurecr.io", "samples/config"), repository("myacr.azurecr.io", "samples/configs")]
        {
            assert_eq!(session_key.decrypt(&other, &token), None, "{other}");
        }
        assert_eq!(SessionKey::new(&[2; 32]).unwrap().decrypt(&here, &token), None, "another key");
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(session_key.decrypt(&here, std::str::from_utf8(&changed).unwrap()), None, "byte {at}");
        }
        for bad in
            ["", "A", "AAAA", &token[..token.len() - 1], &format!("{token}A"), "not/base64", &"A".repeat(100_000)]
        {
            assert_eq!(session_key.decrypt(&here, bad), None, "{bad:.40}");
        }
        let long = Session { location: "x".repeat(LONGEST), ..session(None) };
        assert_eq!(session_key.encrypt(&here, &long), None);
    }
}
