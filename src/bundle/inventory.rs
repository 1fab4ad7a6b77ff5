//! What a store holds, as a list for the other side: digests, tags, and what was asked for in vain. Sorted lines of text, so that
//! any tool compresses, compares and cuts it.
//!
//! ```text
//! larder-inventory 1
//! blob sha256:…
//! tag myacr.azurecr.io/samples/config:v1 sha256:…
//! missing 3 myacr.azurecr.io/samples/other:v1
//! ```

use crate::oci::Digest;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;

const HEAD: &str = "larder-inventory 1";
/// The longest line that is read.
const LONGEST_LINE: usize = 4096;
/// Digests that are read at most: some 400 MiB of text.
const MOST_DIGESTS: usize = 5_000_000;

/// An inventory that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidInventory {
    /// The head is missing or of another version.
    #[error("this is no inventory: its first line is not '{HEAD}'; make one with `larder inventory` on the far side")]
    Head,
    /// A line makes no sense.
    #[error("line {0} of the inventory makes no sense; make it anew with `larder inventory`")]
    Line(usize),
    /// It is too long.
    #[error("the inventory has more than {MOST_DIGESTS} digests")]
    TooLong,
}

/// What a store holds.
#[derive(Debug, Default)]
pub struct Inventory {
    /// All blobs, manifests included.
    pub digests: BTreeSet<Digest>,
    /// Tags and what they name.
    pub tags: BTreeMap<String, Digest>,
    /// What was asked for in vain, and how often.
    pub missing: BTreeMap<String, u64>,
}

/// What an exporting side reads of an inventory: the digests.
pub type Have = HashSet<Digest>;

impl Inventory {
    /// The text: 77 bytes for a sha256 digest.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEAD}\n");
        let mut digests: Vec<String> = self.digests.iter().map(ToString::to_string).collect();
        digests.sort_unstable();
        for digest in digests {
            let _ = writeln!(text, "blob {digest}");
        }
        for (name, digest) in &self.tags {
            let _ = writeln!(text, "tag {name} {digest}");
        }
        for (name, times) in &self.missing {
            let _ = writeln!(text, "missing {times} {name}");
        }
        text
    }

    /// Reads a text. Lines of kinds that this version does not know are read over.
    pub fn parse(text: &str) -> Result<Self, InvalidInventory> {
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return Err(InvalidInventory::Head);
        }
        let mut inventory = Self::default();
        for (number, line) in (2..).zip(lines) {
            let wrong = || InvalidInventory::Line(number);
            if line.len() > LONGEST_LINE {
                return Err(wrong());
            }
            match line.split_once(' ') {
                Some(("blob", digest)) => {
                    inventory.digests.insert(digest.parse().map_err(|_| wrong())?);
                }
                Some(("tag", rest)) => {
                    let (name, digest) = rest.split_once(' ').ok_or_else(wrong)?;
                    inventory.tags.insert(name.to_owned(), digest.parse().map_err(|_| wrong())?);
                }
                Some(("missing", rest)) => {
                    let (times, name) = rest.split_once(' ').ok_or_else(wrong)?;
                    inventory.missing.insert(name.to_owned(), times.parse().map_err(|_| wrong())?);
                }
                Some(_) => {}
                None if line.is_empty() => {}
                None => return Err(wrong()),
            }
            if inventory.digests.len() > MOST_DIGESTS {
                return Err(InvalidInventory::TooLong);
            }
        }
        Ok(inventory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn comes_back_as_it_was_written_and_stays_within_its_size() {
        let mut inventory = Inventory::default();
        for number in 0..1000_u32 {
            inventory.digests.insert(Digest::of(Algorithm::Sha256, &number.to_le_bytes()));
        }
        let one = Digest::of(Algorithm::Sha512, b"x");
        inventory.tags.insert("r.io/a:v1".to_owned(), one);
        inventory.missing.insert("r.io/b:v1".to_owned(), 3);
        let text = inventory.to_text();
        assert!(text.len() <= 80 * 1000 + 300, "{}", text.len());
        let read = Inventory::parse(&text).unwrap();
        assert_eq!(
            (&read.digests, &read.tags, &read.missing),
            (&inventory.digests, &inventory.tags, &inventory.missing)
        );
        let digests: Vec<&str> = text.lines().filter(|line| line.starts_with("blob ")).collect();
        assert!(digests.is_sorted());
    }

    #[test]
    fn what_is_no_inventory_says_where() {
        assert_eq!(Inventory::parse("x").unwrap_err(), InvalidInventory::Head);
        assert_eq!(Inventory::parse("larder-inventory 1\nblob x").unwrap_err(), InvalidInventory::Line(2));
        assert_eq!(Inventory::parse("larder-inventory 1\n\ntag a").unwrap_err(), InvalidInventory::Line(3));
        assert!(Inventory::parse("larder-inventory 1\nlater something\n").is_ok());
    }
}
