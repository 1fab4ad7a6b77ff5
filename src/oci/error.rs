use serde::Serialize;
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

/// The JSON that every error answer carries.
#[derive(Debug, Serialize)]
pub struct ErrorBody<'a> {
    errors: [Entry<'a>; 1],
}

#[derive(Debug, Serialize)]
struct Entry<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

impl<'a> ErrorBody<'a> {
    /// One error. `detail` is for a machine or a support line: a request's number, a digest.
    #[must_use]
    pub fn new(code: &'a str, message: &'a str, detail: Option<&'a str>) -> Self {
        Self { errors: [Entry { code, message, detail }] }
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
        let body = ErrorBody::new(Code::ManifestUnknown.as_str(), "no \"v1\"", None).to_json();
        assert_eq!(
            String::from_utf8(body).unwrap(),
            "{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"no \\\"v1\\\"\"}]}\n"
        );
    }
}
