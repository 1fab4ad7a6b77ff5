//! The format of every small file that the store writes: lines of text that say what they are, under a checksum.
//!
//! A record that is torn, empty, of another kind or version, or altered in a single bit is not read at all.

use crate::oci::Repository;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A small file's kind, fields and body.
#[derive(Debug)]
pub(crate) struct Record {
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Record {
    pub(crate) fn new() -> Self {
        Self { fields: Vec::new(), body: Vec::new() }
    }

    /// Adds a line. No value that the store writes holds a line end: all of them are parsed names, numbers and digests.
    pub(crate) fn with(mut self, key: &str, value: &(impl ToString + ?Sized)) -> Self {
        self.fields.push((key.to_owned(), value.to_string().replace(['\n', '\r'], " ")));
        self
    }

    pub(crate) fn with_repository(self, repository: &Repository) -> Self {
        self.with("registry", &repository.registry).with("repository", repository.name.as_str())
    }

    pub(crate) fn with_time(self, key: &str, time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.with(key, &format!("{}.{:09}", since.as_secs(), since.subsec_nanos()))
    }

    pub(crate) fn with_body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    pub(crate) fn time(&self, key: &str) -> Option<SystemTime> {
        let (seconds, nanos) = self.get(key)?.split_once('.')?;
        UNIX_EPOCH.checked_add(Duration::new(seconds.parse().ok()?, nanos.parse().ok().filter(|n| *n < 1_000_000_000)?))
    }

    pub(crate) fn is_of(&self, repository: &Repository) -> bool {
        self.get("registry") == Some(repository.registry.as_str())
            && self.get("repository") == Some(repository.name.as_str())
    }

    pub(crate) fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// The file's bytes: kind and version, checksum of all that follows, fields, an empty line, body.
    pub(crate) fn to_bytes(&self, kind: &str) -> Vec<u8> {
        let mut fields = String::new();
        for (key, value) in &self.fields {
            let _ = writeln!(fields, "{key} {value}");
        }
        fields.push('\n');
        let crc = crc32c::crc32c_append(crc32c::crc32c(fields.as_bytes()), &self.body);
        let mut bytes = format!("larder-{kind} 1\ncrc32c {crc:08x}\n{fields}").into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Reads a file. `None` unless every byte is as it was written.
    pub(crate) fn parse(kind: &str, bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(format!("larder-{kind} 1\ncrc32c ").as_bytes())?;
        let (crc, rest) = (rest.get(..8)?, rest.get(8..)?.strip_prefix(b"\n")?);
        let crc =
            std::str::from_utf8(crc).ok().filter(|crc| crc.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))?;
        if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(rest) {
            return None;
        }
        let mut record = Self::new();
        let mut rest = rest;
        loop {
            let end = rest.iter().position(|b| *b == b'\n')?;
            let line = std::str::from_utf8(&rest[..end]).ok()?;
            rest = &rest[end + 1..];
            if line.is_empty() {
                record.body = rest.to_vec();
                return Some(record);
            }
            let (key, value) = line.split_once(' ')?;
            record.fields.push((key.to_owned(), value.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was_written() {
        let time = UNIX_EPOCH + Duration::new(1_700_000_000, 42);
        let bytes = Record::new().with("name", "v1").with_time("seen", time).with_body(b"a\n\nb").to_bytes("tag");
        let record = Record::parse("tag", &bytes).unwrap();
        assert_eq!((record.get("name"), record.time("seen")), (Some("v1"), Some(time)));
        assert_eq!(record.into_body(), b"a\n\nb");
        assert!(Record::parse("blob", &bytes).is_none());
    }

    #[test]
    fn any_cut_and_any_changed_byte_is_seen() {
        let bytes = Record::new().with("name", "v1").with_body(b"xy").to_bytes("tag");
        for at in 0..bytes.len() {
            assert!(Record::parse("tag", &bytes[..at]).is_none(), "cut at {at}");
            for flip in [1, 0x20, 0x80] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                assert!(Record::parse("tag", &damaged).is_none(), "byte {at} changed");
            }
        }
    }
}
