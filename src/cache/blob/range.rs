//! How a range is answered while a fill brings the blob: the one rule, for a single range and for each of several.

use crate::cache::error::CacheError;
use crate::cache::fill::{End, Fill, Follower, Opened, Transfer};
use crate::oci::ByteRange;
use std::sync::Arc;

pub(super) enum Way {
    /// The fill has ended meanwhile.
    Ended(End),
    /// By following the fill.
    Follow(Box<Follower>),
    /// By a ranged request of its own.
    Own(Box<Transfer>),
}

/// The way to `range`: it follows the fill if that is about to get there. Otherwise it is a request of its own, if it `may` send one
/// and not too many run beside the fill.
pub(super) async fn way_to(fill: &Arc<Fill>, opened: &Opened, range: ByteRange, may: bool) -> Result<Way, CacheError> {
    let reached = fill.gets_to(range.start).await;
    if let Some(end) = fill.end() {
        return Ok(Way::Ended(end));
    }
    if !reached
        && may
        && let Ok(permit) = Arc::clone(&fill.beside).try_acquire_owned()
    {
        let transfer = Transfer::of_range(fill.digest, &fill.candidates, range).await?;
        return Ok(Way::Own(Box::new(transfer.holding(permit))));
    }
    Ok(Way::Follow(Box::new(Follower::new(fill, opened.clone(), range))))
}
