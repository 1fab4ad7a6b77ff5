//! Connections to the hosts of one upstream: kept, reused, bounded per host.
//!
//! Each host has a breaker: if the host does not answer, requests soon fail without being tried.
//!
//! A connection carries one request at a time and goes back when its answer's body has been read to the end; one that is
//! dropped earlier is closed. Per host at most `limit` are open, of which the bodies of blobs may take all but an eighth, so that
//! a tag can be asked for while they fill the line; uploads, which go at the pace of their clients, may take a half.

use super::connect::{Connector, Route};
use super::inside::{AddressScope, Border};
use super::origin::Origin;
use super::payload::Payload;
use super::queue::{Permits, Queue, Refused};
use super::read_after_write_error::ReadAfterWriteError;
use crate::upstream::error::{ErrorKind, Failure};
use crate::upstream::limits::again::{self, again};
use crate::upstream::limits::breaker::{Breaker, BreakerPermit};
use crate::upstream::limits::op::ConnectionClass;
use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Shorter than the four minutes after which Azure's load balancers forget a silent connection.
const IDLE: Duration = Duration::from_secs(60);
/// How long a request waits for one of its host's connections: what a full queue may cost.
const WAIT: Duration = Duration::from_secs(10);
/// Storage hosts come and go with redirects; above this many, those without a connection are forgotten.
const HOSTS: usize = 64;

/// A request that can be sent more than once.
#[derive(Clone)]
pub(in crate::upstream) struct Outgoing {
    pub(in crate::upstream) method: Method,
    /// Absolute.
    pub(in crate::upstream) url: Uri,
    pub(in crate::upstream) headers: HeaderMap,
    pub(in crate::upstream) body: Bytes,
}

pub(in crate::upstream) struct Pool {
    connector: Connector,
    /// A connection that only a host of the operator's may have is not used for one that an upstream has led to.
    hosts: Mutex<HashMap<(Origin, AddressScope), Arc<Host>>>,
    limit: usize,
    wait: Duration,
    first_byte: Duration,
    /// A question that has waited so long is asked again.
    ask_again: Duration,
}

/// What a request may take, and who decides whether it is sent.
pub(in crate::upstream) struct Turn<'a> {
    pub(in crate::upstream) share: ConnectionClass,
    /// Whether it may still be sent after the wait for a connection.
    pub(in crate::upstream) admit: &'a (dyn Fn() -> Result<(), Failure> + Sync),
    /// The request to repeat while there is no answer, if it may be sent now. `None`: never, because the request changes something.
    pub(in crate::upstream) again: Option<&'a (dyn Fn() -> Option<Outgoing> + Sync)>,
}

struct Host {
    breaker: Breaker,
    queue: Queue,
    /// Questions that have a second connection.
    again: Arc<Semaphore>,
    idle: Mutex<Vec<(Connection, Instant)>>,
}

struct Connection {
    sender: SendRequest<Payload>,
    driver: JoinHandle<()>,
    route: Route,
    peer: Option<IpAddr>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A connection while its answer is being read.
pub(in crate::upstream) struct Lease {
    connection: Connection,
    host: Arc<Host>,
    _permits: Permits,
}

impl Lease {
    /// The body has been read to its end: the next request may use the connection.
    pub(in crate::upstream) fn give_back(self) {
        let Self { connection, host, _permits } = self;
        let mut idle = host.idle.lock();
        idle.retain(|(connection, since)| since.elapsed() < IDLE && !connection.sender.is_closed());
        if !connection.sender.is_closed() {
            idle.push((connection, Instant::now()));
        }
    }
}

/// An answer's head, its connection, and whether a stale connection had to be replaced for it.
pub(in crate::upstream) struct Head {
    pub(in crate::upstream) response: Response<Incoming>,
    pub(in crate::upstream) lease: Lease,
    pub(in crate::upstream) replaced: bool,
}

impl Pool {
    pub(in crate::upstream) fn new(
        connector: Connector,
        limit: usize,
        first_byte: Duration,
        ask_again: Duration,
    ) -> Self {
        Self { connector, hosts: Mutex::default(), limit: limit.max(1), wait: WAIT, first_byte, ask_again }
    }

    /// Asks again at once, of every host, what waits for an answer.
    pub(in crate::upstream) fn ask_again(&self) {
        self.hosts.lock().values().for_each(|host| host.breaker.answers.ask_again());
    }

