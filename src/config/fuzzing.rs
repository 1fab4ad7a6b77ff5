//! Fuzzing targets of this room; see `crate::fuzzing`.

#![allow(clippy::missing_panics_doc, reason = "that is how a target says that a property does not hold")]

use super::certificate::{Certificate, ClientName};
use super::load::load_text;
use super::origin::Origin;

/// The operator's file.
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match load_text(text) {
        Ok(loaded) => {
            let limits = &loaded.settings.server.limits;
            assert!(!loaded.settings.upstreams.is_empty() && limits.fills > 0, "{limits:?}");
        }
        Err(errors) => {
            assert!(!errors.errors.is_empty(), "refused without a reason");
            let lines = text.lines().count().max(1);
            for error in &errors.errors {
                assert!(!error.message.is_empty());
                if let Origin::File { line, column, .. } = error.origin {
                    assert!(line >= 1 && column >= 1 && line <= lines + 1, "{error:?} in {lines} lines");
                }
            }
        }
    }
}

/// A certificate that a client presents.
pub fn certificate(input: &[u8]) {
    let parsed = Certificate::parse(input);
    if let Some(name) = ClientName::of(input) {
        assert!(parsed.is_some() && !name.as_str().is_empty() && name.as_str().len() <= input.len() * 2, "{name}");
        assert!(!name.as_str().chars().any(char::is_control), "{name:?}");
    }
    if let Some(certificate) = parsed {
        assert!(certificate.names().len() <= input.len());
        assert!(certificate.issuer().is_none_or(|issuer| !issuer.chars().any(char::is_control)));
    }
}
