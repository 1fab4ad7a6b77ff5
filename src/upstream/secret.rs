use super::environment::Environment;
use base64::Engine as _;
use http::HeaderValue;
use std::fmt;
use std::path::Path;
use zeroize::Zeroizing;

/// A password or token: shown by nothing, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(Zeroizing<String>);

impl Secret {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The secret itself, for the one place that sends it.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// `Authorization: Bearer …`; `None` for bytes that no header can carry.
    pub(super) fn bearer(&self) -> Option<HeaderValue> {
        sensitive(&Zeroizing::new(format!("Bearer {}", self.expose())))
    }
}

/// `Authorization: Basic …` (RFC 7617).
pub(super) fn basic(username: &str, password: &Secret) -> Option<HeaderValue> {
    let pair = Zeroizing::new(format!("{username}:{}", password.expose()));
    let encoded = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()));
    sensitive(&Zeroizing::new(format!("Basic {}", encoded.as_str())))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A secret's file is small; anything longer is the wrong file.
const MAX_SECRET: usize = 64 << 10;

/// Reads a secret's file without its final line end. The error is a sentence that names the file, and its owner and mode where
/// that is the trouble.
pub(super) async fn read(environment: &Environment, path: &Path) -> Result<Secret, String> {
    let path = environment.secret_path(path);
    let text = read_file(&path).await?;
    if text.len() > MAX_SECRET {
        return Err(format!("{} is too long for a secret", path.display()));
    }
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(format!("{} is empty", path.display()));
    }
    Ok(Secret::new(secret))
}

/// Reads a text file that holds secrets.
pub(super) async fn read_file(path: &Path) -> Result<Zeroizing<String>, String> {
    match tokio::fs::read_to_string(path).await {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => Err(format!("cannot read {}: {error}{}", path.display(), permissions(path, &error).await)),
    }
}

#[cfg(unix)]
async fn permissions(path: &Path, error: &std::io::Error) -> String {
    use std::os::unix::fs::MetadataExt as _;
    if error.kind() != std::io::ErrorKind::PermissionDenied {
        return String::new();
    }
    let us = rustix::process::geteuid().as_raw();
    match tokio::fs::metadata(path).await {
        Ok(file) => format!(
            " (the file belongs to user {} and group {}, mode {:04o}; larder runs as user {us})",
            file.uid(),
            file.gid(),
            file.mode() & 0o7777
        ),
        Err(_) => format!(" (a folder above it is closed to user {us}, as whom larder runs)"),
    }
}

#[cfg(not(unix))]
async fn permissions(_path: &Path, _error: &std::io::Error) -> String {
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_relative_secret_is_sought_among_the_credentials_of_the_service() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("acr-password"), "s3cret\r\n").unwrap();
        let environment = Environment::default().with("CREDENTIALS_DIRECTORY", folder.path());
        let secret = read(&environment, Path::new("acr-password")).await.unwrap();
        assert_eq!(secret.expose(), "s3cret");
        assert_eq!(format!("{secret:?}"), "Secret");
        let missing = read(&environment, Path::new("/nowhere/at/all")).await.unwrap_err();
        assert!(missing.contains("/nowhere/at/all"), "{missing}");
        std::fs::write(folder.path().join("empty"), "\n").unwrap();
        assert!(read(&environment, Path::new("empty")).await.unwrap_err().ends_with("is empty"));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn an_unreadable_secret_names_owner_and_mode() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        std::fs::write(&path, "x").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let text = permissions(&path, &denied).await;
        assert!(text.contains("mode 0640") && text.contains("belongs to user"), "{text}");
    }

    #[test]
    fn basic_is_marked_sensitive() {
        let value = basic("ci", &Secret::new("pw")).unwrap();
        assert_eq!(value, "Basic Y2k6cHc=");
        assert!(value.is_sensitive());
        assert!(Secret::new("a\nb").bearer().is_none());
    }
}
