//! The only file that names sled. Any call may panic; the guard catches it.

use std::path::Path;
use std::time::Duration;

/// sled takes three to four times as much.
const CACHE_BYTES: u64 = 16 << 20;

pub(super) struct Engine(sled::Db);

impl Engine {
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(Some(1000));
        let database = config.open().map_err(text)?;
        // Damage often shows at the first read rather than at the opening.
        for entry in database.iter().take(16) {
            entry.map_err(text)?;
        }
        Ok(Self(database))
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        Ok(self.0.get(key).map_err(text)?.map(|value| value.to_vec()))
    }

    pub(super) fn put_many<'a>(&self, entries: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<(), String> {
        let mut batch = sled::Batch::default();
        for (key, value) in entries {
            batch.insert(key, value);
        }
        self.0.apply_batch(batch).map_err(text)
    }

    pub(super) fn flush(&self) -> Result<(), String> {
        self.0.flush().map(|_| ()).map_err(text)
    }

    pub(super) fn bytes_on_disk(&self) -> Result<u64, String> {
        self.0.size_on_disk().map_err(text)
    }

    /// Whether opening failed because another handle of a moment ago has not been closed yet.
    pub(super) fn is_locked(error: &str) -> bool {
        error.contains("could not acquire lock")
    }

    pub(super) const LOCK_WAIT: Duration = Duration::from_secs(5);
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn text(error: sled::Error) -> String {
    error.to_string()
}
