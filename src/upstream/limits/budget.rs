//! How many requests of each limit category may be sent to one upstream.
//!
//! A registry counts requests per identity, and all clients behind larder are one identity. With the registry's service tier
//! configured, larder keeps below what that tier allows: a bucket per category, filled continuously, that holds a minute's worth.
//! Without, it learns from refusals: for ten minutes after a 429 the category goes at the pace that it had before, twice as fast
//! with every minute that brings no other.
//!
//! Whoever has a client waiting comes first: work in the background may not use the last half of a bucket, and waits. A client's
//! request waits for [`PATIENCE`] at most. Beyond that a configured tier refuses it with the seconds left; a learned pace, which
//! is a guess, lets it go, and the registry decides.

use super::op::QuotaClass;
use crate::config::Tier;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// The longest that a request with a client behind it is kept waiting.
pub(in crate::upstream) const PATIENCE: Duration = Duration::from_secs(2);
const MINUTE: Duration = Duration::from_secs(60);
/// Minutes without a refusal after which a learned pace is forgotten.
const MEMORY: u32 = 10;
/// A learned pace lets so much of a minute's worth go at once.
const BURST: f64 = 1.0 / 6.0;
/// What background work leaves of a bucket.
const RESERVED: f64 = 0.5;

tokio::task_local! {
    static BACKGROUND: ();
}

/// Runs requests to an upstream that no client waits for. They are sent after all others when the registry's limits are near.
pub async fn in_background<T>(work: impl Future<Output = T>) -> T {
    BACKGROUND.scope((), work).await
}

pub(in crate::upstream) fn is_background() -> bool {
    BACKGROUND.try_with(|()| ()).is_ok()
}

/// Whether and when a request may be sent.
#[derive(Debug, PartialEq)]
pub(in crate::upstream) enum Slot {
    /// At this time, which is reserved for it.
    At(Instant),
    /// Nothing is reserved; to be asked again at this time.
    AskAgain(Instant),
    /// Not within [`PATIENCE`], but after so long.
    Refused(QuotaClass, Duration),
}

pub(in crate::upstream) struct Budget {
    tier: Tier,
    accounts: Mutex<HashMap<QuotaClass, Account>>,
}

/// What was sent of a category, and what may be.
struct Account {
    sent: Sent,
    bucket: Option<Bucket>,
}

struct Bucket {
    per_minute: f64,
    /// What may be sent at once; below nothing: what is promised already.
    level: f64,
    filled: Instant,
    /// When it was learned by a refusal; `None`: it is the tier's.
    learned: Option<Instant>,
}

/// Requests of about the last minute.
struct Sent {
    since: Instant,
    now: f64,
    before: f64,
}

impl Budget {
    pub(in crate::upstream) fn new(tier: Tier) -> Self {
        Self { tier, accounts: Mutex::default() }
    }

    /// Asks for a request that counts in all of `categories`.
    pub(in crate::upstream) fn reserve(&self, categories: &[QuotaClass], background: bool) -> Slot {
        let now = Instant::now();
        let mut accounts = self.accounts.lock();
        let mut latest: Option<(Instant, QuotaClass, bool)> = None;
        for category in categories {
            let account = accounts.entry(*category).or_insert_with(|| Account::new(self.tier, *category, now));
            let Some(bucket) = account.bucket(now) else { continue };
            let due = bucket.due(background);
            if latest.is_none_or(|(later, ..)| due > later) {
                latest = Some((due, *category, bucket.learned.is_none()));
            }
        }
        let (mut due, category, known) = latest.unwrap_or((now, categories[0], false));
        if due > now && background {
            return Slot::AskAgain(due);
        }
        if due - now > PATIENCE {
            if known {
                return Slot::Refused(category, due - now);
            }
            due = now + PATIENCE;
        }
        for category in categories {
            if let Some(account) = accounts.get_mut(category) {
                account.spend(now);
            }
        }
        Slot::At(due)
    }

    /// The registry has refused a request of this category: there is nothing left, whatever was thought.
    pub(in crate::upstream) fn refused(&self, category: QuotaClass) {
        let now = Instant::now();
        let mut accounts = self.accounts.lock();
        let account = accounts.entry(category).or_insert_with(|| Account::new(self.tier, category, now));
        let Some(least) = least(category) else { return };
        let learned = account.sent.in_a_minute(now).max(least);
        match account.bucket(now) {
            Some(bucket) if bucket.learned.is_none() => bucket.level = bucket.level.min(0.0),
            Some(bucket) => {
                *bucket = Bucket { per_minute: learned.min(bucket.pace(now)), ..Bucket::learned(now, learned) }
            }
            None => account.bucket = Some(Bucket::learned(now, learned)),
        }
    }
}

