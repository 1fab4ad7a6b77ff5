//! Where values come from, and errors that name the place.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A place in the operator's file; lines and columns count from 1.
    File {
        file: Arc<Path>,
        line: usize,
        /// The character within the line.
        column: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line, with its dashes.
    Flag(&'static str),
    /// A socket that systemd has handed over.
    Systemd,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Systemd => f.write_str("systemd's socket"),
        }
    }
}

/// One thing that is wrong with what was configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", self.place())]
pub struct ConfigError {
    /// Where the offending text stands.
    pub origin: Origin,
    /// The key, as a dotted path; empty for what concerns no single key.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl ConfigError {
    /// Origin and key, as far as there are any.
    fn place(&self) -> String {
        let mut place = String::new();
        if self.origin != Origin::Default {
            place = format!("{}: ", self.origin);
        }
        if !self.key.is_empty() {
            place.push_str(&self.key);
            place.push_str(": ");
        }
        place
    }
}

/// Everything that is wrong, found in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The errors, at least one: those of flags and variables, then those of the file from top to bottom.
    pub errors: Vec<ConfigError>,
    /// There was neither a file nor anything else that names an upstream.
    pub nothing_configured: bool,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
