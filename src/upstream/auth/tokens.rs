//! Tokens in memory: bounded, renewed before they die, fetched by one request at a time however many wait.

use super::secret::Secret;
use crate::upstream::error::Failure;
use crate::upstream::limits::shares::for_everybody;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// How long a request waits for a renewal while the old token still works.
const RENEWAL: Duration = Duration::from_secs(5);

/// What a token must still be good for when the body of an upload begins, if it lives that long at all.
const LONG: Duration = Duration::from_secs(5 * 60);

/// Whether a request is over in a moment, or its body may take minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Span {
    Short,
    Long,
}

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::upstream) struct Key {
    pub(in crate::upstream) realm: String,
    pub(in crate::upstream) service: String,
    pub(in crate::upstream) scope: String,
}

/// A token and its times.
#[derive(Debug)]
pub(in crate::upstream) struct Token {
    pub(in crate::upstream) secret: Secret,
    /// Whom it speaks for.
    pub(in crate::upstream) identity: String,
    /// Set where the credential was kept back: what to tell if the token does not suffice.
    pub(in crate::upstream) withheld: Option<String>,
    pub(in crate::upstream) expires: Option<SystemTime>,
    renew: Instant,
    /// The same for a request that may take long.
    renew_for_long: Instant,
    dead: Instant,
}

impl Token {
    /// A token that lives as long as it says in `expires`, else for `lifetime`.
    pub(in crate::upstream) fn new(
        secret: Secret,
        identity: &str,
        expires: Option<SystemTime>,
        lifetime: Duration,
    ) -> Self {
        // A token that seems to be dead on arrival says that one of the clocks is wrong.
        let said = expires.and_then(|at| at.duration_since(SystemTime::now()).ok()).filter(|left| !left.is_zero());
        let life = said.unwrap_or(lifetime).min(Duration::from_secs(30 * 24 * 3600));
        let ahead = (life * 4 / 5).max(life.saturating_sub(Duration::from_secs(60)));
        let far_ahead = (life / 2).max(life.saturating_sub(LONG));
        let (now, withheld, identity) = (Instant::now(), None, identity.to_owned());
        let (renew, renew_for_long, dead) = (now + ahead, now + far_ahead, now + life);
        Self { secret, identity, withheld, expires, renew, renew_for_long, dead }
    }
}

impl Token {
    fn renew_before(&self, span: Span) -> Instant {
        match span {
            Span::Short => self.renew,
            Span::Long => self.renew_for_long,
        }
    }
}

type Flight = OnceCell<Result<Arc<Token>, Failure>>;

#[derive(Default)]
struct Entry {
    token: Option<Arc<Token>>,
    flight: Option<Arc<Flight>>,
    /// A renewal has just failed: not again before.
    postponed: Option<Instant>,
    used: Option<Instant>,
}

impl Entry {
    fn alive(&self, now: Instant) -> Option<&Arc<Token>> {
        self.token.as_ref().filter(|token| now < token.dead)
    }
}

/// What a request has to do for its token.
enum Step {
    Use(Arc<Token>),
    Fetch(Arc<Flight>, Option<Arc<Token>>),
}

pub(in crate::upstream) struct Tokens {
    entries: Mutex<HashMap<Key, Entry>>,
    limit: usize,
}

impl Tokens {
    pub(in crate::upstream) fn new(limit: usize) -> Self {
        Self { entries: Mutex::default(), limit: limit.max(1) }
    }

    /// The token for `key`, and whether it was fetched while this request waited. `fetch` runs if none is there or the one
    /// there is about to expire; whoever asks meanwhile shares the outcome, a failure too.
    pub(in crate::upstream) async fn get<F>(
        &self,
        key: &Key,
        fetch: impl FnOnce() -> F,
    ) -> Result<(Arc<Token>, bool), Failure>
    where
        F: Future<Output = Result<Token, Failure>>,
    {
        self.get_for(Span::Short, key, fetch).await
    }

    /// The same, for a request of this span.
    pub(in crate::upstream) async fn get_for<F>(
        &self,
        span: Span,
        key: &Key,
        fetch: impl FnOnce() -> F,
    ) -> Result<(Arc<Token>, bool), Failure>
    where
        F: Future<Output = Result<Token, Failure>>,
    {
        let (flight, old) = match self.step(key, span) {
            Step::Use(token) => return Ok((token, false)),
            Step::Fetch(flight, old) => (flight, old),
        };
        // If the request that fetches is given up, one that waits takes over.
        let landed = flight.get_or_init(|| for_everybody(async { fetch().await.map(Arc::new) }));
        let Some(old) = old else {
            let outcome = landed.await.clone();
            self.landed(key, &flight, &outcome);
            return outcome.map(|token| (token, true));
        };
        let Ok(outcome) = tokio::time::timeout(RENEWAL, landed).await else {
            self.postpone(key);
            return Ok((old, false));
        };
        let outcome = outcome.clone();
        self.landed(key, &flight, &outcome);
        Ok(outcome.map_or((old, false), |token| (token, true)))
    }

