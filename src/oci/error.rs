use serde::Serialize;
use serde_json::Value;
use std::fmt;

/// An error code of the distribution specification ("Error Codes"), the word that clients act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// `BLOB_UNKNOWN`
    BlobUnknown,
    /// `BLOB_UPLOAD_INVALID`
    BlobUploadInvalid,
    /// `BLOB_UPLOAD_UNKNOWN`
    BlobUploadUnknown,
    /// `DENIED`
    Denied,
    /// `DIGEST_INVALID`
    DigestInvalid,
    /// `MANIFEST_INVALID`
    ManifestInvalid,
    /// `MANIFEST_UNKNOWN`
    ManifestUnknown,
    /// `NAME_INVALID`
    NameInvalid,
    /// `NAME_UNKNOWN`
    NameUnknown,
    /// `SIZE_INVALID`
    SizeInvalid,
    /// `TOOMANYREQUESTS`
    TooManyRequests,
    /// `UNAUTHORIZED`
    Unauthorized,
    /// `UNSUPPORTED`
    Unsupported,
    /// `UNKNOWN`: not in the list, but what registries say when nothing else fits (oras and docker print it as it is).
    Unknown,
}

impl Code {
    /// The code as it stands on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::Denied => "DENIED",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Unsupported => "UNSUPPORTED",
            Self::Unknown => "UNKNOWN",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error as a registry says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegistryError {
    /// The code, of the specification or the registry's own.
    pub code: String,
    /// The text, for people.
    pub message: String,
    /// Whatever the registry adds, of any shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
}

/// The JSON that every error answer carries.
#[derive(Debug, Serialize)]
pub struct ErrorBody {
    errors: Vec<RegistryError>,
}

impl ErrorBody {
    /// One error, and more that go with it. A detail is for a machine or a support line: a request's number, a digest.
    #[must_use]
    pub fn new(first: RegistryError, more: &[RegistryError]) -> Self {
        let mut errors = vec![first];
        errors.extend_from_slice(more);
        Self { errors }
    }

    /// The body's bytes, closed by a line feed as every registry of Distribution's family does.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec(self).unwrap_or_default();
        json.push(b'\n');
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_shape_of_the_specification() {
        let error = |code: Code, detail| RegistryError { code: code.to_string(), message: "no \"v1\"".into(), detail };
        let body = ErrorBody::new(error(Code::ManifestUnknown, None), &[]).to_json();
        assert_eq!(
            String::from_utf8(body).unwrap(),
            "{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"no \\\"v1\\\"\"}]}\n"
        );
        let more = error(Code::Denied, Some(serde_json::json!({"a": [1]})));
        let body = ErrorBody::new(error(Code::ManifestUnknown, None), &[more]).to_json();
        let body = String::from_utf8(body).unwrap();
        assert!(body.contains("},{\"code\":\"DENIED\"") && body.contains("\"detail\":{\"a\":[1]}}]"), "{body}");
    }
}
