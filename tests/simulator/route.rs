//! A request's path to what it asks for. Anything that the grammar does not know is the router's 404, before authentication.

use http::Method;
use percent_encoding::percent_decode_str;

use super::faults::PathClass;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Ping,
    Catalog,
    Tags {
        name: String,
    },
    Referrers {
        name: String,
        digest: String,
    },
    Manifest {
        name: String,
        reference: String,
    },
    Blob {
        name: String,
        digest: String,
    },
    /// An upload session, or (with an empty id) where they begin.
    Upload {
        name: String,
        id: String,
    },
    AcrCatalog,
    AcrRepository {
        name: String,
    },
    AcrTags {
        name: String,
    },
    AcrTag {
        name: String,
        tag: String,
    },
    AcrManifests {
        name: String,
    },
    AcrManifest {
        name: String,
        digest: String,
    },
    Exchange,
    Token,
    /// Tokens for another registry (Distribution with token authentication).
    DistributionToken,
}

impl Route {
    pub(super) fn parse(method: &Method, path: &str) -> Option<Self> {
        match path {
            "/v2/" => return Some(Self::Ping),
            "/v2/_catalog" => return Some(Self::Catalog),
            "/acr/v1/_catalog" => return Some(Self::AcrCatalog),
            "/oauth2/exchange" => return Some(Self::Exchange),
            "/oauth2/token" => return Some(Self::Token),
            "/distribution/token" => return Some(Self::DistributionToken),
            _ => {}
        }
        let path = percent_decode_str(path).decode_utf8().ok()?;
        if let Some(rest) = path.strip_prefix("/acr/v1/") {
            parse_acr(rest)
        } else {
            parse_v2(path.strip_prefix("/v2/")?, *method == Method::PUT)
        }
    }

    pub(super) fn class(&self) -> PathClass {
        match self {
            Self::Ping => PathClass::Ping,
            Self::Catalog => PathClass::Catalog,
            Self::Tags { .. } => PathClass::Tags,
            Self::Referrers { .. } => PathClass::Referrers,
            Self::Manifest { .. } => PathClass::Manifests,
            Self::Blob { .. } => PathClass::Blobs,
            Self::Upload { .. } => PathClass::Uploads,
            Self::Exchange => PathClass::Exchange,
            Self::Token | Self::DistributionToken => PathClass::Token,
            Self::AcrCatalog
            | Self::AcrRepository { .. }
            | Self::AcrTags { .. }
            | Self::AcrTag { .. }
            | Self::AcrManifests { .. }
            | Self::AcrManifest { .. } => PathClass::Acr,
        }
    }

    /// Token endpoints carry fewer standing headers and ask for no authentication themselves.
    pub(super) fn is_oauth(&self) -> bool {
        matches!(self, Self::Exchange | Self::Token | Self::DistributionToken)
    }
}

fn parse_v2(rest: &str, put: bool) -> Option<Route> {
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Some(Route::Tags { name: valid_name(name)? });
    }
    if let Some((name, id)) = rest.split_once("/blobs/uploads/") {
        let word = id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        return word.then_some(Route::Upload { name: valid_name(name)?, id: id.to_owned() });
    }
    let (rest, last) = rest.rsplit_once('/')?;
    let (name, kind) = rest.rsplit_once('/')?;
    let name = valid_name(name)?;
    match kind {
        // A digest in bad form is refused by whoever would have to keep the manifest, with a reason.
        "manifests" if is_tag(last) || is_digest(last) || (put && last.contains(':')) => {
            Some(Route::Manifest { name, reference: last.to_owned() })
        }
        "blobs" if is_digest(last) => Some(Route::Blob { name, digest: last.to_owned() }),
        "referrers" if is_digest(last) => Some(Route::Referrers { name, digest: last.to_owned() }),
        _ => None,
    }
}

fn parse_acr(rest: &str) -> Option<Route> {
    if let Some((name, tag)) = rest.split_once("/_tags/") {
        return is_tag(tag).then_some(Route::AcrTag { name: valid_name(name)?, tag: tag.to_owned() });
    }
    if let Some((name, digest)) = rest.split_once("/_manifests/") {
        return is_digest(digest).then_some(Route::AcrManifest { name: valid_name(name)?, digest: digest.to_owned() });
    }
    if let Some(name) = rest.strip_suffix("/_tags") {
        return Some(Route::AcrTags { name: valid_name(name)? });
    }
    if let Some(name) = rest.strip_suffix("/_manifests") {
        return Some(Route::AcrManifests { name: valid_name(name)? });
    }
    Some(Route::AcrRepository { name: valid_name(rest)? })
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` per component.
fn valid_name(name: &str) -> Option<String> {
    let component = |c: &str| {
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = c.as_bytes();
        let separators = ["..", "___", "._", "_.", "-.", ".-", "-_", "_-"];
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| known(*b))
            && !separators.iter().any(|s| c.contains(s))
    };
    name.split('/').all(component).then(|| name.to_owned())
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    bytes.len() <= 128
        && bytes.first().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'))
}

pub(super) fn is_digest(text: &str) -> bool {
    let hex = |text: &str, length| text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match text.split_once(':') {
        Some(("sha256", encoded)) => hex(encoded, 64),
        Some(("sha512", encoded)) => hex(encoded, 128),
        _ => false,
    }
}

/// The pairs of a query or form, decoded.
pub(super) fn form(text: &str) -> Vec<(String, String)> {
    let decode = |s: &str| percent_decode_str(&s.replace('+', " ")).decode_utf8_lossy().into_owned();
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

/// The first value of a name.
pub(super) fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}
