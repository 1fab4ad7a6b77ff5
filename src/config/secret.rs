//! Where a secret file is, and reading it.
//!
//! A relative path is sought among systemd's credentials first, so that one file serves by hand and under systemd. Errors name
//! the path, and what a person needs to know when it cannot be read; the content is wiped from memory when dropped.

use super::environment::Environment;
use std::io;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// No secret is longer (tokens of cloud identities stay below 16 KiB), nor a file of logins (Docker's).
const MAX_SECRET: usize = 64 << 10;

/// Why a secret could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// There is no such file.
    #[error("secret file {0} does not exist: create it or correct the path")]
    Missing(PathBuf),
    /// The file is there but this user may not read it.
    #[error("secret file {path} cannot be read by this user: {detail}")]
    Denied {
        /// The file.
        path: PathBuf,
        /// Owner and mode as far as they can be seen, and what to do.
        detail: String,
    },
    /// Neither a text nor of a sensible size.
    #[error("secret file {path} {problem}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Another failure of the file system.
    #[error("cannot read secret file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
}

/// The file that a configured path means: an absolute path is itself; a relative one is sought in `$CREDENTIALS_DIRECTORY`, then
/// below `base`.
#[must_use]
pub fn secret_path(path: &Path, environment: &Environment, base: &Path) -> PathBuf {
    let credential = environment.path("CREDENTIALS_DIRECTORY").map(|folder| folder.join(path));
    match credential {
        Some(credential) if path.is_relative() && credential.exists() => credential,
        _ => base.join(path),
    }
}

/// Reads a secret; one line end at its end is not part of it.
pub fn read_secret(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let text = read_private(path)?;
    let secret = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if secret.is_empty() {
        return Err(SecretError::Unusable { path: path.to_owned(), problem: "is empty: write the secret into it" });
    }
    Ok(Zeroizing::new(secret.to_owned()))
}

/// Reads all of a text file that holds secrets.
pub fn read_private(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    use io::Read as _;
    let failed = |source: io::Error| explain(path, source);
    let unusable = |problem| SecretError::Unusable { path: path.to_owned(), problem };
    // Before it is opened: opening a pipe may wait for ever.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(unusable(
            "is no regular file: secrets are read again whenever they are needed, write it into a file",
        ));
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    // The whole capacity at once: growing would leave copies in memory that are not wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET + 1));
    file.take(MAX_SECRET as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > MAX_SECRET {
        return Err(unusable("is larger than 64 KiB: it is no secret file"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| unusable("is not text: write the secret as UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn explain(path: &Path, source: io::Error) -> SecretError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => SecretError::Missing(path),
        io::ErrorKind::PermissionDenied => SecretError::Denied { detail: owner_and_mode(&path), path },
        _ => SecretError::Io { path, source },
    }
}

#[cfg(unix)]
fn owner_and_mode(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let me = rustix::process::geteuid().as_raw();
    match std::fs::metadata(path) {
        Ok(meta) => format!(
            "it belongs to {} (uid {}, gid {}) with mode {:04o}, larder runs as uid {me}; give it to that user (chown {me}, chmod 0400) \
             or hand it over with LoadCredential= in the systemd unit",
            user_name(meta.uid()),
            meta.uid(),
            meta.gid(),
            meta.mode() & 0o7777,
        ),
        Err(_) => format!(
            "a folder above it is closed to uid {me}; open it (chmod o+x) or use LoadCredential= in the systemd unit"
        ),
    }
}

/// The user's name, as far as the file of local users knows it.
#[cfg(unix)]
fn user_name(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| "an unknown user".to_owned())
}

#[cfg(not(unix))]
fn owner_and_mode(_: &Path) -> String {
    "let the user that larder runs as read it".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_systemd_come_first_for_relative_paths() {
        let credentials = tempfile::tempdir().unwrap();
        std::fs::write(credentials.path().join("here"), "x").unwrap();
        let folder = credentials.path().to_str().unwrap();
        let environment: Environment = [("CREDENTIALS_DIRECTORY", folder)].into_iter().collect();
        let base = Path::new("/base");
        assert_eq!(secret_path(Path::new("here"), &environment, base), credentials.path().join("here"));
        assert_eq!(secret_path(Path::new("elsewhere"), &environment, base), Path::new("/base/elsewhere"));
        assert_eq!(secret_path(Path::new("/abs"), &environment, base), Path::new("/abs"));
        assert_eq!(secret_path(Path::new("here"), &Environment::default(), base), Path::new("/base/here"));
    }

    #[test]
    fn one_line_end_is_not_part_of_a_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for (content, secret) in [("a b\n", "a b"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a")] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(*read_secret(&path).unwrap(), secret);
        }
    }

    #[test]
    fn what_cannot_be_a_secret_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        assert!(read_secret(&path).unwrap_err().to_string().contains("does not exist"));
        for (content, problem) in [(&b""[..], "empty"), (b"\n", "empty"), (b"\xff", "not text")] {
            std::fs::write(&path, content).unwrap();
            let error = read_secret(&path).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains("secret"), "{error}");
        }
        std::fs::write(&path, vec![b'a'; 70_000]).unwrap();
        assert!(read_secret(&path).unwrap_err().to_string().contains("larger"));
    }

    #[test]
    fn a_folder_or_pipe_is_no_secret_file() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_secret(folder.path()).unwrap_err().to_string().contains("no regular file"));
    }

    #[test]
    #[cfg(unix)]
    fn a_refusal_names_owner_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "x").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o200)).unwrap();
        let text = explain(&path, io::ErrorKind::PermissionDenied.into()).to_string();
        let uid = rustix::process::geteuid().as_raw();
        assert!(text.contains(&format!("(uid {uid}, gid ")) && text.contains("mode 0200"), "{text}");
    }
}
