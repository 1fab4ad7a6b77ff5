//! The folders of `skopeo sync --dest dir` (`dir:`): each image is a folder `host/repository:tag` with `manifest.json`, `version`
//! and a file per content, named by its hexadecimal digest.

use super::io;
use super::names::{Name, whole};
use super::source::{Found, Named, Piece, Take, take_file};
use crate::cli::client::Trouble;
use crate::oci::{Algorithm, Digest};
use std::fs;
use std::path::{Path, PathBuf};

/// How deep images lie below the folder that is named: host, and the parts of a repository.
const DEPTH: usize = 12;

/// Whether an image is in this folder or below it.
pub(super) fn is_one(folder: &Path) -> bool {
    images(folder).is_ok_and(|images| !images.is_empty())
}

/// Reads every image.
pub(super) fn read(root: &Path, take: &mut Take<'_>, found: &mut Found) -> Result<(), Trouble> {
    for image in images(root)? {
        let manifest = image.join("manifest.json");
        let content = fs::read(&manifest).map_err(io("read", &manifest))?;
        let digest = Digest::of(Algorithm::Sha256, &content).to_string();
        take(Piece::whole(&digest), content.len() as u64, &mut &*content)?;
        for entry in fs::read_dir(&image).map_err(io("read", &image))? {
            let path = entry.map_err(io("read", &image))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // Children of an index are `<hex>.manifest.json`.
            let hex = name.strip_suffix(".manifest.json").unwrap_or(name);
            let digest = format!("sha256:{hex}");
            if digest.parse::<Digest>().is_ok() {
                take_file(&path, &digest, take)?;
            }
        }
        let relative = image.strip_prefix(root).unwrap_or(&image).to_string_lossy().replace('\\', "/");
        found.named.push(Named::new(named(&relative), digest));
    }
    Ok(())
}

/// The name that a path says. Without --scoped the host is not in it, and one image alone has no name: `?` leaves the place open
/// for --as.
fn named(path: &str) -> Name {
    let open = || whole(&format!("?.unknown/{path}"));
    let mut name = whole(path).or_else(open).unwrap_or_else(|| Name { repository: "?".to_owned(), tag: None });
    if let Some(rest) = name.repository.strip_prefix("?.unknown/") {
        name.repository = format!("?/{rest}");
    }
    name
}

fn images(root: &Path) -> Result<Vec<PathBuf>, Trouble> {
    let mut images = Vec::new();
    let mut level = vec![root.to_owned()];
    for _ in 0..DEPTH {
        let mut below = Vec::new();
        for folder in level {
            if folder.join("manifest.json").is_file() && folder.join("version").is_file() {
                images.push(folder);
                continue;
            }
            for entry in fs::read_dir(&folder).map_err(io("read", &folder))?.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    below.push(entry.path());
                }
            }
        }
        level = below;
    }
    images.sort();
    Ok(images)
}
