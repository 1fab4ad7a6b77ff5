//! What came in by disk, before it is linked: a name is linked only when everything that it needs is here, or was declared to be
//! left out.

use super::scope::Platforms;
use crate::oci::{Descriptor, Digest, MAX_DEPTH, Manifest, MediaType};
use crate::store::{Store, StoreError};
use std::collections::{BTreeSet, HashSet};

/// What a bundle says of what it leaves out.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// Platforms whose content it has.
    pub platforms: Platforms,
    /// Contents that the exporting side did not have either.
    pub absent: HashSet<Digest>,
    /// Indexes may lack platforms without a word: other tools write only what they have.
    pub sparse: bool,
}

/// The manifests of one name, children first, or what is missing of it.
#[derive(Debug, Default)]
pub struct Closure {
    /// Manifests that are here, children before parents.
    pub manifests: Vec<(Digest, Option<MediaType>)>,
    /// Contents that it needs and that are not here.
    pub missing: BTreeSet<Digest>,
}

impl Closure {
    /// Looks at everything that `root` needs.
    pub async fn of(
        store: &Store,
        root: Digest,
        media_type: Option<MediaType>,
        declared: &Declared,
    ) -> Result<Self, StoreError> {
        let mut closure = Self::default();
        let mut seen = HashSet::from([root]);
        let mut level = vec![(root, media_type, true)];
        for _ in 0..=MAX_DEPTH {
            let mut below = Vec::new();
            for (digest, media_type, wanted) in level {
                let content = store.peek_small(&digest).await?;
                let Some(manifest) = content.and_then(|content| Manifest::parse(&content)) else {
                    // An index may lack children: the specification allows it, and the filter for platforms makes use of it.
                    if wanted && !declared.absent.contains(&digest) {
                        closure.missing.insert(digest);
                    }
                    continue;
                };
                let media_type = media_type.or_else(|| manifest.media_type.clone());
                closure.manifests.push((digest, media_type));
                for blob in manifest.blobs.iter().filter(|blob| wanted && !blob.has_urls) {
                    if store.length(&blob.digest).is_none() && !declared.absent.contains(&blob.digest) {
                        closure.missing.insert(blob.digest);
                    }
                }
                // One platform at least: an index of which nothing is here is of no use.
                let is_here = |child: &&Descriptor| store.length(&child.digest).is_some();
                let sparse = declared.sparse && manifest.manifests.iter().any(|child| is_here(&child));
                let children = manifest.manifests.iter().filter(|child| !sparse || is_here(child));
                for child in children.filter(|child| seen.insert(child.digest)) {
                    let wanted = wanted && declared.platforms.want(child.platform.as_deref());
                    below.push((child.digest, child.media_type.clone(), wanted));
                }
            }
            level = below;
        }
        // What is nested deeper than anything is followed cannot be completed.
        closure.missing.extend(level.into_iter().filter(|(.., wanted)| *wanted).map(|(digest, ..)| digest));
        closure.manifests.reverse();
        Ok(closure)
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }
}
