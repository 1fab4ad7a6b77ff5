//! The store's background threads, and telling them to end.

use parking_lot::{Condvar, Mutex};
use std::io;
use std::time::Duration;
use tokio::sync::oneshot::{self, error::TryRecvError};

/// Tells all background threads of a store to end: it was closed, or dropped.
#[derive(Default)]
pub(crate) struct Stop {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    pub(crate) fn set(&self) {
        *self.is_set.lock() = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_set(&self) -> bool {
        *self.is_set.lock()
    }

    /// `None`: the thread is to end now.
    pub(crate) fn check(&self) -> Option<()> {
        (!self.is_set()).then_some(())
    }

    /// `None`: the thread is to end now.
    pub(crate) fn sleep(&self, time: Duration) -> Option<()> {
        let mut is_set = self.is_set.lock();
        self.changed.wait_while_for(&mut is_set, |is_set| !*is_set, time);
        (!*is_set).then_some(())
    }
}

/// A background thread, as its owner sees it.
pub(crate) struct Thread(oneshot::Receiver<()>);

impl Thread {
    pub(crate) fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new().name(name.into()).spawn(move || {
            work();
            let _ = end.send(());
        })?;
        Ok(Self(ended))
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_recv(), Err(TryRecvError::Empty))
    }

    pub(crate) async fn ended(self) {
        let _ = self.0.await;
    }
}
