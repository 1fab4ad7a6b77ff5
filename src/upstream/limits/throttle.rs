//! What an upstream's 429 holds back: its whole limit category, for as long as the upstream asked.
//!
//! Registries count requests by category (ACR: reads, referrers, writes, deletes, tokens), and go on counting while they refuse.
//! So no request of a class is sent while the class is held back; a request fails at once with the seconds that are left. What may be
//! sent goes at the pace of its budget (`budget.rs`).

use super::budget::{Budget, Slot, is_background};
use super::op::{Op, QuotaClass};
use crate::config::Tier;
use crate::upstream::error::{ErrorKind, Failure, Withheld};
use http::StatusCode;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long a category is held back at least, and the first time if the upstream does not say …
const SHORTEST: Duration = Duration::from_secs(1);
/// … doubling from there up to this.
const LONGEST_UNSAID: Duration = Duration::from_secs(60);

/// One upstream's categories that have been refused lately, and what may be sent of each.
pub(in crate::upstream) struct Throttle {
    holds: Mutex<HashMap<QuotaClass, Hold>>,
    budget: Budget,
}

struct Hold {
    until: Instant,
    /// The last pause that larder had to choose itself.
    unsaid: Option<Duration>,
}

impl Throttle {
    pub(in crate::upstream) fn new(tier: Tier) -> Self {
        Self { holds: Mutex::default(), budget: Budget::new(tier) }
    }

    /// Waits until the budget lets a request go that has been admitted; whether it had to wait.
    pub(in crate::upstream) async fn turn(&self, op: Op) -> Result<bool, Failure> {
        let mut waited = false;
        loop {
            let (at, reserved) = match self.budget.reserve(op.quota_classes(), is_background()) {
                Slot::At(at) => (at, true),
                Slot::AskAgain(at) => (at, false),
                Slot::Refused(category, left) => {
                    let left = whole_seconds(left);
                    let reason = format!(
                        "larder has used up what its tier allows of {category} in a minute (upstream.tier), for another {} s",
                        left.as_secs()
                    );
                    let kind = ErrorKind::Throttled { retry_after: Some(left) };
                    return Err(Failure::withheld(Withheld::Budget, kind, reason));
                }
            };
            if at > Instant::now() {
                waited = true;
                sleep_until(at).await;
            }
            if reserved {
                // It may have been refused meanwhile.
                return if waited { self.admit(op).map(|()| true) } else { Ok(false) };
            }
        }
    }

    /// Whether a request may be sent now.
    pub(in crate::upstream) fn admit(&self, op: Op) -> Result<(), Failure> {
        let holds = self.holds.lock();
        let now = Instant::now();
        let known = op.quota_classes().iter().filter_map(|category| Some((category, holds.get(category)?)));
        let Some((category, longest)) = known.filter(|(_, hold)| hold.until > now).max_by_key(|(_, hold)| hold.until)
        else {
            return Ok(());
        };
        let left = whole_seconds(longest.until - now);
        let reason = words(*category, left);
        Err(Failure::withheld(Withheld::Throttled, ErrorKind::Throttled { retry_after: Some(left) }, reason))
    }

    /// Whether there is room for a request that is sent beside another one: as much as for work in the background.
    pub(in crate::upstream) fn spare(&self, op: Op) -> bool {
        self.admit(op).is_ok() && matches!(self.budget.reserve(op.quota_classes(), true), Slot::At(_))
    }

    /// What is held back now, and for how long.
    pub(in crate::upstream) fn held(&self) -> Vec<(QuotaClass, Duration)> {
        let now = Instant::now();
        let holds = self.holds.lock();
        let held = holds.iter().filter(|(_, hold)| hold.until > now);
        held.map(|(category, hold)| (*category, whole_seconds(hold.until - now))).collect()
    }

