//! Who asks, and what one client may take of a bound that all clients share.
//!
//! While a client is the only one, all of it is its own. Beside others it gets no more when it has three quarters. Where all is taken,
//! an eighth more is there for those who have nothing yet: no client can take everything from the next one.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::Arc;

/// What a client has when it gets no more beside others, in eighths of the bound.
const MOST_EIGHTHS: usize = 6;

tokio::task_local! {
    static CLIENT: Client;
    static INTEREST: Arc<dyn Interest>;
}

/// An address that requests come from; of IPv6 the network that a site gets. One for all that have none, on a Unix socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client(Option<IpAddr>);

impl Client {
    /// The client at `address`.
    #[must_use]
    pub fn at(address: Option<IpAddr>) -> Self {
        Self(address.map(|address| match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
            v4 @ IpAddr::V4(_) => v4,
        }))
    }

    /// Whose request is being answered.
    #[must_use]
    pub fn current() -> Self {
        CLIENT.try_with(|client| *client).unwrap_or_default()
    }

    /// Does `work` in the name of this client.
    // No `async fn` here and below: it would hold the work twice.
    pub fn scope<T>(self, work: impl Future<Output = T>) -> impl Future<Output = T> {
        CLIENT.scope(self, work)
    }
}

/// Whether anybody waits for what is being asked.
pub trait Interest: Send + Sync {
    /// Ends when the last waiter leaves.
    fn gone(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
    /// Gives the work up if there is still no waiter. No request can join it from then on.
    fn give_up(&self) -> bool;
}

/// Does `work` while a request waits for it. Without a waiter, the work is given up if other work waits for its place.
pub fn while_wanted<T>(interest: Arc<dyn Interest>, work: impl Future<Output = T>) -> impl Future<Output = T> {
    INTEREST.scope(interest, work)
}

/// Everybody waits, for what all requests need: it is never given up.
struct Everybody;

impl Interest for Everybody {
    fn gone(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    fn give_up(&self) -> bool {
        false
    }
}

/// Does `work` to its end, even if all waiters leave.
pub(in crate::upstream) fn for_everybody<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    INTEREST.scope(Arc::new(Everybody) as Arc<dyn Interest>, work)
}

/// Ends when the caller's work has been given up because no request waits for it.
pub(in crate::upstream) async fn unwanted() {
    let Ok(interest) = INTEREST.try_with(Arc::clone) else { return std::future::pending().await };
    loop {
        interest.gone().await;
        if interest.give_up() {
            return;
        }
    }
}

/// A bound that clients share.
#[derive(Debug)]
pub struct Shares {
    limit: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<Client, usize>,
}

/// A place in it, until it is dropped.
#[derive(Debug)]
pub struct Place {
    client: Client,
    count: usize,
    taken: Arc<Mutex<Taken>>,
}

/// What a client has of a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Nothing.
    pub has_none: bool,
    /// As much as it gets beside others.
    pub has_its_share: bool,
}

impl Shares {
    /// Of `limit` places.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, taken: Arc::default() }
    }

    /// A place for the client whose request is being answered. `None`: it has its share, or all are taken.
    #[must_use]
    pub fn take(&self) -> Option<Place> {
        self.take_for(Client::current())
    }

    /// The same for `client`.
    #[must_use]
    pub fn take_for(&self, client: Client) -> Option<Place> {
        self.take_many(client, 1)
    }

    /// So many places at once.
    #[must_use]
    pub fn take_many(&self, client: Client, count: usize) -> Option<Place> {
        let mut taken = self.taken.lock();
        let (own, all) = taken.of(client);
        let (own_then, all_then) = (own.saturating_add(count), all.saturating_add(count));
        let may = if all_then <= self.limit {
            own == all || own_then <= self.most()
        } else {
            // A limit of nothing allows nothing.
            own == 0 && self.limit > 0 && all_then <= self.limit.saturating_add((self.limit / 8).max(1))
        };
        if !may {
            return None;
        }
        taken.all = all_then;
        taken.by.insert(client, own_then);
        Some(Place { client, count, taken: Arc::clone(&self.taken) })
    }

    /// What `client` has of it.
    #[must_use]
    pub fn standing(&self, client: Client) -> Standing {
        let (own, all) = self.taken.lock().of(client);
        Standing { has_none: own == 0, has_its_share: own != all && own >= self.most() }
    }

    /// What a client has when it gets no more beside others.
    fn most(&self) -> usize {
        (self.limit / 8).saturating_mul(MOST_EIGHTHS).max(1)
    }
}

impl Taken {
    /// What `client` has, and what all have.
    fn of(&self, client: Client) -> (usize, usize) {
        (self.by.get(&client).copied().unwrap_or_default(), self.all)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        taken.all = taken.all.saturating_sub(self.count);
        if let Some(own) = taken.by.get_mut(&self.client) {
            *own = own.saturating_sub(self.count);
            if *own == 0 {
                taken.by.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> Client {
        Client::at(Some(IpAddr::from([192, 0, 2, last])))
    }

    fn fill(shares: &Shares, client: Client) -> Vec<Place> {
        std::iter::from_fn(|| shares.take_for(client)).collect()
    }

    #[test]
    fn one_client_may_take_all_and_cannot_keep_others_out() {
        let shares = Shares::new(16);
        let mut first = fill(&shares, client(1));
        assert_eq!(first.len(), 16, "the only one has it all");
        let second = fill(&shares, client(2));
        let third = fill(&shares, client(3));
        assert_eq!((second.len(), third.len()), (1, 1), "each has a place");
        assert!(shares.take_for(client(4)).is_none(), "an eighth more is all there is");
        // What the first one gives back it does not get again beside others.
        first.truncate(13);
        assert!(shares.take_for(client(1)).is_none());
        assert!(shares.take_for(client(2)).is_some());
        drop((second, third));
        assert_eq!(fill(&shares, client(1)).len(), 3, "alone again");
        drop(first);
        assert!(shares.taken.lock().by.is_empty());
    }

    #[test]
    fn small_bounds_and_none() {
        let one = Shares::new(1);
        let place = one.take_for(client(1));
        assert!(place.is_some() && one.take_for(client(1)).is_none());
        assert!(one.take_for(client(2)).is_some());
        assert!(Shares::new(0).take_for(client(1)).is_none());
    }

    #[test]
    fn a_client_is_an_address_or_the_network_of_a_site() {
        let at = |text: &str| Client::at(Some(text.parse().unwrap()));
        assert_eq!(at("::ffff:192.0.2.1"), client(1));
        assert_eq!(at("2001:db8:1:2::3"), at("2001:db8:1:2:ffff::1"));
        assert_ne!(at("2001:db8:1:2::3"), at("2001:db8:1:3::3"));
    }
}