    /// Whether a token that is still alive is there.
    pub(in crate::upstream) fn has(&self, key: &Key) -> bool {
        self.entries.lock().get(key).is_some_and(|entry| entry.alive(Instant::now()).is_some())
    }

    /// Forgets `token`, unless another has taken its place already.
    pub(in crate::upstream) fn discard(&self, key: &Key, token: &Arc<Token>) {
        if let Some(entry) = self.entries.lock().get_mut(key)
            && entry.token.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, token))
        {
            entry.token = None;
        }
    }

    /// Forgets whatever is kept for `key`.
    pub(in crate::upstream) fn forget(&self, key: &Key) {
        if let Some(entry) = self.entries.lock().get_mut(key) {
            entry.token = None;
        }
    }

    fn step(&self, key: &Key, span: Span) -> Step {
        let now = Instant::now();
        let mut entries = self.entries.lock();
        if !entries.contains_key(key) {
            make_room(&mut entries, self.limit, now);
        }
        let entry = entries.entry(key.clone()).or_default();
        entry.used = Some(now);
        let old = entry.alive(now).cloned();
        if let Some(token) = &old
            && (now < token.renew_before(span) || entry.postponed.is_some_and(|until| now < until))
        {
            return Step::Use(Arc::clone(token));
        }
        match (entry.flight.as_ref().filter(|flight| !flight.initialized()), old) {
            // Another request is renewing it; this one needs not wait.
            (Some(_), Some(token)) => Step::Use(token),
            (Some(flight), None) => Step::Fetch(Arc::clone(flight), None),
            (None, old) => {
                let flight = Arc::new(Flight::new());
                entry.flight = Some(Arc::clone(&flight));
                Step::Fetch(flight, old)
            }
        }
    }

    fn landed(&self, key: &Key, flight: &Arc<Flight>, outcome: &Result<Arc<Token>, Failure>) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(key) else { return };
        if !entry.flight.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, flight)) {
            return;
        }
        entry.flight = None;
        match outcome {
            Ok(token) => {
                entry.token = Some(Arc::clone(token));
                entry.postponed = None;
            }
            Err(_) => entry.postponed = Some(Instant::now() + RENEWAL),
        }
    }

    fn postpone(&self, key: &Key) {
        if let Some(entry) = self.entries.lock().get_mut(key) {
            entry.flight = None;
            entry.postponed = Some(Instant::now() + RENEWAL);
        }
    }
}

