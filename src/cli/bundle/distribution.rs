//! The folder of a Distribution registry (also Harbor's), and the same inside oc-mirror's archives: contents at
//! `blobs/<algorithm>/<xx>/<hex>/data`, tags at `repositories/<name>/_manifests/tags/<tag>/current/link`.
//!
//! Such a folder does not say which registry it was: `--as UPSTREAM` does.

use super::io;
use super::names::Name;
use super::source::{Found, Named, Piece, Take, small, take_file};
use crate::cli::client::Trouble;
use std::fs;
use std::io::Read;
use std::path::Path;

/// What stands before the tree inside an archive.
const ROOTS: [&str; 2] = ["docker/registry/v2/", "docker/v2/"];
/// A link is a digest.
const LINK: u64 = 256;

/// Reads the folder that has `blobs` and `repositories`.
pub(super) fn read(root: &Path, take: &mut Take<'_>, found: &mut Found) -> Result<(), Trouble> {
    let mut folders =
        vec![(root.join("blobs"), String::from("blobs")), (root.join("repositories"), String::from("repositories"))];
    while let Some((folder, name)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(io("read", &folder))? {
            let entry = entry.map_err(io("read", &folder))?;
            let (path, file) = (entry.path(), entry.file_name());
            let Some(file) = file.to_str() else { continue };
            let name = format!("{name}/{file}");
            let kind = entry.file_type().map_err(io("read", &path))?;
            if kind.is_dir() && !matches!(file, "_uploads" | "_layers" | "revisions" | "index") {
                folders.push((path, name));
            } else if let Some(digest) = data(&name) {
                take_file(&path, &digest, take)?;
            } else if let Some(tag) = tag(&name) {
                let link = fs::read_to_string(&path).map_err(io("read", &path))?;
                found.named.push(Named::new(tag, link.trim().to_owned()));
            }
        }
    }
    Ok(())
}

/// The same, met file by file in an archive.
#[derive(Default)]
pub(super) struct InTar(Vec<Named>);

impl InTar {
    /// Whether a file is part of such a tree.
    #[expect(clippy::unused_self, reason = "it reads as a question to the reader of the tree")]
    pub(super) fn takes(&self, name: &str) -> bool {
        ROOTS.iter().any(|root| name.starts_with(root))
    }

    pub(super) fn take(
        &mut self,
        name: &str,
        length: u64,
        reader: &mut dyn Read,
        take: &mut Take<'_>,
    ) -> Result<(), Trouble> {
        let name = ROOTS.iter().find_map(|root| name.strip_prefix(root)).unwrap_or(name);
        if let Some(digest) = data(name) {
            return take(Piece::whole(&digest), length, reader);
        }
        if let Some(tag) = tag(name).filter(|_| length <= LINK) {
            let link = small(name, length, reader)?;
            self.0.push(Named::new(tag, String::from_utf8_lossy(&link).trim().to_owned()));
        }
        Ok(())
    }

    pub(super) fn finish(self, found: &mut Found) {
        found.named.extend(self.0);
    }
}

/// `blobs/<algorithm>/<xx>/<hex>/data`
fn data(name: &str) -> Option<String> {
    let mut parts = name.strip_prefix("blobs/")?.strip_suffix("/data")?.split('/');
    let (algorithm, _, hex) = (parts.next()?, parts.next()?, parts.next()?);
    let digest = format!("{algorithm}:{hex}");
    (parts.next().is_none() && digest.parse::<crate::oci::Digest>().is_ok()).then_some(digest)
}

/// `repositories/<name>/_manifests/tags/<tag>/current/link`. The registry's place is left open for `--as`.
fn tag(name: &str) -> Option<Name> {
    let (repository, rest) = name.strip_prefix("repositories/")?.split_once("/_manifests/tags/")?;
    let tag = rest.strip_suffix("/current/link")?;
    Some(Name { repository: format!("?/{repository}"), tag: Some(tag.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_tree_say_what_they_are() {
        let hex = "a".repeat(64);
        assert_eq!(data(&format!("blobs/sha256/aa/{hex}/data")), Some(format!("sha256:{hex}")));
        assert_eq!(data(&format!("blobs/sha256/aa/{hex}/other")), None);
        let named = tag("repositories/a/b/_manifests/tags/v1/current/link").unwrap();
        assert_eq!((named.repository.as_str(), named.tag.as_deref()), ("?/a/b", Some("v1")));
        assert_eq!(tag("repositories/a/_manifests/revisions/sha256/x/link"), None);
    }
}