    pub(in crate::upstream) fn first_byte(&self) -> Duration {
        self.first_byte
    }

    pub(in crate::upstream) fn border(&self) -> &Border {
        self.connector.border()
    }

    /// The hosts that do not answer: since when, and the sentence that says so.
    pub(in crate::upstream) fn silent(&self) -> Vec<(String, SystemTime, String)> {
        let hosts = self.hosts.lock();
        let silent = hosts.iter().filter_map(|((origin, _), host)| {
            let (since, words) = host.breaker.silence()?;
            Some((origin.to_string(), since, words))
        });
        silent.collect()
    }

    /// Sends the request and waits for the head of its answer.
    pub(in crate::upstream) async fn send(
        &self,
        outgoing: &Outgoing,
        (origin, scope): (&Origin, AddressScope),
        turn: Turn<'_>,
    ) -> Result<Head, Failure> {
        let host = self.host(origin, scope);
        // Before and after the wait for a connection: the host may have gone meanwhile.
        host.breaker.check()?;
        let permits = self.permits(&host, origin, turn.share).await?;
        (turn.admit)()?;
        let permit = host.breaker.admit()?;
        let first = self.on_a_connection(&host, &permit, outgoing, (origin, scope));
        // On the heap: else every request of a client would be as large, also one that needs no upstream.
        let asked = Box::pin(async {
            match turn.again {
                Some(once_more) => tokio::select! {
                    biased;
                    first = first => first,
                    // The state of a second request is as large as that of the first.
                    second = Box::pin(self.asked_again(&host, (origin, scope), once_more)) => Ok(second),
                },
                None => first.await,
            }
        });
        let exchanged = tokio::select! {
            biased;
            exchanged = asked => exchanged,
            () = host.queue.gives_way() => return Err(self.refused(origin, &Refused::Unwanted)),
        };
        permit.settle(exchanged.as_ref().err());
        let (connection, response, replaced) = exchanged?;
        self.border().answered(origin, connection.peer);
        Ok(Head { response, lease: Lease { connection, host, _permits: permits }, replaced })
    }

    /// The answer on a new connection to what has outlived its time on the first one.
    async fn asked_again(
        &self,
        host: &Host,
        (origin, scope): (&Origin, AddressScope),
        once_more: &(dyn Fn() -> Option<Outgoing> + Sync),
    ) -> (Connection, Response<Incoming>, bool) {
        let permit = || async {
            let permit = Arc::clone(&host.again).acquire_owned().await.ok()?;
            Some((permit, once_more()?))
        };
        let ask = |(permit, outgoing): (OwnedSemaphorePermit, Outgoing), limit| async move {
            let _permit = permit;
            let permit = host.breaker.admit().ok()?;
            let asked = self.on_a_new_connection(&permit, &outgoing, (origin, scope));
            let Ok(asked) = tokio::time::timeout(limit, asked).await else {
                permit.outlived(&late(origin, limit));
                return None;
            };
            permit.settle(asked.as_ref().err());
            asked.ok()
        };
        let (connection, response) = again(&host.breaker.answers, self.ask_again, permit, ask).await;
        // Whatever swallowed the first request may have swallowed the other kept connections.
        host.idle.lock().clear();
        (connection, response, false)
    }

    /// Sends the request on a kept connection, or on a new one. The flag says that a kept one had died.
    async fn on_a_connection(
        &self,
        host: &Host,
        permit: &BreakerPermit<'_>,
        outgoing: &Outgoing,
        (origin, scope): (&Origin, AddressScope),
    ) -> Result<(Connection, Response<Incoming>, bool), Failure> {
        let mut replaced = false;
        // What must not be done twice gets no connection that may have died of age: whether it was done could not be known.
        let repeatable = !matches!(outgoing.method, Method::DELETE | Method::PATCH);
        if repeatable && let Some(mut connection) = host.take().await {
            match self.exchange(&mut connection, outgoing, origin).await {
                Ok(response) => return Ok((connection, response, replaced)),
                // The server may have closed it while the request was on its way.
                Err(Broken::Dead(_)) => replaced = true,
                Err(Broken::Final(failure)) => {
                    if failure.kind == ErrorKind::Timeout {
                        // Where packets vanish, the other kept connections are as dead, and would each cost the next one a wait.
                        host.idle.lock().clear();
                    }
                    return Err(failure);
                }
            }
        }
        let (connection, response) = self.on_a_new_connection(permit, outgoing, (origin, scope)).await?;
        Ok((connection, response, replaced))
    }

