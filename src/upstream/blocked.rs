//! Why larder does not send requests to an upstream at the moment: for status, readiness and metrics.

use super::endpoint::Endpoint;
use super::endpoints::Upstream;
use super::error::Withheld;
use crate::upstream::limits::throttle;
use std::time::{Duration, SystemTime};

/// Why some requests are not sent to an upstream at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedReason {
    /// As in `larder_upstream_withheld_total`: `unreachable` or `throttled`.
    pub reason: &'static str,
    /// Which: the host, or the kind of request.
    pub of: String,
    /// Since when.
    pub since: Option<SystemTime>,
    /// For how much longer, if that is known.
    pub left: Option<Duration>,
    /// The sentence for a person.
    pub message: String,
}

impl Upstream {
    /// Why requests to it, and to its mirrors, are not sent at the moment.
    #[must_use]
    pub fn blocked(&self) -> Vec<BlockedReason> {
        let mut all = of(self.own());
        for mirror in self.endpoints().skip(1) {
            let named =
                |it: BlockedReason| BlockedReason { message: format!("{}: {}", mirror.shown(), it.message), ..it };
            all.extend(of(mirror).into_iter().map(named));
        }
        all
    }
}

fn of(endpoint: &Endpoint) -> Vec<BlockedReason> {
    let silent = endpoint.client().silent_hosts().into_iter().map(|(host, since, message)| BlockedReason {
        reason: Withheld::Unreachable.as_str(),
        of: host,
        since: Some(since),
        left: None,
        message,
    });
    let held = endpoint.client().held_back().into_iter().map(|(category, left)| BlockedReason {
        reason: Withheld::Throttled.as_str(),
        of: category.to_string(),
        since: None,
        left: Some(left),
        message: throttle::words(category, left),
    });
    let mut all: Vec<_> = silent.chain(held).collect();
    all.sort_by(|a, b| (a.reason, &a.of).cmp(&(b.reason, &b.of)));
    all
}
