//! For what platform an image is: its configuration says so, or the index that lists it.

use crate::oci::{self, Descriptor, Manifest, Role};
use crate::store::files::layout;
use crate::store::parts::Inner;

/// More than any image's configuration has.
const MAX_CONFIG: u64 = 1 << 20;

impl Inner {
    /// The platforms that a manifest names: an image's own, or those of an index whose manifests are here.
    pub(crate) fn platforms(&self, manifest: &Manifest) -> Vec<Box<str>> {
        let listed = manifest.manifests.iter().filter_map(|child| {
            let platform = child.platform.as_ref()?;
            self.catalogue.get(&child.digest).map(|_| platform.clone())
        });
        let config = manifest.blobs.iter().find(|child| child.role == Role::Config);
        listed.chain(config.and_then(|config| self.platform_of(config))).collect()
    }

    fn platform_of(&self, config: &Descriptor) -> Option<Box<str>> {
        let kind = config.media_type.as_ref()?.as_str();
        let is_image = kind.contains(".image.config.") || kind.contains(".container.image.");
        let entry = self.catalogue.get(&config.digest).filter(|entry| is_image && entry.len <= MAX_CONFIG)?;
        let content = self.files.read(&layout::blob(&config.digest)).ok().flatten()?;
        drop(entry);
        oci::platform(&content)
    }
}