impl Account {
    fn new(tier: Tier, category: QuotaClass, now: Instant) -> Self {
        let bucket = per_minute(tier, category).map(|per_minute| Bucket {
            per_minute,
            level: per_minute,
            filled: now,
            learned: None,
        });
        Self { sent: Sent { since: now, now: 0.0, before: 0.0 }, bucket }
    }

    /// The bucket, filled up to now, if there is one (still).
    fn bucket(&mut self, now: Instant) -> Option<&mut Bucket> {
        self.bucket.take_if(|bucket| bucket.learned.is_some_and(|learned| now - learned >= MINUTE * MEMORY));
        let bucket = self.bucket.as_mut()?;
        bucket.fill(now);
        Some(bucket)
    }

    fn spend(&mut self, now: Instant) {
        self.sent.count(now);
        if let Some(bucket) = &mut self.bucket {
            // What is let go beyond a learned pace is no debt.
            let debt = bucket.pace(now) / 60.0 * PATIENCE.as_secs_f64();
            bucket.level = (bucket.level - 1.0).max(-debt);
        }
    }
}

impl Bucket {
    fn learned(now: Instant, per_minute: f64) -> Self {
        Self { per_minute, level: 0.0, filled: now, learned: Some(now) }
    }

    /// Requests per minute, as far as is known now.
    fn pace(&self, now: Instant) -> f64 {
        let minutes = self.learned.map_or(0, |learned| (now - learned).as_secs() / MINUTE.as_secs());
        self.per_minute * 2_f64.powi(i32::try_from(minutes).unwrap_or(0))
    }

    fn most(&self, now: Instant) -> f64 {
        if self.learned.is_some() { (self.pace(now) * BURST).max(1.0) } else { self.per_minute }
    }

    fn fill(&mut self, now: Instant) {
        let new = (now - self.filled).as_secs_f64() * self.pace(now) / 60.0;
        self.level = (self.level + new).min(self.most(now));
        self.filled = now;
    }

    /// When the next request may be sent; the bucket has just been filled.
    fn due(&self, background: bool) -> Instant {
        let reserved = if background { self.most(self.filled) * RESERVED } else { 0.0 };
        let lacking = (1.0 + reserved - self.level).max(0.0);
        self.filled + Duration::from_secs_f64(lacking * 60.0 / self.pace(self.filled))
    }
}

impl Sent {
    fn turn(&mut self, now: Instant) {
        let minutes = (now - self.since).as_secs() / MINUTE.as_secs();
        if minutes > 0 {
            self.before = if minutes == 1 { self.now } else { 0.0 };
            self.now = 0.0;
            self.since = now - Duration::from_secs_f64((now - self.since).as_secs_f64() % MINUTE.as_secs_f64());
        }
    }

    fn count(&mut self, now: Instant) {
        self.turn(now);
        self.now += 1.0;
    }

    fn in_a_minute(&mut self, now: Instant) -> f64 {
        self.turn(now);
        let old = 1.0 - (now - self.since).as_secs_f64() / MINUTE.as_secs_f64();
        self.now + self.before * old
    }
}

/// What Microsoft publishes for one identity (tokens: for the whole registry), per minute.
fn per_minute(tier: Tier, category: QuotaClass) -> Option<f64> {
    let (standard, premium) = match category {
        QuotaClass::Reads => (5_000.0, 10_000.0),
        QuotaClass::Referrers => (250.0, 1_000.0),
        QuotaClass::Writes => (1_000.0, 2_000.0),
        QuotaClass::Deletes => (500.0, 2_000.0),
        QuotaClass::Tokens => (10_000.0, 20_000.0),
        QuotaClass::Storage => return None,
    };
    match tier {
        Tier::Unknown => None,
        Tier::Basic | Tier::Standard => Some(standard),
        Tier::Premium => Some(premium),
    }
}

