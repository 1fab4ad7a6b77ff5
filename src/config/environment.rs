//! The process's environment, the folders that it names per platform, and the programs on its `PATH`.
//!
//! It is taken once, at start, and handed on as a value: nothing in the depths reads the process's own, and tests bring theirs.
//! `Debug` shows names only, since a variable may hold a secret: a proxy's address its password.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// An environment as a value; a cheap clone.
#[derive(Clone, Default)]
pub struct Environment(Arc<BTreeMap<String, OsString>>);

impl Environment {
    /// The environment of this process; variables whose names are no Unicode are left out.
    #[must_use]
    pub fn of_process() -> Self {
        let named = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
        std::env::vars_os().filter_map(named).collect()
    }

    /// Sets one variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        Arc::make_mut(&mut self.0).insert(name.to_owned(), value.into());
        self
    }

    /// The variable's value; an empty one counts as unset, and so does one that is no Unicode.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().filter(|value| !value.is_empty())
    }

    /// The first of `names` that is set.
    #[must_use]
    pub fn first(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.get(name))
    }

    /// The variable's value as a path.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.0.get(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// All variables whose values are Unicode, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str()?)))
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

    /// Docker's `config.json`.
    #[must_use]
    pub fn docker_config(&self) -> Option<PathBuf> {
        let folder = self.path("DOCKER_CONFIG").or_else(|| Some(self.home()?.join(".docker")))?;
        Some(folder.join("config.json"))
    }

    /// The program of this name on `PATH`, with the endings that Windows gives to programs.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<PathBuf> {
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

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(Arc::new(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_is_unset_and_no_value_is_shown() {
        let environment = Environment::default().with("HTTPS_PROXY", "http://u:hunter2@proxy").with("https_proxy", "");
        assert_eq!(environment.first(&["https_proxy", "HTTPS_PROXY"]), Some("http://u:hunter2@proxy"));
        assert_eq!(environment.path("https_proxy"), None);
        assert_eq!(format!("{environment:?}"), r#"{"HTTPS_PROXY", "https_proxy"}"#);
    }
}
