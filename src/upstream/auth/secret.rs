use crate::config::{SecretError, read_private, read_secret};
use base64::Engine as _;
use http::HeaderValue;
use std::fmt;
use std::path::Path;
use zeroize::Zeroizing;

/// A password or token: shown by nothing, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::upstream) struct Secret(Zeroizing<String>);

impl Secret {
    pub(in crate::upstream) fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Reads a secret's file, off the request path's threads.
    pub(in crate::upstream) async fn read(file: &Path) -> Result<Self, String> {
        blocking(file, read_secret).await.map(Self)
    }

    /// The secret itself, for the one place that sends it.
    pub(in crate::upstream) fn expose(&self) -> &str {
        &self.0
    }

    /// `Authorization: Bearer …`; `None` for bytes that no header can carry.
    pub(in crate::upstream) fn bearer(&self) -> Option<HeaderValue> {
        sensitive(&Zeroizing::new(format!("Bearer {}", self.expose())))
    }
}

/// `Authorization: Basic …` (RFC 7617).
pub(in crate::upstream) fn basic(username: &str, password: &Secret) -> Option<HeaderValue> {
    let pair = Zeroizing::new(format!("{username}:{}", password.expose()));
    let encoded = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()));
    sensitive(&Zeroizing::new(format!("Basic {}", encoded.as_str())))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Reads all of a text file that holds secrets.
pub(in crate::upstream) async fn read_file(file: &Path) -> Result<Zeroizing<String>, String> {
    blocking(file, read_private).await
}

type Read = fn(&Path) -> Result<Zeroizing<String>, SecretError>;

async fn blocking(file: &Path, read: Read) -> Result<Zeroizing<String>, String> {
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || read(&path)).await;
    read.map_err(|_| format!("reading {} was cut short", file.display()))?.map_err(|error| error.to_string())
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_is_marked_sensitive() {
        let value = basic("ci", &Secret::new("pw")).unwrap();
        assert_eq!(value, "Basic Y2k6cHc=");
        assert!(value.is_sensitive());
        assert!(Secret::new("a\nb").bearer().is_none());
        assert_eq!(format!("{:?}", Secret::new("pw")), "Secret");
    }
}
