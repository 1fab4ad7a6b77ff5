//! Fuzzing targets of this room; see `crate::fuzzing`.

#![allow(clippy::missing_panics_doc, reason = "that is how a target says that a property does not hold")]

use crate::upstream::auth::challenge::{Challenge, challenges};
use crate::upstream::auth::jwt;
use crate::upstream::protocol::link::{self, Next};
use crate::upstream::protocol::upload;
use crate::upstream::transport::dns::{Question, Said};
use crate::upstream::transport::origin::Origin;
use http::header::{LINK, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

/// One header line for each line of the input that can be one.
fn headers(name: &HeaderName, input: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in input.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(name, value);
    }
    headers
}

/// `WWW-Authenticate`, line by line.
pub fn challenge(input: &[u8]) {
    let found = challenges(&headers(&WWW_AUTHENTICATE, input));
    assert!(found.len() <= input.len(), "more challenges than bytes");
    for challenge in &found {
        assert!(
            !challenge.scheme.is_empty() && challenge.scheme.bytes().all(|b| b.is_ascii_graphic()),
            "{challenge:?}"
        );
    }
    // Written down and read again, they are the same.
    let written = found.iter().map(Challenge::written).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::from_str(&written) {
        let mut again = HeaderMap::new();
        again.append(WWW_AUTHENTICATE, value);
        assert_eq!(challenges(&again), found, "{written}");
    }
}

/// `Link`, line by line, on a page of a list.
pub fn link(input: &[u8]) {
    let base = Uri::from_static("https://myacr.azurecr.io:8443/v2/a/tags/list?n=2");
    if let Next::Page(page) = link::next(&headers(&LINK, input), &base) {
        let url = format!("https://myacr.azurecr.io:8443{page}");
        let followed = url.parse::<Uri>().ok().and_then(|url| Origin::of(&url));
        assert!(page.starts_with('/') && followed == Origin::of(&base), "{page} leads elsewhere");
    }
}

/// `Location` of an upload's session, behind a line that is the digest at its end.
pub fn location(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (digest, location) = text.split_once('\n').unwrap_or(("", text));
    for base in ["https://myacr.azurecr.io:8443/v2/a/blobs/uploads/", "http://registry.local/v2/a/blobs/uploads/"] {
        let base = Uri::from_static(base);
        let own = Origin::of(&base);
        let Some(own) = own else { panic!("no origin in {base}") };
        let Ok(home) = upload::home(&own, &base, location) else { continue };
        let target = home.parse::<Uri>().ok().and_then(|url| Origin::of(&url));
        assert!(target.as_ref().is_some_and(|target| target.https || !own.https), "{home} is a weaker scheme");
        // What the client says does not lead it elsewhere; too long an address is refused.
        if let Ok(end) = upload::end(&home, digest).parse::<Uri>() {
            assert_eq!(Origin::of(&end), target, "{end}");
            assert!(end.to_string().len() > home.len() && end.query().is_some_and(|query| query.contains("digest=")));
        }
    }
}

/// A token that somebody issued.
pub fn token(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let expires = jwt::expires(text);
    let claims = jwt::Claims::of(text);
    assert!(expires.is_none() || claims.is_some());
    if let Some(claims) = claims {
        assert_eq!(claims.expires(), expires);
        assert!(claims.subject().is_none_or(|subject| subject.len() <= input.len()));
    }
}

/// A name server's answer.
pub fn answer(input: &[u8]) {
    for kind in [1, 28] {
        let Ok(question) = Question::with_id([0x12, 0x34], "myacr.azurecr.io", kind) else { panic!("no question") };
        if let Some(Said::Addresses(addresses)) = question.read(input) {
            assert!(addresses.len() <= 64 && addresses.iter().all(|address| address.is_ipv4() == (kind == 1)));
            assert!(input.starts_with(&[0x12, 0x34]), "an answer to another question");
        }
    }
}
