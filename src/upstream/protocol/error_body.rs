//! What a registry says when it refuses: the errors of the protocol's JSON, without what is no client's business.
//!
//! Codes, texts and details reach clients, who may act on them. A registry's text can quote an address that is signed, or what it was
//! sent to log in with; such words are left out, and a detail that has one is left out as a whole.

use crate::oci::{Digest, RegistryError};
use serde_json::Value;

/// Errors of one answer that are looked at for what they are about: one per layer that a manifest may lack.
const ABOUT: usize = 512;
/// Errors of one answer that are handed on.
const HANDED_ON: usize = 32;
/// Characters of a code and of a text.
const CODE: usize = 64;
const TEXT: usize = 500;
/// Bytes of a detail.
const DETAIL: usize = 4 << 10;
/// Stands for a word that is left out.
const LEFT_OUT: &str = "(left out)";

/// The errors of the protocol's JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::upstream) struct ErrorBody {
    /// The first one's code.
    pub(in crate::upstream) code: String,
    /// The first one's text.
    pub(in crate::upstream) message: String,
    /// What the details of all errors are about: the blobs that a manifest lacks.
    pub(in crate::upstream) about: Vec<Digest>,
    /// All of them, as clients may see them.
    pub(in crate::upstream) errors: Vec<RegistryError>,
}

impl ErrorBody {
    /// Reads an error body; `None` for anything else.
    pub(in crate::upstream) fn read(body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let errors = value.get("errors")?.as_array()?;
        let first = read_error(errors.first()?)?;
        let about = errors.iter().take(ABOUT).filter_map(|error| digest_in(error.get("detail")?)).collect();
        let (code, message) = (first.code, first.message);
        Some(Self { code, message, about, errors: errors.iter().take(HANDED_ON).filter_map(read_error).collect() })
    }

    /// An answer without the protocol's JSON, of which all is known is what its status means.
    pub(in crate::upstream) fn nothing_but(code: &str) -> Self {
        Self { code: code.to_owned(), message: String::new(), about: Vec::new(), errors: Vec::new() }
    }

    pub(in crate::upstream) fn is_firewall(&self) -> bool {
        self.code == "DENIED"
            && ["client with IP", "aka.ms/acr/firewall", "not allowed access"]
                .iter()
                .any(|mark| self.message.contains(mark))
    }
}

fn read_error(error: &Value) -> Option<RegistryError> {
    let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    let printable = |text: &str, most: usize| text.chars().filter(|c| !c.is_control()).take(most).collect::<String>();
    let code = printable(text("code"), CODE);
    let detail = error.get("detail").filter(|detail| !detail.is_null() && may_be_told(detail)).cloned();
    (!code.is_empty()).then(|| RegistryError { code, message: told(&printable(text("message"), TEXT)), detail })
}

/// The digest that an error's detail names: a text (ACR), or a field of an object (Distribution).
fn digest_in(detail: &Value) -> Option<Digest> {
    let named = detail.as_str().or_else(|| detail.get("digest").or_else(|| detail.get("Digest"))?.as_str());
    named?.parse().ok()
}