/// Drops expired tokens, and if that is not enough the least recently used one.
fn make_room(entries: &mut HashMap<Key, Entry>, limit: usize, now: Instant) {
    if entries.len() < limit {
        return;
    }
    entries.retain(|_, entry| entry.flight.is_some() || entry.alive(now).is_some());
    while entries.len() >= limit {
        let Some(oldest) = entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone()) else {
            return;
        };
        entries.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::error::ErrorKind;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn key(scope: &str) -> Key {
        Key { realm: "https://r/token".into(), service: "r".into(), scope: scope.into() }
    }

    fn token(text: &str, seconds: u64) -> Token {
        Token::new(Secret::new(text), "ci", None, Duration::from_secs(seconds))
    }

    async fn take(tokens: &Tokens, scope: &str, fresh: &str, seconds: u64) -> String {
        let got = tokens.get(&key(scope), || async { Ok(token(fresh, seconds)) }).await.unwrap();
        got.0.secret.expose().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn one_fetch_for_all_who_wait_and_failures_are_shared() {
        let tokens = Arc::new(Tokens::new(10));
        let fetched = Arc::new(AtomicUsize::new(0));
        for fails in [true, false] {
            fetched.store(0, Ordering::SeqCst);
            let waiting: Vec<_> = (0..100)
                .map(|_| {
                    let (tokens, fetched) = (Arc::clone(&tokens), Arc::clone(&fetched));
                    tokio::spawn(async move {
                        let fetch = || async {
                            fetched.fetch_add(1, Ordering::SeqCst);
                            tokio::time::sleep(Duration::from_secs(1)).await;
                            if fails { Err(Failure::new(ErrorKind::Timeout, "slow")) } else { Ok(token("a", 300)) }
                        };
                        tokens.get(&key("s"), fetch).await.is_err()
                    })
                })
                .collect();
            for waiter in waiting {
                assert_eq!(waiter.await.unwrap(), fails);
            }
            assert_eq!(fetched.load(Ordering::SeqCst), 1, "fails: {fails}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_takes_over_from_a_fetcher_that_was_given_up() {
        let tokens = Arc::new(Tokens::new(10));
        let first = {
            let tokens = Arc::clone(&tokens);
            tokio::spawn(async move { tokens.get(&key("s"), std::future::pending).await.is_ok() })
        };
        tokio::time::sleep(Duration::from_secs(1)).await;
        let second = {
            let tokens = Arc::clone(&tokens);
            tokio::spawn(async move { take(&tokens, "s", "b", 300).await })
        };
        tokio::time::sleep(Duration::from_secs(1)).await;
        first.abort();
        assert_eq!(second.await.unwrap(), "b");
    }

    #[tokio::test(start_paused = true)]
    async fn renewed_before_it_expires_and_the_old_one_serves_while_that_fails() {
        let tokens = Tokens::new(10);
        assert_eq!(take(&tokens, "s", "a", 300).await, "a");
        tokio::time::advance(Duration::from_secs(239)).await;
        assert_eq!(take(&tokens, "s", "b", 300).await, "a");
        tokio::time::advance(Duration::from_secs(2)).await;
        let failing = || async { Err(Failure::new(ErrorKind::Timeout, "slow")) };
        let (kept, fresh) = tokens.get(&key("s"), failing).await.unwrap();
        assert_eq!((kept.secret.expose(), fresh), ("a", false));
        assert_eq!(take(&tokens, "s", "b", 300).await, "a", "not asked again at once");
        let (kept, _) = {
            tokio::time::advance(Duration::from_secs(6)).await;
            tokens.get(&key("s"), std::future::pending).await.unwrap()
        };
        assert_eq!(kept.secret.expose(), "a", "a token service that hangs holds nobody up");
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(take(&tokens, "s", "b", 300).await, "b");
    }

    #[tokio::test(start_paused = true)]
    async fn bounded_and_discarded() {
        let tokens = Tokens::new(2);
        for scope in ["a", "b", "c"] {
            take(&tokens, scope, scope, 300).await;
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(tokens.entries.lock().len(), 2);
        assert!(!tokens.has(&key("a")) && tokens.has(&key("c")));
        let (old, _) = tokens.get(&key("c"), || async { Ok(token("x", 1)) }).await.unwrap();
        tokens.discard(&key("c"), &old);
        assert_eq!(take(&tokens, "c", "new", 300).await, "new");
        tokens.discard(&key("c"), &old);
        assert_eq!(take(&tokens, "c", "newer", 300).await, "new", "another one's token is not discarded");
    }

    #[tokio::test(start_paused = true)]
    async fn lifetimes() {
        let in_five_seconds = SystemTime::now() + Duration::from_secs(5);
        let short = Token::new(Secret::new("x"), "ci", Some(in_five_seconds), Duration::from_secs(60));
        let left = short.dead - Instant::now();
        assert!(left <= Duration::from_secs(5) && left > Duration::from_secs(3), "{left:?}");
        let skewed = Token::new(Secret::new("x"), "ci", Some(SystemTime::UNIX_EPOCH), Duration::from_secs(60));
        assert_eq!(skewed.dead - Instant::now(), Duration::from_secs(60));
        let hour = token("x", 3600);
        assert_eq!(hour.renew - Instant::now(), Duration::from_secs(3540));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_request_begins_with_a_token_that_lasts() {
        for (life, good, late) in [(3600, 3299, 3301), (300, 149, 151)] {
            let tokens = Tokens::new(10);
            take(&tokens, "s", "old", life).await;
            let long = async |fresh: &str| {
                let fetched = tokens.get_for(Span::Long, &key("s"), || async { Ok(token(fresh, life)) }).await;
                fetched.unwrap().0.secret.expose().to_owned()
            };
            tokio::time::advance(Duration::from_secs(good)).await;
            assert_eq!(long("new").await, "old");
            tokio::time::advance(Duration::from_secs(late - good)).await;
            assert_eq!(take(&tokens, "s", "new", life).await, "old", "good enough for what is over in a moment");
            assert_eq!(long("new").await, "new", "after {late} of {life} s");
        }
    }
}
