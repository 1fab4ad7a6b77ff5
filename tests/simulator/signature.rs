//! The two kinds of signed URLs that a blob GET is redirected to. Both are checked byte for byte: a client that
//! decodes, re-encodes, reorders or tidies (`//`) anything has another URL.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use super::content::hex;
use super::route::{form, value};
use super::{State, clock};

/// What Go's `url.QueryEscape` leaves alone.
pub(super) const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What a signed URL turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Signed {
    Good {
        digest: String,
    },
    Expired,
    /// Its signature does not fit its text.
    Altered,
    /// Nothing that this registry signs.
    Unknown,
}

/// Path and query of a shared access signature that lives as long as the knob says. The same within a second.
pub(super) fn sas(state: &State, digest: &str) -> String {
    sas_until(state, digest, clock::now() + state.knobs.read(|k| k.sas_life_s))
}

fn sas_until(state: &State, digest: &str, expires: u64) -> String {
    let (algorithm, encoded) = digest.split_once(':').unwrap_or(("sha256", digest));
    let registry = state.registry_id();
    let path = format!("{}//docker/registry/v2/blobs/{algorithm}/{}/{encoded}/data", container(state), &encoded[..2]);
    let expires = utf8_percent_encode(&clock::rfc3339(expires), QUERY).to_string();
    let signature = STANDARD.encode(sign(state, &format!("{path}?{expires}")));
    let signature = utf8_percent_encode(&signature, QUERY);
    format!("{path}?se={expires}&sig={signature}&sp=r&spr=https&sr=b&sv=2016-05-31&regid={registry}")
}

/// `/<registry id>-<10 characters>`.
fn container(state: &State) -> String {
    let registry = state.registry_id();
    format!("/{registry}-{}", &hex(&sign(state, &registry))[..10])
}

/// Path and query of a dedicated data endpoint: opaque, without an expiry in clear.
pub(super) fn data_endpoint(state: &State, name: &str, digest: &str) -> String {
    let expires = clock::now() + state.knobs.read(|k| k.sas_life_s);
    let payload = URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{expires}}}"));
    let ticket = hex(&sign(state, digest))[..40].to_uppercase();
    let text = format!(
        "/?t={ticket}&h={}&c={}&r={name}&d={digest}&p={payload}",
        utf8_percent_encode(&state.registry(), QUERY),
        state.guid()
    );
    let signature = URL_SAFE_NO_PAD.encode(sign(state, &text));
    format!("{text}&s={signature}&v=1&l=false")
}

/// Judges the path and query of a request at storage.
pub(super) fn verify(state: &State, target: &str) -> Signed {
    let query = form(target.split_once('?').map_or("", |(_, query)| query));
    match (value(&query, "se"), value(&query, "d")) {
        (Some(expires), None) => verify_sas(state, target, expires),
        (None, Some(digest)) => verify_data_endpoint(state, target, digest, value(&query, "p").unwrap_or_default()),
        _ => Signed::Unknown,
    }
}

fn verify_sas(state: &State, target: &str, expires: &str) -> Signed {
    let path = target.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.rsplit('/').collect();
    let (Some(expires), [_, encoded, _, algorithm, ..]) = (clock::parse_rfc3339(expires), parts.as_slice()) else {
        return Signed::Unknown;
    };
    if !encoded.is_ascii() || encoded.len() < 2 {
        return Signed::Unknown;
    }
    let digest = format!("{algorithm}:{encoded}");
    judge(sas_until(state, &digest, expires) == target, expires, digest)
}

fn verify_data_endpoint(state: &State, target: &str, digest: &str, payload: &str) -> Signed {
    let expires =
        URL_SAFE_NO_PAD.decode(payload).ok().and_then(|p| serde_json::from_slice::<serde_json::Value>(&p).ok());
    let Some(expires) = expires.and_then(|p| p["exp"].as_u64()) else { return Signed::Altered };
    let text = target.split("&s=").next().unwrap_or_default();
    let signature = URL_SAFE_NO_PAD.encode(sign(state, text));
    judge(format!("{text}&s={signature}&v=1&l=false") == target, expires, digest.to_owned())
}

fn judge(untouched: bool, expires: u64, digest: String) -> Signed {
    match untouched {
        false => Signed::Altered,
        true if expires <= clock::now() => Signed::Expired,
        true => Signed::Good { digest },
    }
}

/// `_state` of an upload: a signature and the text that it signs.
pub(super) fn seal(state: &State, text: &str) -> String {
    URL_SAFE.encode([&sign(state, text), text.as_bytes()].concat())
}

/// What was sealed, if it was sealed here.
pub(super) fn open(state: &State, sealed: &str) -> Option<serde_json::Value> {
    let bytes = URL_SAFE.decode(sealed).ok()?;
    let (signature, text) = bytes.split_at_checked(32)?;
    let text = std::str::from_utf8(text).ok()?;
    (sign(state, text) == signature).then(|| serde_json::from_str(text).ok())?
}

fn sign(state: &State, text: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(state.secret);
    hash.update(text.as_bytes());
    hash.finalize().into()
}
