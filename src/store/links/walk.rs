//! The one walk over all links, and who comes along.

use super::reader::{BLOB, MANIFEST, TAG};
use crate::oci::{Registry, Repository};
use crate::store::error::StoreError;
use crate::store::files::layout::{self, ALGORITHMS};
use crate::store::files::{Files, Record};
use crate::store::jobs::Stop;
use std::cell::OnceCell;
use std::path::{Path, PathBuf};

/// A folder of a registry or below, which may be the one of a repository.
pub(crate) struct Folder<'a> {
    files: &'a Files,
    pub(crate) path: &'a Path,
    /// Folders of links in it.
    pub(crate) links: Vec<String>,
    repository: OnceCell<Option<Repository>>,
}

impl Folder<'_> {
    /// The repository whose links lie here. File names are never decoded, so the first whole link is read.
    pub(crate) fn repository(&self) -> Option<&Repository> {
        self.repository.get_or_init(|| if self.links.is_empty() { None } else { self.read_repository() }).as_ref()
    }

    fn read_repository(&self) -> Option<Repository> {
        let below =
            |part: &str, kind| ALGORITHMS.map(|algorithm| (self.path.join(part).join(algorithm.as_str()), kind));
        let tags = [(self.path.join("_tags"), TAG)];
        let places = below("_manifests", MANIFEST).into_iter().chain(below("_blobs", BLOB)).chain(tags);
        for (folder, kind) in places {
            for entry in self.files.disk.list(&folder).unwrap_or_default() {
                let bytes = self.files.read(&folder.join(&entry.name)).ok().flatten();
                if let Some(repository) = bytes.and_then(|bytes| repository_of(&Record::parse(kind, &bytes)?)) {
                    return Some(repository);
                }
            }
        }
        None
    }
}

pub(super) fn repository_of(record: &Record) -> Option<Repository> {
    let registry = Registry::new(record.get("registry")?);
    Some(Repository { registry, name: record.get("repository")?.parse().ok()? })
}

/// Comes along on a walk.
pub(crate) trait Visitor {
    /// Is shown each folder once, a repository's before those below it.
    fn visit(&mut self, folder: &Folder<'_>) -> Result<(), StoreError>;
}

/// Shows all folders to all visitors. A folder that cannot be listed, or a visitor that fails, does not end it: the first such error
/// is returned at the end.
pub(crate) fn walk(files: &Files, stop: &Stop, visitors: &mut [&mut dyn Visitor]) -> Result<(), StoreError> {
    let mut folders = vec![PathBuf::from(layout::REPOSITORIES)];
    let mut first = Ok(());
    while let Some(path) = folders.pop() {
        stop.check().ok_or(StoreError::Closed)?;
        let entries = match files.disk.list(&path) {
            Ok(entries) => entries,
            Err(error) => {
                first = first.and(Err(StoreError::io("list", &path)(error)));
                continue;
            }
        };
        let names = entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name);
        // No component of a repository's name begins so.
        let (links, below): (Vec<String>, Vec<String>) = names.partition(|name| name.starts_with('_'));
        let folder = Folder { files, path: &path, links, repository: OnceCell::new() };
        for visitor in &mut *visitors {
            let visited = visitor.visit(&folder);
            if matches!(visited, Err(StoreError::Closed)) {
                return visited;
            }
            first = first.and(visited);
        }
        folders.extend(below.into_iter().map(|name| path.join(name)));
    }
    first
}
