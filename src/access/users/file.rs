//! The users file as it is now: read again when its content changes, and kept as it was while what stands there is wrong.

use crate::config::{Users, UsersError, read_users};
use parking_lot::RwLock;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// How often the file is looked at. By content: a file system's times may be coarse, and Kubernetes swaps links.
const LOOK: Duration = Duration::from_millis(500);

/// The users that hold.
pub(super) struct Current(RwLock<Arc<Users>>);

impl Current {
    /// The file as it is. It has been read when the configuration was; if it has broken since, there is nobody until it is mended.
    pub(super) fn read(file: &Path) -> Self {
        let users = read_users(file).unwrap_or_else(|errors| {
            complain(file, &errors, "nobody of it is let in");
            Users::default()
        });
        Self(RwLock::new(Arc::new(users)))
    }

    pub(super) fn get(&self) -> Arc<Users> {
        Arc::clone(&self.0.read())
    }
}

/// Looks at the file as long as somebody uses it.
pub(super) async fn watch(file: PathBuf, current: Weak<Current>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = None;
    loop {
        looks.tick().await;
        let path = file.clone();
        // One look at a time: a file system that hangs holds one thread.
        let Ok(read) = tokio::task::spawn_blocking(move || read_users(&path)).await else { return };
        let Some(current) = current.upgrade() else { return };
        match read {
            Ok(users) => {
                said = None;
                if users != **current.0.read() {
                    tracing::info!("users file {}: {users:?} now", file.display());
                    *current.0.write() = Arc::new(users);
                }
            }
            Err(errors) if said.as_ref() != Some(&errors) => {
                complain(&file, &errors, "the users that it had are let in still");
                said = Some(errors);
            }
            Err(_) => {}
        }
    }
}

fn complain(file: &Path, errors: &[UsersError], meanwhile: &str) {
    for error in errors {
        tracing::error!("users file {}: {error}; {meanwhile}", file.display());
    }
}
