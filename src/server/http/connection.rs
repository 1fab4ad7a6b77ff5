//! Connections: from an accepted socket to a handler, and how each of them ends.
//!
//! HTTP/1 and HTTP/2 (prior knowledge, or agreed upon by ALPN) on the same port. Where TLS is not spoken, a TLS hello gets hyper's plain 400 at once, which is what clients wait for
//! before they fall back to plain HTTP. The number of open connections, the head of a request and the patience with a client are
//! bounded; [`Server::serve`] returns by the drain's deadline, whatever clients do. It knows nothing of registries.

use super::body::Body;
use super::connection_io::{Io, Stream};
use super::connection_places::{Accepted, LOOK, Places};
use super::connection_watch::{DRAIN_GRACE, Patience, Watch};
use super::drain::Drain;
use super::handed::{Socket, Sockets};
use super::listen::{BindError, Listeners};
use super::peer::Peer;
use super::sendfile::{Live, SendfileStats};
use crate::config::{Limits, Listen};
use crate::server::tls::Tls;
use crate::telemetry::IntGauge;
use http::{Method, Request, Response, Version};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// More headers than any client sends; more are answered 431.
const MAX_HEADERS: usize = 100;
/// Requests at once on one HTTP/2 connection: layers of several images side by side.
pub(in crate::server) const MAX_STREAMS: u32 = 128;
/// How often a silent HTTP/2 client is asked whether it is still there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WITHIN: Duration = Duration::from_secs(20);
/// hyper accepts no smaller bound on a head.
const LEAST_HEADER_BYTES: usize = 8 << 10;
/// A timer without a deadline checks again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// Answers requests.
pub trait Handler: Clone + Send + Sync + 'static {
    /// The answer to one request.
    fn handle(&self, request: Request<Incoming>, peer: Arc<Peer>) -> impl Future<Output = Response<Body>> + Send;
}

/// Bound listeners, ready to serve.
pub struct Server {
    listeners: Listeners,
    limits: Limits,
    stats: Arc<SendfileStats>,
    open: Option<IntGauge>,
    tls: Option<Tls>,
}

/// One connection in the count of open ones, however it ends.
struct Counted(Option<IntGauge>);

impl Counted {
    fn new(open: Option<&IntGauge>) -> Self {
        if let Some(open) = open {
            open.inc();
        }
        Self(open.cloned())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(open) = &self.0 {
            open.dec();
        }
    }
}

impl Server {
    /// Binds every place, or says which one could not be bound, why, and what to do.
    pub async fn bind(listen: &[Listen], limits: &Limits) -> Result<Self, BindError> {
        Self::bind_with(listen, limits, None).await
    }

    /// The same, with what the listeners that speak TLS need.
    pub async fn bind_with(listen: &[Listen], limits: &Limits, tls: Option<Tls>) -> Result<Self, BindError> {
        Self::bind_rest(Vec::new(), listen, limits, tls).await
    }

    /// The registry's listeners; those that systemd has made are taken.
    pub async fn bind_registry(
        sockets: &mut Sockets,
        listen: &[Listen],
        limits: &Limits,
        tls: Option<Tls>,
    ) -> Result<Self, BindError> {
        Self::bind_rest(sockets.take_registry(), listen, limits, tls).await
    }

    /// The admin listeners; those that systemd has made are taken.
    pub async fn bind_admin(sockets: &mut Sockets, listen: &[Listen], limits: &Limits) -> Result<Self, BindError> {
        Self::bind_rest(sockets.take_admin(), listen, limits, None).await
    }

    async fn bind_rest(
        handed: Vec<Socket>,
        listen: &[Listen],
        limits: &Limits,
        tls: Option<Tls>,
    ) -> Result<Self, BindError> {
        if let (None, Some(Listen::Tls(address))) = (&tls, listen.iter().find(|one| matches!(one, Listen::Tls(_)))) {
            return Err(BindError::NoCertificate(*address));
        }
        let listeners = Listeners::bind(listen, handed).await?;
        Ok(Self { listeners, limits: limits.clone(), stats: Arc::default(), open: None, tls })
    }

