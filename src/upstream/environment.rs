use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// The variables that are honoured; nothing else is looked at.
const NAMES: [&str; 16] = [
    "ALL_PROXY",
    "all_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CREDENTIALS_DIRECTORY",
    "DOCKER_CONFIG",
    "HOME",
    "USERPROFILE",
    "PATH",
    "PATHEXT",
];

/// The part of the process environment that connections and logins depend on, as a value.
///
/// A proxy's address may contain a password, so that `Debug` shows names only.
#[derive(Clone, Default)]
pub struct Environment(HashMap<&'static str, OsString>);

impl Environment {
    /// What the process was started with.
    #[must_use]
    pub fn of_process() -> Self {
        Self(NAMES.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))).collect())
    }

    /// Sets one variable; a name that is not honoured is ignored.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        if let Some(known) = NAMES.iter().find(|known| **known == name) {
            self.0.insert(known, value.into());
        }
        self
    }

    /// The first of `names` that is set and not empty, as text.
    pub(super) fn text<'a>(&'a self, names: &[&str]) -> Option<&'a str> {
        names.iter().filter_map(|name| self.0.get(*name)?.to_str()).find(|value| !value.is_empty())
    }

    /// The variable as a path, if it is set and not empty.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.0.get(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// The user's folder.
    pub(super) fn home(&self) -> Option<PathBuf> {
        self.path("HOME").or_else(|| self.path("USERPROFILE"))
    }

    /// Where a secret named by the operator is: a relative path is sought among systemd's credentials first.
    pub(super) fn secret_path(&self, path: &Path) -> PathBuf {
        if path.is_relative() {
            let given = self.path("CREDENTIALS_DIRECTORY").map(|directory| directory.join(path));
            if let Some(given) = given.filter(|given| given.exists()) {
                return given;
            }
        }
        path.to_owned()
    }

    /// The program of this name on `PATH`, with the endings that Windows gives to programs.
    pub(super) fn program(&self, name: &str) -> Option<PathBuf> {
        let endings: &[&str] = if cfg!(windows) { &[".exe", ".cmd", ".bat"] } else { &[""] };
        let folders = std::env::split_paths(self.0.get("PATH")?);
        folders
            .flat_map(|folder| endings.iter().map(move |ending| folder.join(format!("{name}{ending}"))))
            .find(|candidate| candidate.is_file())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