    async fn on_a_new_connection(
        &self,
        permit: &BreakerPermit<'_>,
        outgoing: &Outgoing,
        (origin, scope): (&Origin, AddressScope),
    ) -> Result<(Connection, Response<Incoming>), Failure> {
        let mut connection = tokio::select! {
            biased;
            connection = self.connect(origin, scope) => connection?,
            failure = permit.overtaken() => return Err(failure),
        };
        match self.exchange(&mut connection, outgoing, origin).await {
            Ok(response) => Ok((connection, response)),
            Err(Broken::Dead(failure) | Broken::Final(failure)) => Err(failure),
        }
    }

    fn host(&self, origin: &Origin, scope: AddressScope) -> Arc<Host> {
        let mut hosts = self.hosts.lock();
        let key = (origin.clone(), scope);
        if hosts.len() >= HOSTS && !hosts.contains_key(&key) {
            hosts.retain(|_, host| Arc::strong_count(host) > 1 || !host.expire());
        }
        let host = hosts.entry(key).or_insert_with(|| {
            Arc::new(Host {
                breaker: Breaker::new(origin),
                queue: Queue::new(self.limit),
                again: Arc::new(Semaphore::new(again::AT_ONCE)),
                idle: Mutex::default(),
            })
        });
        Arc::clone(host)
    }

    async fn permits(&self, host: &Host, origin: &Origin, share: ConnectionClass) -> Result<Permits, Failure> {
        host.queue.permits(share, self.wait).await.map_err(|refused| self.refused(origin, &refused))
    }

    fn refused(&self, origin: &Origin, refused: &Refused) -> Failure {
        let full = format!("all {} connections that larder may have to {origin} are in use", self.limit);
        let reason = match refused {
            Refused::Full => format!("{full} (upstream_connections)"),
            Refused::Crowded => format!("{full} (upstream_connections), and as many requests wait for one as may"),
            Refused::Unwanted => {
                format!("nobody waits for the answer of {origin} any more, and others need the connection")
            }
        };
        Failure::new(ErrorKind::Throttled { retry_after: Some(self.wait) }, reason)
    }

    /// A connection for a request whose body comes while it is sent. The breaker hears whether the host could be reached; what
    /// becomes of the body in the hours that it may take says nothing about that. `admit` as in [`Turn`].
    pub(in crate::upstream) async fn reserve(
        &self,
        (origin, scope): (&Origin, AddressScope),
        share: ConnectionClass,
        admit: impl Fn() -> Result<(), Failure>,
    ) -> Result<Reserved, Failure> {
        let host = self.host(origin, scope);
        host.breaker.check()?;
        let permits = self.permits(&host, origin, share).await?;
        admit()?;
        if let Some(connection) = host.take().await {
            return Ok(Reserved { connection, host, origin: origin.clone(), permits, kept: true });
        }
        let connection = {
            let permit = host.breaker.admit()?;
            let connected = tokio::select! {
                biased;
                connection = self.connect(origin, scope) => connection,
                failure = permit.overtaken() => Err(failure),
            };
            if connected.is_err() {
                permit.settle(connected.as_ref().err());
            }
            connected?
        };
        Ok(Reserved { connection, host, origin: origin.clone(), permits, kept: false })
    }

    async fn connect(&self, origin: &Origin, scope: AddressScope) -> Result<Connection, Failure> {
        let opened = self.connector.open(origin, scope).await?;
        let io = TokioIo::new(ReadAfterWriteError::new(opened.io.into_inner()));
        let (sender, connection) = http1::handshake(io).await.map_err(|error| {
            Failure::new(ErrorKind::Unreachable, format!("the connection to {origin} broke at once: {error}"))
        })?;
        // Failures reach the request that is under way; on an idle connection there is none.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { sender, driver, route: opened.route, peer: opened.peer })
    }