    /// Where it really listens: ports that were left to the system are filled in.
    #[must_use]
    pub fn addresses(&self) -> Vec<Listen> {
        self.listeners.addresses()
    }

    /// Counts the open connections in `gauge`.
    #[must_use]
    pub fn counted_in(self, gauge: IntGauge) -> Self {
        Self { open: Some(gauge), ..self }
    }

    /// What sendfile carries.
    #[must_use]
    pub fn sendfile_stats(&self) -> Arc<SendfileStats> {
        Arc::clone(&self.stats)
    }

    /// Serves until the drain, and returns by its deadline.
    pub async fn serve(self, handler: impl Handler, mut drain: Drain) {
        let mut connections = JoinSet::new();
        let mut begun = pin!({
            let mut drain = drain.clone();
            async move { drain.begun().await }
        });
        let mut places = Places::new(&self.limits);
        let mut listeners = self.listeners;
        loop {
            tokio::select! {
                biased;
                () = &mut begun => break,
                Some(ended) = connections.join_next_with_id() => {
                    places.closed(ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id));
                    note(ended.map(|_| ()));
                }
                (stream, peer) = listeners.accept() => places.arrived(Accepted { stream, peer }),
                () = sleep(LOOK), if places.is_anybody_waiting() => (),
            }
            while let Some((Accepted { stream, peer }, place)) = places.next() {
                let watch = Arc::new(Watch::new(&self.limits));
                let (handler, builder) = (handler.clone(), builder(&self.limits));
                let (stats, drain, shared) = (Arc::clone(&self.stats), drain.clone(), Arc::clone(&watch));
                let tls = self.tls.clone().filter(|_| matches!(*peer.listener, Listen::Tls(_)));
                let counted = Counted::new(self.open.as_ref());
                let whose = Arc::clone(&peer);
                let task = connections.spawn(async move {
                    if let Some((stream, peer)) = secure(stream, peer, tls, &shared, drain.clone()).await {
                        drive(stream, peer, handler, builder, shared, stats, drain).await;
                    }
                    drop((place, counted));
                });
                places.opened(&whose, watch, task);
            }
            places.give_way();
        }
        drop((listeners, places));
        finish(connections, &mut drain).await;
    }
}

/// Waits for the connections until the deadline, then closes them.
async fn finish(mut connections: JoinSet<()>, drain: &mut Drain) {
    let mut expired = pin!(drain.expired());
    loop {
        tokio::select! {
            biased;
            ended = connections.join_next() => match ended {
                Some(ended) => note(ended),
                None => return,
            },
            () = &mut expired => break,
        }
    }
    tracing::warn!(connections = connections.len(), "the drain time is over, open connections are cut");
    connections.shutdown().await;
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked, its connection is closed");
    }
}

/// The connection after its handshake, where there is one. `None`: it has come to nothing, and the connection is closed.
async fn secure(
    stream: Stream,
    peer: Arc<Peer>,
    tls: Option<Tls>,
    watch: &Watch,
    mut drain: Drain,
) -> Option<(Stream, Arc<Peer>)> {
    let (stream, tls) = match (stream, tls) {
        (Stream::Tcp(stream), Some(tls)) => (stream, tls),
        (stream, _) => return Some((stream, peer)),
    };
    let secured = tokio::select! {
        secured = tls.accept(stream) => secured,
        () = async { drain.begun().await; sleep(DRAIN_GRACE).await } => return None,
    };
    match secured {
        Ok(secured) => {
            watch.begins();
            let (server_name, client) = (secured.server_name, secured.client);
            Some((Stream::Tls(secured.stream), Arc::new(Peer { server_name, client, ..(*peer).clone() })))
        }
        Err(error) => {
            tracing::debug!(peer = ?peer.address, %error, "no TLS with a client");
            None
        }
    }
}

