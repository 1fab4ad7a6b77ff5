//! Names to addresses, as the system knows them.
//!
//! The system's lookup blocks a thread, and may do so for half a minute when its servers do not answer. So there is one lookup per
//! name at a time, which everybody who asks meanwhile joins: a name server that hangs holds one thread per host, not one per
//! request. Whoever asks gives up at `connect_timeout`; the lookup itself goes on, and the next request joins it. Nothing is
//! remembered: how long an address is good is the system's to know.

use hyper_util::client::legacy::connect::dns::Name;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec::IntoIter;
use tokio::sync::watch;
use tower_service::Service;

/// The addresses of a name, on any port; may block.
type Lookup = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// What came of a lookup; an error's text, since it goes to many.
type Found = Result<Vec<SocketAddr>, String>;

/// Looks names up; a cheap clone.
#[derive(Clone)]
pub(in crate::upstream) struct Resolver {
    lookup: Arc<Lookup>,
    running: Arc<Mutex<HashMap<String, watch::Receiver<Option<Found>>>>>,
}

impl Resolver {
    /// The system's own: its hosts file, its name servers.
    pub(in crate::upstream) fn of_system() -> Self {
        Self::with(|name| Ok((name, 0).to_socket_addrs()?.collect()))
    }

    pub(in crate::upstream) fn with(
        lookup: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self { lookup: Arc::new(lookup), running: Arc::default() }
    }

    /// Joins the lookup of `name` that is under way, or begins one.
    fn board(&self, name: &str) -> watch::Receiver<Option<Found>> {
        let mut running = self.running.lock();
        if let Some(found) = running.get(name) {
            return found.clone();
        }
        let (sender, receiver) = watch::channel(None);
        running.insert(name.to_owned(), receiver.clone());
        let (lookup, landing) = (Arc::clone(&self.lookup), InFlight(name.to_owned(), Arc::clone(&self.running)));
        tokio::task::spawn_blocking(move || {
            let found = lookup(&landing.0).map_err(|error| error.to_string());
            // Off the board first: who asks from now on begins anew.
            drop(landing);
            // Everybody may have stopped waiting.
            let _ = sender.send(Some(found));
        });
        receiver
    }
}

/// Takes the name off the board, however its lookup ends.
struct InFlight(String, Arc<Mutex<HashMap<String, watch::Receiver<Option<Found>>>>>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.1.lock().remove(&self.0);
    }
}

impl Service<Name> for Resolver {
    type Response = IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<IntoIter<SocketAddr>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let mut found = self.board(name.as_str());
        Box::pin(async move {
            let found = found.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
            let found = found.unwrap_or_else(|| Err("the lookup was given up".to_owned()));
            found.map(Vec::into_iter).map_err(io::Error::other)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Condvar;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_lookup_that_hangs_holds_one_thread_however_many_wait_for_it() {
        let (asked, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new((Mutex::new(false), Condvar::new())));
        let (count, door) = (Arc::clone(&asked), Arc::clone(&gate));
        let resolver = Resolver::with(move |name| {
            count.fetch_add(1, Ordering::SeqCst);
            let mut open = door.0.lock();
            door.1.wait_while(&mut open, |open| !*open);
            drop(open);
            if name == "gone.invalid" {
                Err(io::Error::other("no such name"))
            } else {
                Ok(vec![([127, 0, 0, 1], 0).into()])
            }
        });
        let ask = |name: &str| tokio::spawn(resolver.clone().call(name.parse().unwrap()));
        let waiting: Vec<_> = (0..100).map(|_| ask("registry.invalid")).chain([ask("gone.invalid")]).collect();
        while resolver.running.lock().len() < 2 || asked.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        // Who gives up leaves the lookup to the others.
        waiting[0].abort();
        *gate.0.lock() = true;
        gate.1.notify_all();
        let mut ends = Vec::new();
        for one in waiting.into_iter().skip(1) {
            ends.push(one.await.unwrap());
        }
        assert_eq!(ends.pop().unwrap().unwrap_err().to_string(), "no such name");
        assert!(ends.into_iter().all(|end| end.unwrap().len() == 1));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        assert!(resolver.running.lock().is_empty());
    }
}
