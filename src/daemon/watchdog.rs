//! Tells systemd that larder lives (`WatchdogSec=`), as long as what could hang does not.
//!
//! What hangs in this program hangs in the store: a file operation that does not return, or a lock that is not given back. Each ping
//! has been through the store's lock and its threads. A disk that does not answer is no reason to be started anew, once the store has
//! noticed it: pulls pass through then, and a new process would hang at opening the store.

use crate::store::Store;
use std::time::Duration;

/// After a question that was not answered.
const AGAIN: Duration = Duration::from_millis(500);

/// Runs for ever; at once idle where nobody watches.
pub(super) async fn run(store: Store) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    loop {
        let alive = store.answers().await;
        if alive {
            super::notify(&[sd_notify::NotifyState::Watchdog]);
        }
        tokio::time::sleep(if alive { limit / 3 } else { AGAIN.min(limit / 3) }).await;
    }
}
