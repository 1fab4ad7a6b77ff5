//! The local copies of uploads, between two requests of a session.

use crate::store::Upload;
use crate::upstream::{Place, Shares};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// A session without a request for so long is taken for abandoned.
const ABANDONED: Duration = Duration::from_secs(3600);
/// Where there are too many, one that has been idle for so long gives way.
const GIVES_WAY: Duration = Duration::from_secs(60);

/// What the store has of an upload: all of it, from its first byte on.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) upload: Upload,
    _place: Place,
}

/// The copies that are not being written at the moment, and the places for more.
#[derive(Debug)]
pub(super) struct Copies {
    idle: Mutex<HashMap<u128, (Kept, Instant)>>,
    places: Shares,
}

impl Copies {
    pub(super) fn new(most: usize) -> Self {
        Self { idle: Mutex::default(), places: Shares::new(most) }
    }

    /// A place for one more copy. `None`: there are as many as there may be, and none is old.
    pub(super) fn place(&self) -> Option<Place> {
        if let Some(place) = self.places.take() {
            return Some(place);
        }
        let mut idle = self.idle.lock();
        let oldest = idle.iter().min_by_key(|(_, (_, since))| *since);
        let oldest = oldest.filter(|(_, (_, since))| since.elapsed() >= GIVES_WAY).map(|(id, _)| *id)?;
        drop(idle.remove(&oldest));
        drop(idle);
        self.places.take()
    }

    pub(super) fn begun(upload: Upload, place: Place) -> Kept {
        Kept { upload, _place: place }
    }

    /// Takes the copy of a session.
    pub(super) fn take(&self, id: u128) -> Option<Kept> {
        self.idle.lock().remove(&id).map(|(kept, _)| kept)
    }

    /// Keeps it for the session's next request.
    pub(super) fn put_back(&self, id: u128, kept: Kept) {
        self.idle.lock().insert(id, (kept, Instant::now()));
    }

    /// Removes the copies of abandoned sessions; whether any is left.
    pub(super) fn reap(&self) -> bool {
        let mut idle = self.idle.lock();
        let before = idle.len();
        idle.retain(|_, (_, since)| since.elapsed() < ABANDONED);
        if idle.len() < before {
            tracing::info!(sessions = before - idle.len(), "removed what was kept of abandoned uploads");
        }
        !idle.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreSettings;
    use crate::store::{RealDisk, Store};
    use crate::telemetry::Metrics;
    use std::sync::Arc;

    fn settings(path: &std::path::Path) -> StoreSettings {
        StoreSettings::small(path, 64 << 20)
    }

    #[tokio::test]
    async fn a_copy_gives_way_after_a_minute_and_goes_after_an_hour() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk::new(folder.path()));
        let store = Store::open(&settings(folder.path()), disk, Arc::new(Metrics::new())).await.unwrap();
        let copies = Copies::new(2);
        let mut begun = Vec::new();
        for _ in 0..2 {
            begun.push(Copies::begun(store.upload().await.unwrap(), copies.place().unwrap()));
        }
        let next = store.upload().await.unwrap();
        tokio::time::pause();
        assert!(copies.place().is_none(), "both places are taken");
        for (id, kept) in (1..).zip(begun) {
            copies.put_back(id, kept);
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        tokio::time::advance(GIVES_WAY.saturating_sub(Duration::from_secs(21))).await;
        assert!(copies.place().is_none(), "they may still be continued");
        tokio::time::advance(Duration::from_secs(1)).await;
        let place = copies.place().expect("the older one gives way");
        assert!(copies.take(1).is_none());
        copies.put_back(3, Copies::begun(next, place));

        tokio::time::advance(ABANDONED.saturating_sub(GIVES_WAY)).await;
        assert!(copies.reap(), "none is an hour old");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(copies.reap(), "one is left");
        assert!(copies.take(2).is_none());
        tokio::time::advance(GIVES_WAY).await;
        assert!(!copies.reap());
        assert!(copies.take(3).is_none() && copies.place().is_some());
    }
}