/// Runs one connection to its end.
async fn drive<H: Handler>(
    stream: Stream,
    peer: Arc<Peer>,
    handler: H,
    builder: auto::Builder<Streams>,
    watch: Arc<Watch>,
    stats: Arc<SendfileStats>,
    mut drain: Drain,
) {
    let live = Live::new(stats);
    // The kernel sends what it has read, and that is not encrypted.
    let mapped = (!matches!(stream, Stream::Tls(_))).then(|| Arc::clone(&live));
    let io = Io::new(stream, Arc::clone(&watch), Arc::clone(&live));
    let service = service_fn({
        let (watch, peer) = (Arc::clone(&watch), Arc::clone(&peer));
        move |request| {
            let answer = answer(request, handler.clone(), Arc::clone(&peer), Arc::clone(&watch), mapped.clone());
            async move { Ok::<_, Infallible>(answer.await) }
        }
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut begun = pin!(drain.begun());
    let (mut draining, mut told) = (false, false);
    let mut timer = pin!(sleep_until(watch.deadline().map_or_else(Instant::now, |(deadline, _)| deadline)));
    let end = std::future::poll_fn(|cx| {
        if !draining && begun.as_mut().poll(cx).is_ready() {
            draining = true;
            watch.drain();
        }
        loop {
            if let Poll::Ready(end) = connection.as_mut().poll(cx) {
                return Poll::Ready(Ok(end));
            }
            // Who has just connected is not turned away: its first request, which is on its way, is answered.
            if told || !draining || !watch.has_had_a_request() {
                return poll_patience(&watch, timer.as_mut(), cx).map(Err);
            }
            told = true;
            connection.as_mut().graceful_shutdown();
        }
    })
    .await;
    match end {
        Ok(Ok(())) => (),
        Ok(Err(error)) => tracing::debug!(peer = ?peer.address, %error, "connection ended early"),
        Err(patience) => {
            tracing::debug!(peer = ?peer.address, ?patience, "connection closed, the client took too long");
        }
    }
}

/// Ready once the client has taken too long.
fn poll_patience(watch: &Watch, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Patience> {
    loop {
        let deadline = watch.deadline();
        if timer.is_elapsed() {
            let now = Instant::now();
            match deadline {
                Some((deadline, patience)) if deadline <= now => return Poll::Ready(patience),
                Some((deadline, _)) => timer.as_mut().reset(deadline),
                None => timer.as_mut().reset(now + LOOK_AGAIN),
            }
        } else if let Some((deadline, _)) = deadline
            && deadline < timer.deadline()
        {
            // Only ever earlier: a timer that is too early costs one look, moving it at every write costs more.
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
    }
}

/// Has a request answered, and ties the answer's body to the connection.
async fn answer<H: Handler>(
    request: Request<Incoming>,
    handler: H,
    peer: Arc<Peer>,
    watch: Arc<Watch>,
    live: Option<Arc<Live>>,
) -> Response<Body> {
    let (version, head) = (request.version(), request.method() == Method::HEAD);
    let answering = watch.request(version, !request.body().is_end_stream());
    let mut response = handler.handle(request, peer).await;
    let body = response.body_mut();
    if head {
        body.head_only();
    } else {
        if version == Version::HTTP_10 && body.length().is_none() {
            watch.close_delimited();
        }
        body.attach(answering, live.filter(|_| version != Version::HTTP_2));
    }
    response
}

fn builder(limits: &Limits) -> auto::Builder<Streams> {
    let header_bytes = limits.header_bytes.max(LEAST_HEADER_BYTES);
    let mut builder = auto::Builder::new(Streams::default());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .half_close(false)
        .max_headers(MAX_HEADERS)
        .max_buf_size(header_bytes)
        .writev(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WITHIN);
    builder
}

/// Owns the tasks of one connection's HTTP/2 streams: they end with it.
#[derive(Clone, Default)]
struct Streams(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let mut streams = self.0.lock();
        while let Some(ended) = streams.try_join_next() {
            note(ended);
        }
        streams.spawn(stream);
    }
}
