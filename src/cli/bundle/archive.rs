//! Reading a tar that somebody made: names are checked before anything is done with them, headers are bounded, and what is neither
//! a file nor a folder refuses the whole archive.

use crate::cli::client::Trouble;
use std::collections::HashSet;
use std::io::{Read, Seek};

/// Files of an archive that are read at most.
const MOST_FILES: usize = 2_000_000;
/// The longest name, and the longest header beside the fixed ones.
const LONGEST_HEADER: u64 = 64 << 10;

/// What is said of an archive that may be `docker save`'s.
pub(super) const OLD_DOCKER: &str = "; for an archive of `docker save` before version 25 or of `podman save --format docker-archive`: \
                                     skopeo copy docker-archive:FILE oci:DIR";

/// Shows every file of a tar to `take`, with its checked name and its length. What `take` leaves unread is skipped.
pub(super) fn each(
    stream: impl Read,
    take: impl FnMut(&str, u64, &mut dyn Read) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    walk(tar::Archive::new(stream).entries().map_err(broken)?, take)
}

/// The same for a file, in which what is not read costs nothing.
pub(super) fn each_of_file(
    file: impl Read + Seek,
    take: impl FnMut(&str, u64, &mut dyn Read) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    walk(tar::Archive::new(file).entries_with_seek().map_err(broken)?, take)
}

fn walk<R: Read>(
    entries: tar::Entries<'_, R>,
    mut take: impl FnMut(&str, u64, &mut dyn Read) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let mut names = HashSet::new();
    let mut said = Said::default();
    for entry in entries.raw(true) {
        let mut entry = entry.map_err(broken)?;
        let kind = entry.header().entry_type();
        if kind.is_pax_local_extensions() || kind.is_gnu_longname() || kind.is_pax_global_extensions() {
            let text = header_text(&mut entry)?;
            if kind.is_gnu_longname() {
                said.path = Some(text.trim_end_matches('\0').to_owned());
            } else if kind.is_pax_local_extensions() {
                said.read(&text)?;
            }
            continue;
        }
        let Said { path, size } = std::mem::take(&mut said);
        let path = match path {
            Some(path) => path,
            None => {
                String::from_utf8(entry.path_bytes().into_owned()).map_err(|_| refused("a name that is not UTF-8"))?
            }
        };
        if size.is_some_and(|size| size != entry.size()) {
            return Err(refused(&format!("'{path}' has two different sizes")));
        }
        if kind.is_dir() {
            checked(&path)?;
            continue;
        }
        if !(kind.is_file() || kind.is_contiguous()) {
            let old = if path.ends_with("/layer.tar") { OLD_DOCKER } else { "" };
            return Err(refused(&format!("'{path}' is neither a file nor a folder (a link or a device){old}")));
        }
        let name = checked(&path)?;
        if !names.insert(name.clone()) {
            return Err(refused(&format!("'{name}' is in it twice")));
        }
        if names.len() > MOST_FILES {
            return Err(refused("more than two million files are in it"));
        }
        let length = entry.size();
        take(&name, length, &mut entry)?;
    }
    Ok(())
}

/// What extended headers say of the next file.
#[derive(Default)]
struct Said {
    path: Option<String>,
    size: Option<u64>,
}

impl Said {
    fn read(&mut self, text: &str) -> Result<(), Trouble> {
        for record in text.split_inclusive('\n') {
            let pair = record.trim_end_matches('\n').split_once(' ').and_then(|(_, pair)| pair.split_once('='));
            match pair {
                Some(("path", path)) => self.path = Some(path.to_owned()),
                Some(("size", size)) => {
                    self.size = Some(size.parse().map_err(|_| refused("a size that is no number"))?);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn header_text(entry: &mut impl Header) -> Result<String, Trouble> {
    if entry.length() > LONGEST_HEADER {
        return Err(refused("a header longer than 64 KiB"));
    }
    let mut bytes = Vec::new();
    entry.reader().read_to_end(&mut bytes).map_err(broken)?;
    String::from_utf8(bytes).map_err(|_| refused("a header that is not UTF-8"))
}

/// An entry, as far as a header needs it.
trait Header {
    fn length(&self) -> u64;
    fn reader(&mut self) -> &mut dyn Read;
}

impl<R: Read> Header for tar::Entry<'_, R> {
    fn length(&self) -> u64 {
        self.size()
    }

    fn reader(&mut self) -> &mut dyn Read {
        self
    }
}

/// The name without `./`; one that leads out of the archive is refused.
pub(super) fn checked(path: &str) -> Result<String, Trouble> {
    let bad = path.starts_with('/')
        || path.contains(['\\', '\0'])
        || path.split('/').any(|part| part == "..")
        || path.get(1..2) == Some(":");
    if bad {
        return Err(refused(&format!("the name '{}' leads out of the archive", path.escape_debug())));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    Ok(parts.join("/"))
}

pub(super) fn refused(why: &str) -> Trouble {
    Trouble::failed(format!("the bundle is refused, and nothing of it is linked: {why}"))
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn broken(error: std::io::Error) -> Trouble {
    let text =
        "the archive is cut or damaged; what was whole is stored. Get the rest of it and import again, it continues";
    Trouble::failed(format!("{text} ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(change: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        change(&mut builder);
        builder.into_inner().unwrap()
    }

    fn file(builder: &mut tar::Builder<Vec<u8>>, name: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        // Past the library's own checks: this is what an attacker writes.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, &b"x"[..]).unwrap();
    }

    fn names(bytes: &[u8]) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        let read = each(bytes, |name, _, _| {
            names.push(name.to_owned());
            Ok(())
        });
        read.map(|()| names).map_err(|trouble| trouble.text)
    }

    #[test]
    fn names_that_lead_elsewhere_refuse_the_whole_archive() {
        assert_eq!(names(&archive(|tar| file(tar, "./a//b"))).unwrap(), ["a/b"]);
        for name in ["../a", "/a", "a/../../b", "c:a", "a\\b"] {
            assert!(names(&archive(|tar| file(tar, name))).unwrap_err().contains("leads out"), "{name}");
        }
        let twice = archive(|tar| {
            file(tar, "a");
            file(tar, "./a");
        });
        assert!(names(&twice).unwrap_err().contains("twice"));
    }

    #[test]
    fn links_and_devices_refuse_the_whole_archive() {
        for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Char, tar::EntryType::Fifo] {
            let bytes = archive(|tar| {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(kind);
                header.set_size(0);
                tar.append_link(&mut header, "a", "/etc/passwd").unwrap();
            });
            assert!(names(&bytes).unwrap_err().contains("neither a file"), "{kind:?}");
        }
    }

    #[test]
    fn a_header_of_any_size_costs_no_memory() {
        let bytes = archive(|tar| {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::XHeader);
            header.set_size(100 << 30);
            header.set_cksum();
            let _ = tar.append(&header, &b""[..]);
        });
        assert!(names(&bytes).unwrap_err().contains("longer than 64 KiB"));
    }
}