/// A text without the words that are no client's business.
fn told(text: &str) -> String {
    if !hides_something(text) {
        return text.to_owned();
    }
    let mut before = "";
    let words = text.split(' ').map(|word| {
        let after_scheme = is_scheme(std::mem::replace(&mut before, word));
        if after_scheme && !word.is_empty() || is_private(word) { LEFT_OUT } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Whether a text has words that are no client's business.
fn hides_something(text: &str) -> bool {
    let mut before = "";
    text.split(' ').any(|word| is_private(word) || is_scheme(std::mem::replace(&mut before, word)))
}

/// Whether the word that follows is a login, as in a header that is quoted.
fn is_scheme(word: &str) -> bool {
    let word = word.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic")
}

/// Addresses that carry more than a place, secrets by their names, and tokens by their look.
fn is_private(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    let named = ["sig=", "signature=", "token=", "password=", "secret=", "credential="];
    // `{"alg…` in base64: how every signed token begins.
    let token = word.find("eyJ").is_some_and(|at| word[at..].len() > 40);
    lower.contains("://") && lower.contains(['?', '@']) || named.iter().any(|name| lower.contains(name)) || token
}

/// Whether all that a detail says may reach a client.
fn may_be_told(detail: &Value) -> bool {
    fn harmless(value: &Value) -> bool {
        match value {
            Value::String(text) => !hides_something(text),
            Value::Array(values) => values.iter().all(harmless),
            Value::Object(fields) => fields.iter().all(|(name, value)| {
                let lower = name.to_ascii_lowercase();
                !["password", "token", "secret", "authorization"].iter().any(|word| lower.contains(word))
                    && harmless(value)
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => true,
        }
    }
    harmless(detail) && detail.to_string().len() <= DETAIL
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(errors: &Value) -> ErrorBody {
        ErrorBody::read(json!({ "errors": errors }).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn reads_the_errors_of_registries_and_nothing_else() {
        let said = ErrorBody::read(b"{\"errors\":[{\"code\":\"DENIED\",\"message\":\"client with IP \\u00271.2.3.4\\u0027 is not allowed access.\"}]}\n");
        assert!(said.unwrap().is_firewall());
        for other in ["", "{}", "{\"errors\":[]}", "{\"errors\":[{}]}", "<html>", "{\"errors\":{\"code\":\"X\"}}"] {
            assert_eq!(ErrorBody::read(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn details_are_handed_on_as_they_are() {
        let said = of(&json!([
            {"code": "MANIFEST_UNKNOWN", "message": "manifest tagged by \"v9\" is not found", "detail": {"Tag": "v9"}},
            {"code": "SIZE_INVALID", "message": "", "detail": [1, true, null, "4 MiB"]},
            {"code": "UNAUTHORIZED", "message": "visit https://aka.ms/acr/authorization for more", "detail": null},
        ]));
        let details: Vec<_> = said.errors.iter().map(|error| error.detail.clone()).collect();
        assert_eq!(details, [Some(json!({"Tag": "v9"})), Some(json!([1, true, null, "4 MiB"])), None]);
        assert_eq!(said.errors[2].message, "visit https://aka.ms/acr/authorization for more");
        let many: Vec<_> = (0..100).map(|n| json!({"code": "X", "detail": n})).collect();
        assert_eq!(of(&json!(many)).errors.len(), HANDED_ON);
        assert_eq!(of(&json!([{"code": "X", "detail": "x".repeat(DETAIL)}])).errors[0].detail, None);
    }

    #[test]
    fn what_is_no_client_s_business_is_left_out() {
        let token = format!("eyJ{}.eyJ{}.x", "a".repeat(30), "b".repeat(30));
        let signed = "https://store.blob.core.windows.net/d?sv=1&sig=abc";
        for (text, seen) in [
            (format!("cannot read {signed} now"), "cannot read (left out) now"),
            (format!("bad token {token}"), "bad token (left out)"),
            ("got Authorization: Basic Y2k6c2VjcmV0 instead".to_owned(), "got Authorization: Basic (left out) instead"),
            ("the \"Bearer opaque\" is old".to_owned(), "the \"Bearer (left out) is old"),
            ("see https://ci:secret@host/x".to_owned(), "see (left out)"),
            ("?refresh_token=abc".to_owned(), "(left out)"),
            ("a token is wanted, a password, too".to_owned(), "a token is wanted, a password, too"),
        ] {
            let said = of(&json!([{"code": "X", "message": text, "detail": {"why": [text]}}]));
            assert_eq!((&*said.message, &said.errors[0].message), (seen, &said.message), "{text}");
            assert_eq!(said.errors[0].detail.is_some(), !seen.contains(LEFT_OUT), "{text}");
        }
        assert_eq!(of(&json!([{"code": "X", "detail": {"accessToken": "abc"}}])).errors[0].detail, None);
    }
}
