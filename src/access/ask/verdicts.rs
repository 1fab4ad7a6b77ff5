//! Verdicts, kept: fresh for their time, good in an outage for longer, and asked for by one request at a time.

use super::seal::Key;
use super::{Pending, Said};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};

/// Verdicts that are kept.
const KEPT: usize = 20_000;
/// A refusal is believed for so long: rights may be granted at any time.
const REFUSED: Duration = Duration::from_secs(5);
/// How long a verdict that is no longer fresh is waited for before it stands in, and how long it then does so unasked.
const WAIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(5);

/// What is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::access) enum Outcome {
    Allowed(Option<Arc<str>>),
    Denied,
    Absent,
    Wrong,
    Away(String),
    Throttled(Duration),
}

#[derive(Clone)]
struct Kept {
    outcome: Outcome,
    fresh: Instant,
    stale: Instant,
}

type Flight = Arc<OnceCell<Said>>;

pub(in crate::access) struct Verdicts {
    kept: Cache<Key, Kept>,
    flights: Mutex<HashMap<Key, Flight>>,
    ttl: Duration,
    stale: Duration,
}

/// One request among those that wait for a flight; the last one clears it away, however it ends.
struct Waiting<'a> {
    verdicts: &'a Verdicts,
    key: Key,
    flight: Option<Flight>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut flights = self.verdicts.flights.lock();
        drop(self.flight.take());
        if flights.get(&self.key).is_some_and(|flight| Arc::strong_count(flight) == 1) {
            flights.remove(&self.key);
        }
    }
}

impl Verdicts {
    pub(in crate::access) fn new(ttl: Duration, stale: Duration) -> Self {
        Self { kept: Cache::new(KEPT), flights: Mutex::default(), ttl, stale }
    }

