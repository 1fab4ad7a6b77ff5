//! What a bundle or a list would bring: bytes, shared ones once, what is here already, per repository and in all.

use crate::oci::{MAX_MANIFEST, Manifest};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;

/// Digests of what is named, by repository.
pub(super) type Roots = BTreeMap<String, BTreeSet<String>>;

/// Contents, and what refers to what.
#[derive(Default)]
pub(super) struct Sizes {
    contents: HashMap<String, Content>,
}

struct Content {
    bytes: u64,
    present: bool,
    children: Vec<String>,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    bytes: u64,
    unique: u64,
    far: u64,
}

impl Sizes {
    /// Notes a content that is not here, as far as is known; what may be a manifest is read.
    pub(super) fn note(&mut self, digest: &str, bytes: u64, reader: &mut dyn Read) {
        let mut content = Vec::new();
        // What cannot be read is no manifest here; the import itself says what is wrong with it.
        if bytes <= MAX_MANIFEST as u64 {
            let _ = reader.take(MAX_MANIFEST as u64).read_to_end(&mut content);
        }
        let manifest = content.starts_with(b"{").then(|| Manifest::parse(&content)).flatten().unwrap_or_default();
        let children = manifest.children().map(|child| child.digest.to_string()).collect();
        self.contents.insert(digest.to_owned(), Content { bytes, present: false, children });
    }

    /// Notes a content that a reference would bring.
    pub(super) fn plan(&mut self, reference: &str, digest: &str, bytes: u64, present: bool) {
        let none = || Content { bytes: 0, present: false, children: Vec::new() };
        self.contents.entry(reference.to_owned()).or_insert_with(none).children.push(digest.to_owned());
        self.contents.entry(digest.to_owned()).or_insert(Content { bytes, present, children: Vec::new() });
    }

    /// Notes what is here already.
    pub(super) fn mark(&mut self, is_here: impl Fn(&str) -> bool) {
        self.contents.iter_mut().for_each(|(digest, content)| content.present = is_here(digest));
    }

    /// What the manifests below `root` name and the bundle does not have.
    pub(super) fn lacks<'a>(&'a self, root: &'a str) -> BTreeSet<&'a str> {
        let (mut seen, mut lacks, mut next) = (BTreeSet::new(), BTreeSet::new(), vec![root]);
        while let Some(digest) = next.pop() {
            match self.contents.get_key_value(digest) {
                Some((digest, content)) if seen.insert(digest.as_str()) => {
                    next.extend(content.children.iter().map(String::as_str));
                }
                Some(_) => {}
                None => drop(lacks.insert(digest)),
            }
        }
        lacks
    }

    /// The sizes of all, and a list of the same per repository: what each needs, and what it needs that none before it has.
    pub(super) fn report(&self, roots: &Roots) -> Value {
        let (mut counted, mut all) = (BTreeSet::new(), Sum::default());
        let mut repositories = Vec::new();
        for (repository, roots) in roots {
            let (mut own, mut sum) = (BTreeSet::new(), Sum::default());
            let mut next: Vec<&str> = roots.iter().map(String::as_str).collect();
            while let Some(digest) = next.pop() {
                let Some(content) = self.contents.get(digest) else { continue };
                if !own.insert(digest) {
                    continue;
                }
                sum.bytes += content.bytes;
                if counted.insert(digest) {
                    sum.unique += content.bytes;
                    sum.far += if content.present { content.bytes } else { 0 };
                }
                next.extend(content.children.iter().map(String::as_str));
            }
            all = Sum { bytes: all.bytes + sum.bytes, unique: all.unique + sum.unique, far: all.far + sum.far };
            repositories.push(sum.as_json(Some(repository)));
        }
        let mut value = all.as_json(None);
        value["repositories"] = repositories.into();
        value
    }
}

impl Sum {
    fn as_json(self, repository: Option<&str>) -> Value {
        let mut value = json!({ "bytes": self.bytes, "unique_bytes": self.unique, "far_bytes": self.far });
        if let Some(repository) = repository {
            value["repository"] = repository.into();
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_counts_once_in_all_and_for_each_that_needs_it() {
        let digest = |number: u8| format!("sha256:{}", format!("{number:02x}").repeat(32));
        let manifest = |layers: &[u8]| {
            let layers: Vec<String> =
                layers.iter().map(|layer| format!(r#"{{"digest":"{}","size":1}}"#, digest(*layer))).collect();
            format!(r#"{{"schemaVersion":2,"layers":[{}]}}"#, layers.join(","))
        };
        let mut sizes = Sizes::default();
        sizes.note(&digest(1), 10, &mut manifest(&[3, 4]).as_bytes());
        sizes.note(&digest(2), 10, &mut manifest(&[4]).as_bytes());
        sizes.note(&digest(3), 100, &mut &b"x"[..]);
        sizes.note(&digest(4), 1000, &mut &b"x"[..]);
        sizes.mark(|it| it == digest(4));
        let root = |number| BTreeSet::from([digest(number)]);
        let report = sizes.report(&BTreeMap::from([("a".to_owned(), root(1)), ("b".to_owned(), root(2))]));
        assert_eq!(
            report,
            json!({
                "bytes": 2120, "unique_bytes": 1120, "far_bytes": 1000,
                "repositories": [
                    {"repository": "a", "bytes": 1110, "unique_bytes": 1110, "far_bytes": 1000},
                    {"repository": "b", "bytes": 1010, "unique_bytes": 10, "far_bytes": 0},
                ],
            })
        );
    }
}
