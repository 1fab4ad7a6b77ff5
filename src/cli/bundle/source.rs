//! Where a bundle comes from: a layout's folder, a tar, volumes, the folder of a Distribution registry, `skopeo sync`'s folders.

use super::archive::{self, refused};
use super::names::Name;
use super::{distribution, io, skopeo};
use crate::cli::client::Trouble;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The longest `index.json` that is read.
const LONGEST_INDEX: u64 = 64 << 20;

/// Takes one content, or a part of one from an offset: its digest as text, its length, its bytes.
pub(super) type Take<'a> = dyn FnMut(Piece<'_>, u64, &mut dyn Read) -> Result<(), Trouble> + 'a;

/// What a file of a bundle holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub(super) digest: &'a str,
    /// Set where it is a slice of a content that is longer than a volume.
    pub(super) offset: Option<u64>,
}

impl<'a> Piece<'a> {
    pub(super) fn whole(digest: &'a str) -> Self {
        Self { digest, offset: None }
    }
}

/// A name that no `index.json` says.
pub(super) struct Named {
    pub(super) repository: String,
    pub(super) tag: Option<String>,
    pub(super) digest: String,
}

impl Named {
    pub(super) fn new(name: Name, digest: String) -> Self {
        Self { repository: name.repository, tag: name.tag, digest }
    }
}

/// What was found beside contents.
#[derive(Default)]
pub(super) struct Found {
    pub(super) index: Option<Vec<u8>>,
    pub(super) notes: Option<Vec<u8>>,
    pub(super) named: Vec<Named>,
    /// Files that mean nothing here.
    pub(super) ignored: u64,
    /// Whether it is one of several.
    pub(super) is_volume: bool,
}

/// What the operator named.
pub(super) enum Source {
    Stdin,
    Tar(PathBuf),
    Volumes(Vec<PathBuf>),
    Layout(PathBuf),
    Distribution(PathBuf),
    Skopeo(PathBuf),
}

impl Source {
    /// Looks what kind `input` is of.
    pub(super) fn of(input: &Path) -> Result<Self, Trouble> {
        if input.to_str() == Some("-") {
            return Ok(Self::Stdin);
        }
        let metadata = fs::metadata(input).map_err(io("read", input))?;
        if metadata.is_file() {
            return Ok(Self::Tar(input.to_owned()));
        }
        if input.join("index.json").is_file() {
            return Ok(Self::Layout(input.to_owned()));
        }
        for root in ["", "docker/registry/v2", "registry/v2", "docker/v2", "v2"] {
            if input.join(root).join("repositories").is_dir() && input.join(root).join("blobs").is_dir() {
                return Ok(Self::Distribution(input.join(root)));
            }
        }
        let volumes = volumes(input)?;
        if !volumes.is_empty() {
            return Ok(Self::Volumes(volumes));
        }
        if skopeo::is_one(input) {
            return Ok(Self::Skopeo(input.to_owned()));
        }
        let text = "has no index.json (an image layout), no *.tar (volumes), no docker/registry/v2 (a registry's folder) and no \
                    manifest.json below it (skopeo's dir:)";
        Err(Trouble::usage(format!(
            "'{}' {text}; for an archive of `docker save` before version 25: skopeo copy docker-archive:FILE oci:DIR",
            input.display()
        )))
    }

    /// Shows every content to `take`; what names them is the result.
    pub(super) fn read(&self, take: &mut Take<'_>) -> Result<Found, Trouble> {
        let mut found = Found::default();
        match self {
            Self::Stdin => tar(std::io::stdin().lock(), take, &mut found)?,
            Self::Tar(path) => {
                tar(File::open(path).map_err(io("read", path))?, take, &mut found)?;
                found.is_volume = is_numbered(path);
            }
            Self::Volumes(paths) => {
                for path in paths {
                    tar(File::open(path).map_err(io("read", path))?, take, &mut found)?;
                }
            }
            Self::Layout(folder) => layout(folder, take, &mut found)?,
            Self::Distribution(folder) => distribution::read(folder, take, &mut found)?,
            Self::Skopeo(folder) => skopeo::read(folder, take, &mut found)?,
        }
        Ok(found)
    }
}