    /// The verdict for `key`; `ask` is asked if none is fresh, once for all who wait.
    pub(in crate::access) async fn get<'a>(&self, key: Key, ask: impl FnOnce() -> Pending<'a, Said>) -> Outcome {
        let kept = self.kept.get(&key);
        if let Some(kept) = kept.as_ref().filter(|kept| Instant::now() < kept.fresh) {
            return kept.outcome.clone();
        }
        let living = kept.filter(|kept| Instant::now() < kept.stale && matches!(kept.outcome, Outcome::Allowed(_)));
        let mut waiting = Waiting { verdicts: self, key, flight: None };
        let flight = Arc::clone(self.flights.lock().entry(key).or_default());
        waiting.flight = Some(Arc::clone(&flight));
        // If the request that asks is given up, one that waits takes over.
        let asked = flight.get_or_init(ask);
        let said = match &living {
            Some(_) => timeout(WAIT, asked).await.ok(),
            None => Some(asked.await),
        };
        match (said, living) {
            (None | Some(Said::Away(_) | Said::Throttled(_)), Some(kept)) => {
                let fresh = kept.stale.min(Instant::now() + PAUSE);
                self.kept.insert(key, Kept { fresh, ..kept.clone() });
                kept.outcome
            }
            (Some(said), _) => self.note(key, said.clone()),
            (None, None) => Outcome::Away("no answer".to_owned()),
        }
    }

    fn note(&self, key: Key, said: Said) -> Outcome {
        let now = Instant::now();
        let refusal = |outcome: Outcome| {
            self.kept.insert(key, Kept { outcome: outcome.clone(), fresh: now + REFUSED.min(self.ttl), stale: now });
            outcome
        };
        match said {
            Said::Allowed { name, expires } => {
                let left = expires.map(|at| at.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO));
                let at_most = |time: Duration| left.map_or(time, |left| time.min(left));
                let outcome = Outcome::Allowed(name.map(Arc::from));
                let (fresh, stale) = (now + at_most(self.ttl), now + at_most(self.stale.max(self.ttl)));
                self.kept.insert(key, Kept { outcome: outcome.clone(), fresh, stale });
                outcome
            }
            Said::Denied => refusal(Outcome::Denied),
            Said::Wrong => refusal(Outcome::Wrong),
            // That is about one thing of the repository, and not about the right.
            Said::Absent => Outcome::Absent,
            Said::Away(why) => Outcome::Away(why),
            Said::Throttled(after) => Outcome::Throttled(after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const TTL: Duration = Duration::from_secs(60);
    const STALE: Duration = Duration::from_secs(3 * 3600);

    fn verdicts() -> Verdicts {
        Verdicts::new(TTL, STALE)
    }

    fn allowed(left: Option<Duration>) -> Said {
        Said::Allowed { name: None, expires: left.map(|left| SystemTime::now() + left) }
    }

    async fn get(verdicts: &Verdicts, said: &Said) -> (Outcome, bool) {
        let asked = AtomicUsize::new(0);
        let outcome = verdicts
            .get([0; 32], || {
                asked.fetch_add(1, Ordering::SeqCst);
                let said = said.clone();
                Box::pin(async { said })
            })
            .await;
        assert!(verdicts.flights.lock().is_empty(), "a flight is left behind");
        (outcome, asked.into_inner() > 0)
    }

    fn away() -> Said {
        Said::Away("down".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_verdict_is_fresh_for_its_time_and_stands_in_for_an_upstream_that_is_away_for_longer() {
        let verdicts = verdicts();
        let yes = Outcome::Allowed(None);
        assert_eq!(get(&verdicts, &away()).await.0, Outcome::Away("down".to_owned()), "never seen");
        assert_eq!(get(&verdicts, &allowed(None)).await, (yes.clone(), true));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(get(&verdicts, &Said::Denied).await, (yes.clone(), false));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(get(&verdicts, &away()).await, (yes.clone(), true));
        assert_eq!(get(&verdicts, &away()).await, (yes.clone(), false), "nobody waits for it again and again");
        tokio::time::advance(Duration::from_secs(3 * 3600 - 62)).await;
        assert_eq!(get(&verdicts, &away()).await, (yes, true));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(get(&verdicts, &away()).await.0, Outcome::Away("down".to_owned()), "not a moment longer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_verdict_dies_with_the_callers_own_token_and_a_refusal_is_believed_for_moments() {
        let verdicts = verdicts();
        assert!(matches!(get(&verdicts, &allowed(Some(Duration::from_secs(30)))).await.0, Outcome::Allowed(_)));
        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(matches!(get(&verdicts, &away()).await.0, Outcome::Away(_)));
        assert_eq!(get(&verdicts, &Said::Denied).await.0, Outcome::Denied);
        assert_eq!(get(&verdicts, &allowed(None)).await, (Outcome::Denied, false));
        tokio::time::advance(REFUSED).await;
        assert!(matches!(get(&verdicts, &allowed(None)).await.0, Outcome::Allowed(_)));
        tokio::time::advance(TTL).await;
        assert_eq!(get(&verdicts, &Said::Denied).await.0, Outcome::Denied, "what upstream says holds at once");
        assert!(matches!(get(&verdicts, &away()).await.0, Outcome::Denied));
        tokio::time::advance(REFUSED).await;
        assert!(
            matches!(get(&verdicts, &away()).await.0, Outcome::Away(_)),
            "a right that was taken does not come back"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_asks_for_all_and_another_takes_over_from_one_that_leaves() {
        let verdicts = Arc::new(verdicts());
        let asked = Arc::new(AtomicUsize::new(0));
        let begin = |pause: u64| {
            let (verdicts, asked) = (Arc::clone(&verdicts), Arc::clone(&asked));
            tokio::spawn(async move {
                let ask = || -> Pending<'static, Said> {
                    asked.fetch_add(1, Ordering::SeqCst);
                    Box::pin(async move {
                        tokio::time::sleep(Duration::from_secs(pause)).await;
                        allowed(None)
                    })
                };
                verdicts.get([1; 32], ask).await
            })
        };
        let first = begin(3600);
        tokio::task::yield_now().await;
        let others: Vec<_> = (0..50).map(|_| begin(1)).collect();
        tokio::task::yield_now().await;
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        first.abort();
        for other in others {
            assert_eq!(other.await.unwrap(), Outcome::Allowed(None));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        assert!(verdicts.flights.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_hangs_is_waited_for_once() {
        let verdicts = verdicts();
        get(&verdicts, &allowed(None)).await;
        tokio::time::advance(TTL).await;
        let begun = Instant::now();
        let hang = || -> Pending<'static, Said> { Box::pin(std::future::pending()) };
        assert_eq!(verdicts.get([0; 32], hang).await, Outcome::Allowed(None));
        assert_eq!(begun.elapsed(), WAIT);
        assert_eq!(verdicts.get([0; 32], hang).await, Outcome::Allowed(None));
        assert_eq!(begun.elapsed(), WAIT);
    }
}
