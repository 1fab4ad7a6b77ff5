//! Docker's schema 1, signed: the digest is that of the payload, the document without its signatures.

use super::Shape;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

#[derive(Deserialize)]
struct Signed {
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    protected: String,
}

/// Where the payload ends in the document, and what ends it there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Protected {
    format_length: usize,
    format_tail: String,
}

/// The payload of a signed manifest of schema 1; `None` if `document` is none. The signatures themselves are the clients' business.
#[must_use]
pub fn payload(document: &[u8]) -> Option<Vec<u8>> {
    if !Shape::of(document)?.is_signed() {
        return None;
    }
    let signed: Signed = serde_json::from_slice(document).ok()?;
    let protected = decoded(&signed.signatures.first()?.protected)?;
    let Protected { format_length, format_tail } = serde_json::from_slice(&protected).ok()?;
    let mut payload = document.get(..format_length)?.to_vec();
    payload.extend(decoded(&format_tail)?);
    Some(payload)
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(length: usize, tail: &str) -> Vec<u8> {
        let protected = format!("{{\"formatLength\":{length},\"formatTail\":\"{}\"}}", URL_SAFE_NO_PAD.encode(tail));
        let protected = URL_SAFE_NO_PAD.encode(protected);
        format!(
            "{{\"schemaVersion\": 1,\n \"fsLayers\": [],\n \"signatures\": [{{\"protected\": \"{protected}\"}}]\n}}"
        )
        .into_bytes()
    }

    #[test]
    fn the_payload_is_the_document_without_its_signatures() {
        let start = "{\"schemaVersion\": 1,\n \"fsLayers\": []";
        let document = signed(start.len(), "\n}");
        assert_eq!(payload(&document).unwrap(), format!("{start}\n}}").into_bytes());
        assert_eq!(payload(&signed(1 << 40, "\n}")), None, "beyond the end");
        for other in ["{\"schemaVersion\":1,\"signatures\":[]}", "{\"schemaVersion\":2,\"signatures\":[{}]}", "[]", ""]
        {
            assert_eq!(payload(other.as_bytes()), None, "{other}");
        }
    }
}
