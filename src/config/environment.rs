//! The process's environment and the folders that it names, per platform.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The process's environment as a value, so that nothing in the depths reads it and tests can bring their own.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The environment of this process; variables that are no Unicode are left out.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    /// The variable's value; an empty one counts as unset.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The variable's value as a path.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    /// All variables, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The user's folder.
    #[must_use]
    pub fn home(&self) -> Option<PathBuf> {
        self.path(if cfg!(windows) { "USERPROFILE" } else { "HOME" })
    }

    /// Where this user's configuration files are.
    #[must_use]
    pub fn config_folder(&self) -> Option<PathBuf> {
        if cfg!(windows) {
            return self.path("APPDATA");
        }
        let xdg = self.path("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
        let platform = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".config" };
        xdg.or_else(|| Some(self.home()?.join(platform)))
    }

    /// Where this user's caches are.
    #[must_use]
    pub fn cache_folder(&self) -> Option<PathBuf> {
        if cfg!(windows) {
            return self.path("LOCALAPPDATA");
        }
        let xdg = self.path("XDG_CACHE_HOME").filter(|path| path.is_absolute());
        let platform = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
        xdg.or_else(|| Some(self.home()?.join(platform)))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}
