//! Memory for large documents: manifests and pages of lists that come or are read whole, and answers that are made of them. All
//! requests together hold no more than a budget, of which each client has a share. What is short is not counted: connections are
//! bounded, and so are those.

use super::shares::{Client, Place, Shares};
use bytes::Bytes;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// What is no longer than this costs nothing of the budget.
pub const SHORT: usize = 64 << 10;
/// How many times its length a document takes while it is read: what is made of it is no longer than itself.
pub const READING: usize = 2;
/// The least budget: a long list with its pages has to fit.
const LEAST: u64 = 32 << 20;
/// How long room is waited for; whoever gets none is told to come back after as long.
pub(in crate::upstream) const WAIT: Duration = Duration::from_secs(5);

tokio::task_local! {
    static COVERED: ();
}

/// The budget. A cheap clone.
#[derive(Clone, Debug)]
pub struct Documents(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes: Shares,
    /// What one request can have: beside others a client gets no more.
    most: usize,
    freed: Notify,
}

/// Memory that may be used, until it and its last clone are dropped.
#[derive(Clone, Debug)]
pub struct Room {
    _taken: Arc<Taken>,
}

#[derive(Debug)]
struct Taken {
    place: Option<Place>,
    of: Documents,
}

/// There was none, and there is none after a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("large documents take as much memory as they may (document_memory)")]
pub struct NoRoom {
    /// When to come back.
    pub retry: Duration,
}

impl Documents {
    /// Of so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let bytes = usize::try_from(bytes.max(LEAST)).unwrap_or(usize::MAX);
        Self(Arc::new(Inner { bytes: Shares::new(bytes), most: bytes / 8 * 6, freed: Notify::new() }))
    }

    /// Room for so many bytes, or for three quarters of all that there is, for the client whose request is being answered. `None`: it needs none.
    ///
    /// Who has room already must not wait for more: two of them could wait for each other.
    ///
    /// # Errors
    /// If there is none within seconds.
    pub async fn room(&self, bytes: usize) -> Result<Option<Room>, NoRoom> {
        if bytes <= SHORT || COVERED.try_with(|()| ()).is_ok() {
            return Ok(None);
        }
        let (client, bytes) = (Client::current(), bytes.min(self.0.most));
        let found = timeout(WAIT, async {
            loop {
                let mut freed = std::pin::pin!(self.0.freed.notified());
                freed.as_mut().enable();
                if let Some(place) = self.0.bytes.take_many(client, bytes) {
                    return place;
                }
                freed.await;
            }
        });
        match found.await {
            Ok(place) => Ok(Some(self.held(place))),
            Err(_) => Err(NoRoom { retry: WAIT }),
        }
    }

    /// The same, if there is room now. It may be asked for by who has room already.
    #[must_use]
    pub fn room_now(&self, bytes: usize) -> Option<Room> {
        self.0.bytes.take_many(Client::current(), bytes.min(self.0.most)).map(|place| self.held(place))
    }

    fn held(&self, place: Place) -> Room {
        Room { _taken: Arc::new(Taken { place: Some(place), of: self.clone() }) }
    }
}

impl Room {
    /// The same bytes, which have this room for as long as anybody has them.
    #[must_use]
    pub fn around(room: Option<Self>, bytes: Bytes) -> Bytes {
        match room {
            Some(room) => Bytes::from_owner(Held { bytes, _room: room }),
            None => bytes,
        }
    }

    /// Does `work` in this room: it waits for no other.
    pub fn cover<T>(&self, work: impl Future<Output = T>) -> impl Future<Output = T> {
        COVERED.scope((), work)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.place.take();
        self.of.0.freed.notify_waiters();
    }
}

struct Held {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    const MIB: usize = 1 << 20;

    fn client(last: u8) -> Client {
        Client::at(Some(IpAddr::from([192, 0, 2, last])))
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_bounded_shared_by_clients_and_free_again_when_the_last_has_let_go() {
        let documents = Documents::new(0);
        let room = async |last, bytes| client(last).scope(documents.room(bytes)).await;
        assert!(room(1, SHORT).await.unwrap().is_none(), "what is short costs nothing");
        let bytes = Room::around(room(1, 64 * MIB).await.unwrap(), Bytes::from_static(b"x"));
        let _rest = room(1, 8 * MIB).await.unwrap();
        assert_eq!(room(1, MIB).await.unwrap_err(), NoRoom { retry: WAIT });
        assert!(room(2, 4 * MIB).await.unwrap().is_some(), "another client has an eighth more");
        let copy = bytes.clone();
        drop(bytes);
        let (waited, ()) = tokio::join!(room(1, MIB), async {
            tokio::time::sleep(WAIT / 2).await;
            drop(copy);
        });
        assert!(waited.unwrap().is_some(), "it has waited for it");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_room_waits_for_no_more() {
        let documents = Documents::new(0);
        let all = documents.room(24 * MIB).await.unwrap().unwrap();
        let _rest = documents.room_now(8 * MIB).unwrap();
        assert!(documents.room(MIB).await.is_err());
        assert!(all.cover(documents.room(MIB)).await.unwrap().is_none());
    }
}
