//! Manifests' bytes: read whole, and checked against their digest each time.

use super::shelf::Blobs;
use crate::oci::{Digest, MAX_MANIFEST};
use crate::store::disk::{is_unreadable, read_exact_at};
use crate::store::error::StoreError;
use crate::store::files::layout;
use bytes::Bytes;
use std::sync::Arc;

pub(crate) struct Documents {
    pub(crate) blobs: Arc<Blobs>,
}

impl Documents {
    pub(crate) fn new(blobs: Arc<Blobs>) -> Self {
        Self { blobs }
    }

    /// Damaged ones are set aside and `None`, as is what is longer than [`MAX_MANIFEST`].
    pub(crate) fn read(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        let Some(blob) = self.blobs.open(digest)? else { return Ok(None) };
        let length = match usize::try_from(blob.len()) {
            Ok(length) if length <= MAX_MANIFEST => length,
            _ => return Ok(None),
        };
        let mut content = vec![0; length];
        match read_exact_at(blob.file().disk_file(), &mut content, 0) {
            Ok(()) if digest.matches(&content) => return Ok(Some(content.into())),
            Err(error) if !is_unreadable(&error) => return Err(StoreError::io("read", layout::blob(digest))(error)),
            _ => {}
        }
        drop(blob);
        self.blobs.soundness.set_aside(digest, "read")?;
        Ok(None)
    }

    /// The same without counting as a use.
    pub(crate) fn peek(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        if self.blobs.length(digest).is_none_or(|length| length > MAX_MANIFEST as u64) {
            return Ok(None);
        }
        match self.blobs.files.read(&layout::blob(digest))? {
            Some(content) if !digest.matches(&content) => self.read(digest),
            content => Ok(content.map(Bytes::from)),
        }
    }
}
