//! Slices: parts of a blob that is longer than a volume. Volumes arrive in any order, perhaps weeks apart, so each slice is stored as
//! a content of its own until all of them are here. Then they are joined, and each is removed as soon as its bytes are in the blob:
//! joining takes the room of one slice beside the blob.

use super::control::failed;
use super::imports::{BATCH, Batches, lost};
use super::linking::Pending;
use super::{Admin, Refused};
use crate::oci::{Algorithm, Digest, Hasher};
use http::StatusCode;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};

/// Slices of one blob, and blobs of which there are slices.
const MOST: usize = 10_000;

/// The slices of a blob that are here.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct Sliced {
    total: u64,
    /// By their offset: length and digest.
    parts: BTreeMap<u64, (u64, String)>,
}

impl Sliced {
    /// The slice that has the byte at `at`.
    fn covering(&self, at: u64) -> Option<(u64, Digest)> {
        let (offset, (length, digest)) = self.parts.range(..=at).next_back()?;
        (at - offset < *length).then_some(())?;
        Some((*offset, digest.parse().ok()?))
    }

    fn is_whole(&self) -> bool {
        let mut at = 0;
        for (offset, (length, _)) in &self.parts {
            if *offset > at {
                return false;
            }
            at = at.max(offset.saturating_add(*length));
        }
        at >= self.total
    }
}

impl Admin {
    /// Whether the slice, or the whole blob, is here already.
    pub(super) async fn has_slice(&self, blob: Digest, offset: u64, length: Option<u64>) -> Result<Value, Refused> {
        let pending = self.pending().await?;
        let slice = pending.slices.get(&blob.to_string()).and_then(|sliced| sliced.parts.get(&offset));
        let is_here = |digest: &Digest| self.store.length(digest).is_some();
        let has = slice.is_some_and(|(has, digest)| {
            Some(*has) == length && digest.parse().is_ok_and(|digest: Digest| is_here(&digest))
        });
        Ok(json!({ "present": has || is_here(&blob) }))
    }

    /// Stores a slice; with the last one the blob is joined.
    pub(super) async fn receive_slice(
        &self,
        session: u64,
        blob: Digest,
        offset: u64,
        total: u64,
        body: Incoming,
    ) -> Result<Value, Refused> {
        let wrong = |text: &str| (StatusCode::UNPROCESSABLE_ENTITY, format!("a slice of {blob} {text}"));
        let room = total.checked_sub(offset).filter(|room| *room > 0);
        let room = room.ok_or_else(|| wrong("begins behind the blob's end; export again"))?;
        let (slice, length) = self.store_slice(session, blob, room, body).await?;
        let _one = self.importing.lock().await;
        let mut pending = self.pending().await?;
        if pending.slices.len() >= MOST {
            return Err(wrong("is one of too many that wait for others; import the volumes that are missing first"));
        }
        let sliced = pending.slices.entry(blob.to_string()).or_default();
        if sliced.total != total {
            // Whatever came before said something else of the blob.
            *sliced = Sliced { total, ..Sliced::default() };
        }
        if sliced.parts.len() >= MOST {
            return Err(wrong("is one of too many; export with larger volumes"));
        }
        sliced.parts.insert(offset, (length, slice.to_string()));
        let is_whole = sliced.is_whole();
        self.keep_pending(&pending).await?;
        if is_whole {
            self.join(session, blob, &mut pending).await?;
        }
        Ok(json!({ "present": false }))
    }

    /// Stores a slice under its own digest, which is known at its end.
    async fn store_slice(
        &self,
        session: u64,
        blob: Digest,
        room: u64,
        body: Incoming,
    ) -> Result<(Digest, u64), Refused> {
        let mut upload = self.store.upload().await.map_err(failed)?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut batches = Batches::of(body, blob);
        while let Some(batch) = batches.next().await? {
            self.turn.check(session).map_err(lost)?;
            hasher.update(&batch);
            upload.write(batch).await.map_err(failed)?;
            if upload.received() > room {
                let text = format!("a slice of {blob} is longer than the blob; export again");
                return Err((StatusCode::UNPROCESSABLE_ENTITY, text));
            }
        }
        let (slice, length) = (hasher.finish(), upload.received());
        let verified = upload.verify(&slice).await.map_err(failed)?;
        verified.commit().await.map_err(failed)?;
        Ok((slice, length))
    }

    /// Makes the blob of its slices. What has gone of them meanwhile is forgotten, and comes with its volume again.
    async fn join(&self, session: u64, blob: Digest, pending: &mut Pending) -> Result<(), Refused> {
        let Some(sliced) = pending.slices.remove(&blob.to_string()) else { return Ok(()) };
        let mut ingest = self.store.ingest(&blob, Some(sliced.total)).await.map_err(failed)?;
        while ingest.received() < sliced.total {
            self.turn.check(session).map_err(lost)?;
            let Some((offset, slice)) = sliced.covering(ingest.received()) else { break };
            let Some(content) = self.store.blob(&slice).await.map_err(failed)? else {
                let mut rest = sliced.clone();
                rest.parts.remove(&offset);
                pending.slices.insert(blob.to_string(), rest);
                return self.keep_pending(pending).await;
            };
            while let Some(left) = (offset + content.len()).checked_sub(ingest.received()).filter(|left| *left > 0) {
                self.turn.check(session).map_err(lost)?;
                let length = usize::try_from(left).unwrap_or(BATCH).min(BATCH);
                let read = content.file().read(ingest.received() - offset, length).await;
                ingest.write(read.map_err(failed)?).await.map_err(failed)?;
            }
            drop(content);
            self.store.remove_unlinked(HashSet::from([slice])).await.map_err(failed)?;
        }
        let verified = ingest.verify().await;
        // Whether it was right or not, nothing is left of the slices.
        self.keep_pending(pending).await?;
        let verified = verified.map_err(|error| {
            let text = format!("the slices of {blob} are damaged: {error}; import the volumes that have them again");
            (StatusCode::UNPROCESSABLE_ENTITY, text)
        })?;
        verified.commit().await.map(drop).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sliced(total: u64, parts: &[(u64, u64)]) -> Sliced {
        let digest = Digest::of(Algorithm::Sha256, b"x").to_string();
        let parts = parts.iter().map(|(offset, length)| (*offset, (*length, digest.clone()))).collect();
        Sliced { total, parts }
    }

    #[test]
    fn slices_are_whole_when_no_byte_is_missing() {
        assert!(sliced(10, &[(0, 4), (4, 6)]).is_whole());
        assert!(sliced(10, &[(0, 6), (4, 6)]).is_whole(), "they may overlap");
        for parts in [&[(0, 4), (5, 5)][..], &[(4, 6)], &[(0, 9)], &[]] {
            assert!(!sliced(10, parts).is_whole(), "{parts:?}");
        }
        assert!(sliced(10, &[(0, u64::MAX), (1, u64::MAX)]).is_whole(), "what is claimed overflows nothing");
        assert_eq!(sliced(10, &[(0, 4), (4, 6)]).covering(5).unwrap().0, 4);
        assert_eq!(sliced(10, &[(0, 4), (5, 5)]).covering(4), None);
    }
}
