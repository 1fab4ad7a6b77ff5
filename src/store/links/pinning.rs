//! Finding out what pins keep.

use super::reader::LinkReader;
use super::walk::{Folder, Visitor, walk};
use crate::oci::{Digest, MAX_DEPTH, Repository};
use crate::store::error::StoreError;
use crate::store::evict::{Evictor, PINS_KIND, Pin, Pins};
use crate::store::files::{Record, layout};
use crate::store::jobs::Stop;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

pub(crate) struct Pinning {
    evictor: Arc<Evictor>,
    reader: Arc<LinkReader>,
    pub(crate) pins: Arc<Pins>,
    stop: Arc<Stop>,
    walking: Mutex<()>,
}

/// Finds the links that are pinned, on a walk. What was pinned before stays so until [`finish`](Self::finish).
pub(crate) struct PinVisitor<'a> {
    pinning: &'a Pinning,
    _one: MutexGuard<'a, ()>,
}

impl Pinning {
    pub(crate) fn new(evictor: Arc<Evictor>, reader: Arc<LinkReader>, pins: Arc<Pins>, stop: Arc<Stop>) -> Self {
        Self { evictor, reader, pins, stop, walking: Mutex::new(()) }
    }

    /// Adds a pin, with all that it keeps. `false`: it was there.
    pub(crate) fn pin(&self, pin: &Pin) -> Result<bool, StoreError> {
        let (_, mut asked) = self.pins.all();
        if asked.contains(pin) {
            return Ok(false);
        }
        asked.push(pin.clone());
        self.set(asked)?;
        Ok(true)
    }

    /// Removes a pin. `false`: there is none.
    pub(crate) fn unpin(&self, pin: &Pin) -> Result<bool, StoreError> {
        let (_, mut asked) = self.pins.all();
        let before = asked.len();
        asked.retain(|other| other != pin);
        if asked.len() == before {
            return Ok(false);
        }
        self.set(asked)?;
        Ok(true)
    }

    /// The file first: what is said to be pinned is pinned after a crash, too. One thread calls it.
    fn set(&self, asked: Vec<Pin>) -> Result<(), StoreError> {
        let text = asked.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let record = Record::new().with_body(text.as_bytes());
        self.evictor.replace(Path::new(layout::PINS), &record.to_bytes(PINS_KIND))?;
        self.pins.set_asked(asked);
        self.find();
        Ok(())
    }

    /// Finds out anew what is pinned.
    pub(crate) fn find(&self) {
        let mut visitor = self.visitor();
        // What cannot be read was said; the rest is pinned.
        let _ = walk(&self.reader.files, &self.stop, &mut [&mut visitor]);
        visitor.finish();
    }

    pub(crate) fn visitor(&self) -> PinVisitor<'_> {
        let one = self.walking.lock();
        self.pins.begin();
        PinVisitor { pinning: self, _one: one }
    }

    /// Pins a manifest and all that it refers to, as far as it is here and no deeper than [`MAX_DEPTH`]. Content that comes later is
    /// pinned as it comes.
    pub(crate) fn pin_manifest(&self, repository: &Repository, digest: Digest) {
        let (mut seen, mut level) = (HashSet::from([digest]), vec![digest]);
        for _ in 0..=MAX_DEPTH {
            self.pins.insert(level.iter().copied());
            let mut below = Vec::new();
            for digest in level {
                let children = self.reader.children(repository, &digest).unwrap_or_default();
                below.extend(children.into_iter().filter(|child| seen.insert(*child)));
            }
            level = below;
        }
    }
}

impl Visitor for PinVisitor<'_> {
    fn visit(&mut self, folder: &Folder<'_>) -> Result<(), StoreError> {
        let Pinning { reader, pins, .. } = self.pinning;
        let Some(repository) = folder.repository().filter(|repository| pins.concern(repository)) else { return Ok(()) };
        pins.insert(reader.manifests(repository).unwrap_or_default());
        match reader.mentioned(repository) {
            Ok(all) => pins.insert(all),
            Err(error) => tracing::warn!(%error, "cannot read all links of a pinned repository"),
        }
        Ok(())
    }
}

impl PinVisitor<'_> {
    /// Adds what pinned tags and manifests stand for. From here on, what was found is what is pinned.
    pub(crate) fn finish(self) {
        let Pinning { reader, pins, .. } = self.pinning;
        for pin in pins.all().1 {
            match pin {
                Pin::Repositories(_) => {}
                Pin::Manifest(repository, digest) => self.pinning.pin_manifest(&repository, digest),
                Pin::Tag(repository, tag) => {
                    if let Ok(Some(link)) = reader.tag(&repository, &tag) {
                        self.pinning.pin_manifest(&repository, link.digest);
                    }
                }
            }
        }
        pins.finish();
    }
}
