//! Addresses of an upstream that have given wrong bytes.

use crate::oci::Digest;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// How long wrong bytes are held against an address …
const HELD_AGAINST: Duration = Duration::from_secs(600);
/// … and how many of them at once.
const MOST_BLAMED: usize = 256;

/// Addresses that have given wrong bytes for a content lately.
#[derive(Default)]
pub(super) struct Blamed(Mutex<VecDeque<(Digest, usize, Instant)>>);

impl Blamed {
    pub(super) fn add(&self, digest: &Digest, address: usize) {
        let mut blamed = self.0.lock();
        blamed.retain(|(of, who, since)| since.elapsed() < HELD_AGAINST && !(of == digest && *who == address));
        if blamed.len() >= MOST_BLAMED {
            blamed.pop_front();
        }
        blamed.push_back((*digest, address, Instant::now()));
    }

    pub(super) fn is(&self, digest: &Digest, address: usize) -> bool {
        let blamed = self.0.lock();
        blamed.iter().any(|(of, who, since)| of == digest && *who == address && since.elapsed() < HELD_AGAINST)
    }
}
