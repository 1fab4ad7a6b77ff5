//! Whose turn it is to import.

use crate::server::{BodyError, Chunks};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// How long the end of the one before may take to be seen, and how often that is looked at.
const ENDING: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(10);

/// Whose turn it is: one import at a time. It lasts as long as the command holds its connection open.
#[derive(Clone, Default)]
pub(super) struct Turn(Arc<Mutex<Holder>>);

#[derive(Default)]
struct Holder {
    last: u64,
    current: Option<u64>,
}

impl Turn {
    fn begin(&self) -> Result<Held, String> {
        let mut holder = self.0.lock();
        if holder.current.is_some() {
            return Err("another import is under way; try again when it is done".to_owned());
        }
        holder.last += 1;
        let id = holder.last;
        holder.current = Some(id);
        Ok(Held { turn: self.clone(), id, said: false })
    }

    /// The same a moment later: that a command has ended is seen a moment after it did.
    pub(super) async fn begin_soon(&self) -> Result<Held, String> {
        let end = Instant::now() + ENDING;
        loop {
            match self.begin() {
                Err(_) if Instant::now() < end => tokio::time::sleep(LOOK).await,
                begun => return begun,
            }
        }
    }

    /// Whether the import still has its turn.
    pub(super) fn check(&self, id: u64) -> Result<(), String> {
        if self.0.lock().current == Some(id) {
            return Ok(());
        }
        Err("this import has lost its connection, or the daemon was restarted; import again, it continues".to_owned())
    }
}

/// The answer to `begin`: it says which import it is, and ends with the connection.
pub(super) struct Held {
    turn: Turn,
    id: u64,
    said: bool,
}

impl Chunks for Held {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.said {
            return Poll::Pending;
        }
        self.said = true;
        Poll::Ready(Some(Ok(format!("{}\n", json!({ "session": self.id })).into())))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.turn.0.lock().current = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_end_that_is_about_to_be_seen_is_waited_for_and_a_running_import_is_not() {
        let turn = Turn::default();
        let first = turn.begin().ok().unwrap();
        let began = Instant::now();
        assert!(turn.begin_soon().await.is_err());
        assert!(began.elapsed() >= ENDING && began.elapsed() < ENDING + Duration::from_secs(1));
        let ends = async {
            tokio::time::sleep(ENDING / 2).await;
            drop(first);
        };
        let (next, ()) = tokio::join!(turn.begin_soon(), ends);
        assert!(next.is_ok());
    }

    #[test]
    fn a_second_import_is_refused_until_the_first_has_ended() {
        let turn = Turn::default();
        let first = turn.begin().ok().unwrap();
        assert!(turn.begin().err().unwrap().contains("under way"));
        turn.check(first.id).unwrap();
        let lost = first.id;
        drop(first);
        assert!(turn.check(lost).is_err());
        let second = turn.begin().ok().unwrap();
        assert!(turn.check(lost).is_err() && turn.check(second.id).is_ok());
    }
}
