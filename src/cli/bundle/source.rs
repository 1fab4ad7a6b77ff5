//! Where a bundle comes from: a layout's folder, a tar, volumes, the folder of a Distribution registry, `skopeo sync`'s folders.

use super::archive::{self, refused};
use super::names::Name;
use super::{distribution, io, skopeo};
use crate::bundle::VolumeNotes;
use crate::cli::client::Trouble;
use std::fs::{self, File};
use std::io::{BufReader, Read};
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
    pub(super) slice: Option<Slice>,
}

/// A part of a content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    pub(super) offset: u64,
    /// The whole content's length.
    pub(super) total: u64,
}

impl<'a> Piece<'a> {
    pub(super) fn whole(digest: &'a str) -> Self {
        Self { digest, slice: None }
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
    /// Which volume it is, of several.
    pub(super) volume: Option<VolumeNotes>,
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

    /// What is imported one after another: each volume by itself.
    pub(super) fn parts(self) -> Vec<Self> {
        match self {
            Self::Volumes(paths) => paths.into_iter().map(Self::Tar).collect(),
            other => vec![other],
        }
    }

    /// How a person calls it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Stdin => "standard input".to_owned(),
            Self::Tar(path) | Self::Layout(path) | Self::Distribution(path) | Self::Skopeo(path) => {
                path.display().to_string()
            }
            Self::Volumes(paths) => format!("{} volumes", paths.len()),
        }
    }

    /// Shows every content to `take`; what names them is the result.
    pub(super) fn read(&self, take: &mut Take<'_>) -> Result<Found, Trouble> {
        let mut found = Found::default();
        match self {
            Self::Stdin => tar(|each| archive::each(std::io::stdin().lock(), each), take, &mut found)?,
            Self::Tar(path) => {
                let file = File::open(path).map_err(io("read", path))?;
                tar(|each| archive::each(BufReader::with_capacity(1 << 20, file), each), take, &mut found)?;
            }
            Self::Volumes(_) => {}
            Self::Layout(folder) => layout(folder, take, &mut found)?,
            Self::Distribution(folder) => distribution::read(folder, take, &mut found)?,
            Self::Skopeo(folder) => skopeo::read(folder, take, &mut found)?,
        }
        Ok(found)
    }

    /// The same without what it takes to read what `take` leaves unread; `None` if there is no way but to read: a pipe.
    pub(super) fn survey(&self, take: &mut Take<'_>) -> Result<Option<Found>, Trouble> {
        let mut found = Found::default();
        match self {
            Self::Stdin => return Ok(None),
            Self::Tar(path) => {
                let file = File::open(path).map_err(io("read", path))?;
                // A named pipe is a file, too.
                if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
                    return Ok(None);
                }
                tar(|each| archive::each_of_file(file, each), take, &mut found)?;
            }
            _ => found = self.read(take)?,
        }
        Ok(Some(found))
    }
}

fn volumes(folder: &Path) -> Result<Vec<PathBuf>, Trouble> {
    let entries = fs::read_dir(folder).map_err(io("read", folder))?;
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut tars: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|kind| kind == "tar")).collect();
    tars.sort();
    Ok(tars)
}

/// What is done with each file of an archive.
type Each<'a> = &'a mut dyn FnMut(&str, u64, &mut dyn Read) -> Result<(), Trouble>;

fn tar(
    walk: impl FnOnce(Each<'_>) -> Result<(), Trouble>,
    take: &mut Take<'_>,
    found: &mut Found,
) -> Result<(), Trouble> {
    let mut registry = distribution::InTar::default();
    walk(&mut |name, length, reader| {
        if let Some(digest) = blob(name) {
            return take(Piece::whole(&digest), length, reader);
        }
        if let Some((digest, offset)) = slice(name) {
            let total = found.volume.as_ref().and_then(|volume| volume.slices.get(&digest));
            let total =
                *total.ok_or_else(|| refused("a slice of a blob comes before the file that says what it is"))?;
            return take(Piece { digest: &digest, slice: Some(Slice { offset, total }) }, length, reader);
        }
        if registry.takes(name) {
            return registry.take(name, length, reader, take);
        }
        match name {
            "index.json" => found.index = Some(small(name, length, reader)?),
            "larder.json" => found.notes = Some(small(name, length, reader)?),
            "larder-volume.json" => {
                let notes = serde_json::from_slice(&small(name, length, reader)?);
                let wrong = |error| refused(&format!("its larder-volume.json is not understood: {error}"));
                found.volume = Some(notes.map_err(wrong)?);
            }
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
    // Looked at before it is opened: to open a pipe or a device is to wait for it.
    let metadata = fs::symlink_metadata(path).map_err(io("read", path))?;
    if !metadata.is_file() {
        return Err(refused(&format!("'{}' is no file (a link or a device)", path.display())));
    }
    let mut file = File::open(path).map_err(io("read", path))?;
    take(Piece::whole(digest), metadata.len(), &mut file)
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
