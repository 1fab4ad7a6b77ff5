//! Failed logins: the answer to one is held back, the longer the more of them came from its address, and said once.
//!
//! Nobody is locked out: only answers that say no are held back, a right password is let in at once.

use quick_cache::sync::Cache;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Addresses that are remembered; IPv6 by their networks of 64 bits, of which a host has a whole one.
const ADDRESSES: usize = 10_000;
/// Failures that cost nothing: a person's typing.
const FREE: u32 = 3;
/// The first answer that is held back, and the longest.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);
/// Answers that are held back at once; more go out at once.
const HELD: usize = 1024;
/// An address that has been quiet for so long begins anew.
const QUIET: Duration = Duration::from_secs(600);

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

pub(super) struct Patience {
    addresses: Cache<Option<IpAddr>, Failures>,
    held: AtomicUsize,
}

/// One answer that is held back.
struct Held<'a>(&'a AtomicUsize);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { addresses: Cache::new(ADDRESSES), held: AtomicUsize::new(0) }
    }

    /// Notes a failed login, as `user` if there is such a one, and waits before it may be answered.
    pub(super) async fn wrong(&self, address: Option<IpAddr>, user: Option<&str>) {
        let count = self.note(address);
        if count == 1 {
            let from = address.map_or_else(|| "a Unix socket".to_owned(), |address| address.to_string());
            let as_whom = user.map_or_else(|| "nobody of the users file".to_owned(), |user| format!("user '{user}'"));
            tracing::warn!(
                "a login from {from} failed, as {as_whom}; more from there are counted in larder_logins_total and not said"
            );
        }
        let Some(wait) = wait_of(count) else { return };
        if self.held.fetch_add(1, Ordering::Relaxed) < HELD {
            let _held = Held(&self.held);
            sleep(wait).await;
        } else {
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn note(&self, address: Option<IpAddr>) -> u32 {
        let (key, now) = (address.map(network), Instant::now());
        let before = self.addresses.get(&key).filter(|failures| now - failures.last < QUIET);
        let count = before.map_or(0, |failures| failures.count).saturating_add(1);
        self.addresses.insert(key, Failures { count, last: now });
        count
    }
}

/// What counts as one address.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6([a, b, c, d, 0, 0, 0, 0].into())
        }
    }
}

fn wait_of(count: u32) -> Option<Duration> {
    let beyond = count.checked_sub(FREE + 1)?;
    Some(SHORTEST.saturating_mul(1 << beyond.min(10)).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_and_longer_and_an_address_that_was_quiet_begins_anew() {
        let patience = Patience::new();
        let (here, there) = (Some([10, 0, 0, 1].into()), Some([10, 0, 0, 2].into()));
        let waited = async |address| {
            let begun = Instant::now();
            patience.wrong(address, None).await;
            // A timer may be a millisecond late.
            begun.elapsed().as_millis() / 10 * 10
        };
        for expected in [0, 0, 0, 100, 200, 400, 800, 1600, 2000, 2000] {
            assert_eq!(waited(here).await, expected);
        }
        assert_eq!(waited(there).await, 0, "each address for itself");
        tokio::time::advance(QUIET / 2).await;
        assert_eq!(waited(here).await, 2000);
        tokio::time::advance(QUIET).await;
        assert_eq!(waited(here).await, 0);
        assert_eq!(patience.held.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_answers_are_held_back_than_may_be() {
        let patience = Patience::new();
        let here = Some([10, 0, 0, 1].into());
        for _ in 0..20 {
            patience.note(here);
        }
        let held: Vec<_> = (0..HELD).map(|_| Box::pin(patience.wrong(here, None))).collect();
        let mut all = Box::pin(async {
            for one in held {
                one.await;
            }
        });
        let first = std::future::poll_fn(|cx| std::task::Poll::Ready(all.as_mut().poll(cx))).await;
        assert!(first.is_pending());
        patience.held.store(HELD, Ordering::Relaxed);
        let begun = Instant::now();
        patience.wrong(here, None).await;
        assert!(begun.elapsed().is_zero());
    }

    #[test]
    fn a_host_has_a_whole_ipv6_network() {
        assert_eq!(network("2001:db8:1:2:3:4:5:6".parse().unwrap()), "2001:db8:1:2::".parse::<IpAddr>().unwrap());
        assert_eq!(network("10.0.0.1".parse().unwrap()), "10.0.0.1".parse::<IpAddr>().unwrap());
    }
}