    async fn exchange(
        &self,
        connection: &mut Connection,
        outgoing: &Outgoing,
        origin: &Origin,
    ) -> Result<Response<Incoming>, Broken> {
        let request = addressed(outgoing, Payload::whole(outgoing.body.clone()), origin, &connection.route)
            .map_err(Broken::Final)?;
        match tokio::time::timeout(self.first_byte, connection.sender.send_request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(broken(&error, origin)),
            Err(_) => Err(Broken::Final(late(origin, self.first_byte))),
        }
    }
}

/// A connection for one streamed request.
pub(in crate::upstream) struct Reserved {
    connection: Connection,
    host: Arc<Host>,
    origin: Origin,
    permits: Permits,
    /// Whether it had been used before, so that the other side may have closed it.
    kept: bool,
}

/// A streamed request that got no answer.
pub(in crate::upstream) struct Unanswered {
    pub(in crate::upstream) failure: Failure,
    /// Whether the connection may have been dead before the request: another one would help.
    pub(in crate::upstream) stale: bool,
}

impl Reserved {
    pub(in crate::upstream) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Sends the request and waits for the head of its answer, for as long as that takes: the answer may come before the body
    /// is whole.
    pub(in crate::upstream) async fn send(self, outgoing: &Outgoing, body: Payload) -> Result<Head, Unanswered> {
        let Self { mut connection, host, origin, permits, kept } = self;
        let request = addressed(outgoing, body, &origin, &connection.route)
            .map_err(|failure| Unanswered { failure, stale: false })?;
        match connection.sender.send_request(request).await {
            Ok(response) => {
                host.breaker.answered();
                Ok(Head { response, lease: Lease { connection, host, _permits: permits }, replaced: false })
            }
            Err(error) => Err(match broken(&error, &origin) {
                Broken::Dead(failure) => Unanswered { failure, stale: kept },
                Broken::Final(failure) => Unanswered { failure, stale: false },
            }),
        }
    }
}

fn late(origin: &Origin, limit: Duration) -> Failure {
    let limit = limit.as_secs_f32();
    Failure::new(ErrorKind::Timeout, format!("{origin} did not begin to answer within {limit} s"))
}

/// Why a connection gave no answer.
enum Broken {
    /// It ended before the first byte.
    Dead(Failure),
    /// Another connection would not help.
    Final(Failure),
}

fn broken(error: &hyper::Error, origin: &Origin) -> Broken {
    let text = super::connect::chain(error);
    if error.is_parse() {
        return Broken::Final(Failure::foreign(format!("{origin} does not answer in HTTP/1.1 ({text})")));
    }
    Broken::Dead(Failure::new(
        ErrorKind::Unreachable,
        format!("{origin} closed the connection without an answer ({text})"),
    ))
}

/// The request as it is written on this kind of connection.
fn addressed(outgoing: &Outgoing, body: Payload, origin: &Origin, route: &Route) -> Result<Request<Payload>, Failure> {
    let unsendable = || Failure::foreign(format!("the address at {origin} cannot be asked for"));
    let mut request = Request::new(body);
    *request.method_mut() = outgoing.method.clone();
    *request.headers_mut() = outgoing.headers.clone();
    let host = HeaderValue::from_str(&origin.authority()).map_err(|_| unsendable())?;
    request.headers_mut().insert(HOST, host);
    let path = outgoing.url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    match route {
        Route::Direct => *request.uri_mut() = path.parse().map_err(|_| unsendable())?,
        Route::Forwarded(credential) => {
            *request.uri_mut() = outgoing.url.clone();
            if let Some(credential) = credential {
                request.headers_mut().insert(PROXY_AUTHORIZATION, credential.clone());
            }
        }
    }
    Ok(request)
}

impl Host {
    /// A kept connection that is still good, as far as one can tell.
    async fn take(&self) -> Option<Connection> {
        loop {
            let (mut connection, since) = self.idle.lock().pop()?;
            if since.elapsed() >= IDLE || connection.sender.is_closed() {
                continue;
            }
            // The driver may still have to notice that the last body is read; a moment is enough for that.
            let ready = tokio::time::timeout(Duration::from_millis(100), connection.sender.ready()).await;
            if matches!(ready, Ok(Ok(()))) {
                return Some(connection);
            }
        }
    }

    /// Closes what has been idle for too long; true if nothing is left.
    fn expire(&self) -> bool {
        let mut idle = self.idle.lock();
        idle.retain(|(connection, since)| since.elapsed() < IDLE && !connection.sender.is_closed());
        idle.is_empty()
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