/// No registry is thought to bear less, per minute; `None`: a category whose pace is not learned.
fn least(category: QuotaClass) -> Option<f64> {
    match category {
        QuotaClass::Referrers => Some(120.0),
        QuotaClass::Storage => None,
        _ => Some(600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READS: &[QuotaClass] = &[QuotaClass::Reads];
    const REFERRERS: &[QuotaClass] = &[QuotaClass::Referrers, QuotaClass::Reads];

    /// How many requests may be sent at once, and what the next one hears.
    fn at_once(budget: &Budget, categories: &[QuotaClass], background: bool) -> (u32, Slot) {
        let mut count = 0;
        loop {
            match budget.reserve(categories, background) {
                Slot::At(at) if at <= Instant::now() && count < 100_000 => count += 1,
                other => return (count, other),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tier_allows_its_minute_and_then_its_pace() {
        for (tier, reads, referrers) in
            [(Tier::Basic, 5_000, 250), (Tier::Standard, 5_000, 250), (Tier::Premium, 10_000, 1_000)]
        {
            let budget = Budget::new(tier);
            assert_eq!(at_once(&budget, REFERRERS, false).0, referrers);
            // They have counted as reads too, and so has the one that waits.
            assert_eq!(at_once(&budget, READS, false).0, reads - referrers - 1);
            tokio::time::advance(Duration::from_secs(6)).await;
            let sent = at_once(&budget, READS, false).0;
            assert!((reads / 10 - 2 * reads / 30..=reads / 10).contains(&sent), "{tier:?}: {sent}");
        }
        assert_eq!(at_once(&Budget::new(Tier::Unknown), READS, false).0, 100_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_waits_two_seconds_at_most_and_then_hears_how_long() {
        let budget = Budget::new(Tier::Basic);
        assert!(matches!(at_once(&budget, REFERRERS, false).1, Slot::At(_)), "the next one waits a moment");
        let mut last = Instant::now();
        let refused = loop {
            match budget.reserve(REFERRERS, false) {
                Slot::At(at) => {
                    assert!(at >= last && at - Instant::now() <= PATIENCE, "in turn, and within the bound");
                    last = at;
                }
                other => break other,
            }
        };
        let Slot::Refused(QuotaClass::Referrers, left) = refused else { panic!("{refused:?}") };
        assert!(left > PATIENCE && left < PATIENCE * 2, "{left:?}");
        assert!(matches!(budget.reserve(READS, false), Slot::At(at) if at == Instant::now()), "reads have their own");
    }

    #[tokio::test(start_paused = true)]
    async fn the_background_leaves_half_and_waits() {
        let budget = Budget::new(Tier::Basic);
        let (sent, then) = at_once(&budget, READS, true);
        assert_eq!(sent, 2_500);
        let Slot::AskAgain(at) = then else { panic!("{then:?}") };
        assert_eq!(at_once(&budget, READS, false).0, 2_500, "what is left is for clients");
        tokio::time::advance(at - Instant::now()).await;
        assert!(matches!(budget.reserve(READS, true), Slot::AskAgain(_)), "clients have used it meanwhile");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(matches!(budget.reserve(READS, true), Slot::At(_)));
        assert!(!is_background());
        in_background(async { assert!(is_background()) }).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_pace_is_learned_from_a_refusal_grows_and_is_forgotten() {
        let budget = Budget::new(Tier::Unknown);
        for _ in 0..3_000 {
            budget.reserve(READS, false);
        }
        budget.refused(QuotaClass::Reads);
        // Nothing is left, 50 a second come in, and nobody waits longer than the bound or is refused by a guess.
        let (sent, then) = at_once(&budget, READS, false);
        assert_eq!(sent, 0);
        assert!(matches!(then, Slot::At(at) if at - Instant::now() <= PATIENCE));
        for _ in 0..1_000 {
            assert!(matches!(budget.reserve(READS, false), Slot::At(at) if at - Instant::now() <= PATIENCE));
        }
        tokio::time::advance(Duration::from_secs(59)).await;
        let sent = at_once(&budget, READS, false).0;
        assert_eq!(sent, 500, "a sixth of a minute's worth at once");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(at_once(&budget, READS, false).0, 1_000, "twice as much after a minute");
        tokio::time::advance(MINUTE * MEMORY).await;
        assert_eq!(at_once(&budget, READS, false).0, 100_000);
    }

    #[tokio::test(start_paused = true)]
    async fn few_requests_before_a_refusal_are_no_measure() {
        let budget = Budget::new(Tier::Unknown);
        budget.reserve(READS, false);
        budget.refused(QuotaClass::Reads);
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(at_once(&budget, READS, false).0, 100);
        budget.refused(QuotaClass::Storage);
        assert_eq!(at_once(&budget, &[QuotaClass::Storage], false).0, 100_000);
        let tier = Budget::new(Tier::Premium);
        tier.refused(QuotaClass::Reads);
        assert_eq!(at_once(&tier, READS, false).0, 0, "others have used it up");
    }
}