fn volumes(folder: &Path) -> Result<Vec<PathBuf>, Trouble> {
    let entries = fs::read_dir(folder).map_err(io("read", folder))?;
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut tars: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|kind| kind == "tar")).collect();
    tars.sort();
    Ok(tars)
}

/// `NAME.001.tar`
fn is_numbered(path: &Path) -> bool {
    let stem = path.file_stem().map(Path::new).and_then(Path::extension).and_then(|number| number.to_str());
    stem.is_some_and(|number| number.len() >= 3 && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn tar(stream: impl Read, take: &mut Take<'_>, found: &mut Found) -> Result<(), Trouble> {
    let mut registry = distribution::InTar::default();
    archive::each(stream, |name, length, reader| {
        if let Some(digest) = blob(name) {
            return take(Piece::whole(&digest), length, reader);
        }
        if let Some((digest, offset)) = slice(name) {
            return take(Piece { digest: &digest, offset: Some(offset) }, length, reader);
        }
        if registry.takes(name) {
            return registry.take(name, length, reader, take);
        }
        match name {
            "index.json" => found.index = Some(small(name, length, reader)?),
            "larder.json" => found.notes = Some(small(name, length, reader)?),
            "oci-layout" | "manifest.json" | "repositories" => {}
            _ => found.ignored += 1,
        }
        Ok(())
    })?;
    registry.finish(found);
    Ok(())
}

fn layout(folder: &Path, take: &mut Take<'_>, found: &mut Found) -> Result<(), Trouble> {
    for algorithm in ["sha256", "sha512"] {
        let blobs = folder.join("blobs").join(algorithm);
        if !blobs.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&blobs).map_err(io("read", &blobs))? {
            let path = entry.map_err(io("read", &blobs))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match blob(&format!("blobs/{algorithm}/{name}")) {
                Some(digest) => take_file(&path, &digest, take)?,
                None => found.ignored += 1,
            }
        }
    }
    let read = |name: &str| {
        let path = folder.join(name);
        let mut file = File::open(&path).map_err(io("read", &path))?;
        let length = file.metadata().map_err(io("read", &path))?.len();
        small(name, length, &mut file)
    };
    found.index = Some(read("index.json")?);
    found.notes = if folder.join("larder.json").is_file() { Some(read("larder.json")?) } else { None };
    Ok(())
}

pub(super) fn take_file(path: &Path, digest: &str, take: &mut Take<'_>) -> Result<(), Trouble> {
    let mut file = File::open(path).map_err(io("read", path))?;
    let metadata = file.metadata().map_err(io("read", path))?;
    if metadata.is_file() { take(Piece::whole(digest), metadata.len(), &mut file) } else { Ok(()) }
}

pub(super) fn small(name: &str, length: u64, reader: &mut dyn Read) -> Result<Vec<u8>, Trouble> {
    if length > LONGEST_INDEX {
        return Err(refused(&format!("its {name} is longer than 64 MiB")));
    }
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(|error| refused(&format!("its {name} cannot be read: {error}")))?;
    Ok(bytes)
}

/// Digest and offset of `larder-slices/<algorithm>/<hex>/<offset>`.
fn slice(name: &str) -> Option<(String, u64)> {
    let (name, offset) = name.strip_prefix("larder-slices/")?.rsplit_once('/')?;
    Some((blob(&format!("blobs/{name}"))?, offset.parse().ok()?))
}

/// The digest of `blobs/<algorithm>/<hex>`.
pub(super) fn blob(name: &str) -> Option<String> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    let digest = format!("{algorithm}:{hex}");
    digest.parse::<crate::oci::Digest>().is_ok().then_some(digest)
}