    /// Notes what an answer says about the pace. For a 429, the time for which its category is held back.
    pub(in crate::upstream) fn note(
        &self,
        op: Op,
        status: StatusCode,
        retry_after: Option<Duration>,
    ) -> Option<Duration> {
        let mut holds = self.holds.lock();
        let now = Instant::now();
        if status != StatusCode::TOO_MANY_REQUESTS {
            // One that was sent before the refusal proves nothing about it.
            holds.retain(|category, hold| hold.until > now || !op.quota_classes().contains(category));
            return None;
        }
        let category = op.quota_classes()[0];
        self.budget.refused(category);
        let (running, last) = holds
            .get(&category)
            .map_or((None, None), |hold| (Some(hold.until).filter(|until| *until > now), hold.unsaid));
        let (until, unsaid) = match (retry_after, running) {
            (Some(after), running) => (running.unwrap_or(now).max(now + after.max(SHORTEST)), last),
            // Sent before the last refusal was known: the same refusal once more.
            (None, Some(running)) => (running, last),
            (None, None) => {
                let pause = last.map_or(SHORTEST, |last| (last * 2).min(LONGEST_UNSAID));
                (now + pause, Some(pause))
            }
        };
        holds.insert(category, Hold { until, unsaid });
        Some(whole_seconds(until - now))
    }
}

pub(in crate::upstream) fn words(category: QuotaClass, left: Duration) -> String {
    format!("it throttles {category}, and wants to be left alone for another {} s", left.as_secs())
}

/// Rounded up: who comes back a moment too early is refused again.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(u64::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: StatusCode = StatusCode::TOO_MANY_REQUESTS;

    fn left(throttle: &Throttle, op: Op) -> Option<u64> {
        match throttle.admit(op).err()?.kind {
            ErrorKind::Throttled { retry_after } => retry_after.map(|after| after.as_secs()),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_category_is_left_alone_for_as_long_as_was_said() {
        let throttle = Throttle::new(Tier::Unknown);
        let held = throttle.note(Op::ManifestGet, REFUSED, Some(Duration::from_secs(50)));
        assert_eq!(held, Some(Duration::from_secs(50)));
        tokio::time::advance(Duration::from_millis(20_500)).await;
        assert_eq!(left(&throttle, Op::BlobGet), Some(30));
        assert_eq!(left(&throttle, Op::Referrers), Some(30), "referrers count as reads too");
        assert_eq!(left(&throttle, Op::Token), None);
        assert_eq!(left(&throttle, Op::BlobStorage), None, "storage has limits of its own");
        // An answer to what was sent earlier lifts nothing, and a later refusal can only make it longer.
        throttle.note(Op::ManifestHead, StatusCode::OK, None);
        throttle.note(Op::ManifestHead, REFUSED, Some(Duration::from_secs(5)));
        assert_eq!(left(&throttle, Op::BlobGet), Some(30));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(left(&throttle, Op::BlobGet), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_again_keeps_to_the_background_s_half_and_to_refusals() {
        let throttle = Throttle::new(Tier::Basic);
        let sent = (0..10_000).take_while(|_| throttle.spare(Op::ManifestHead)).count();
        assert_eq!(sent, 2_500);
        assert!(throttle.spare(Op::Token));
        throttle.note(Op::Token, REFUSED, Some(Duration::from_secs(5)));
        assert!(!throttle.spare(Op::Token));
    }

    #[tokio::test(start_paused = true)]
    async fn referrers_refused_leave_reads_alone() {
        let throttle = Throttle::new(Tier::Unknown);
        throttle.note(Op::Referrers, REFUSED, Some(Duration::from_secs(9)));
        assert_eq!(left(&throttle, Op::Referrers), Some(9));
        assert_eq!(left(&throttle, Op::ManifestGet), None);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_time_it_doubles_from_a_second_to_a_minute_and_an_answer_starts_anew() {
        let throttle = Throttle::new(Tier::Unknown);
        for want in [1, 2, 4, 8, 16, 32, 60, 60] {
            let held = throttle.note(Op::Token, REFUSED, None);
            assert_eq!(held, Some(Duration::from_secs(want)));
            assert_eq!(throttle.note(Op::Token, REFUSED, None), held, "many refused at once count once");
            tokio::time::advance(Duration::from_secs(want)).await;
        }
        assert_eq!(left(&throttle, Op::Token), None);
        throttle.note(Op::Token, StatusCode::OK, None);
        assert_eq!(throttle.note(Op::Token, REFUSED, None), Some(SHORTEST));
        assert_eq!(throttle.note(Op::Token, REFUSED, Some(Duration::ZERO)), Some(SHORTEST));
    }
}
