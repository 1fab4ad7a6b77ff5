//! Sockets: a port that can stop and resume listening, its connections, and the way from a connection to an answer.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::body::Body;
use super::intake::Intake;
use super::knobs::{Settings, Side};
use super::record::{Listener, Record};
use super::{State, login, storage};

/// One listening address. Closing it takes effect at once: the next connection is refused.
pub(super) struct Port {
    pub(super) address: SocketAddr,
    socket: Mutex<Option<TcpListener>>,
    closing: AtomicBool,
    changed: Notify,
}

impl Port {
    pub(super) fn open(port: u16) -> io::Result<Arc<Self>> {
        Self::open_at(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Another loopback address, where the system has one (Linux): clients compare hosts without ports when they decide
    /// whether a redirect leaves the registry.
    pub(super) fn open_apart(port: u16) -> io::Result<Arc<Self>> {
        Self::open_at(SocketAddr::from(([127, 0, 0, 2], port))).or_else(|_| Self::open(port))
    }

    pub(super) fn open_at(address: SocketAddr) -> io::Result<Arc<Self>> {
        let socket = bind(address)?;
        let address = socket.local_addr()?;
        let socket = Mutex::new(Some(socket));
        Ok(Arc::new(Self { address, socket, closing: AtomicBool::new(false), changed: Notify::new() }))
    }

    /// Whether it has been closed since this was last asked.
    pub(super) fn take_closing(&self) -> bool {
        self.closing.swap(false, Ordering::AcqRel)
    }

    /// Refuses new connections and closes those that are open.
    pub(super) fn close(&self) {
        *self.socket() = None;
        self.closing.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Listens again, on the same port.
    pub(super) fn reopen(&self) -> io::Result<()> {
        let mut socket = self.socket();
        if socket.is_none() {
            *socket = Some(bind(self.address)?);
            self.changed.notify_one();
        }
        Ok(())
    }

    fn socket(&self) -> MutexGuard<'_, Option<TcpListener>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        self.socket().as_ref().map_or(Poll::Pending, |socket| socket.poll_accept(cx))
    }

    /// The next connection, or `None` when the port was opened or closed.
    pub(super) async fn next(&self) -> Option<(TcpStream, SocketAddr)> {
        tokio::select! {
            accepted = poll_fn(|cx| self.poll_accept(cx)) => {
                if accepted.is_err() {
                    // Out of descriptors: give connections time to end.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                accepted.ok()
            }
            () = self.changed.notified() => None,
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = std::net::TcpListener::bind(address)
        .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {address}: {e}")))?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

/// Accepts for one listener until the task is dropped; its connections go with it.
pub(super) async fn run(state: Arc<State>, listener: Listener, tls: Option<TlsAcceptor>) {
    let port = Arc::clone(state.port(listener));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            next = port.next() => {
                if let Some((stream, peer)) = next {
                    connections.spawn(connection(Arc::clone(&state), listener, stream, peer, tls.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
        if port.take_closing() {
            connections.shutdown().await;
        }
    }
}

async fn connection(
    state: Arc<State>,
    listener: Listener,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
) {
    let _ = stream.set_nodelay(true);
    let abort = Arc::new(AtomicBool::new(side(&state, listener).reset));
    let socket = Socket { stream, abort: Arc::clone(&abort) };
    if abort.load(Ordering::Acquire) {
        state.effects.count(format!("reset {}", name(listener)));
        return;
    }
    if side(&state, listener).hang {
        state.effects.count(format!("hang {}", name(listener)));
    }
    state.knobs.wait_while(|k| select(k, listener).hang).await;
    match tls {
        None => serve(state, listener, socket, peer, abort).await,
        Some(tls) => {
            if let Ok(socket) = tls.accept(socket).await {
                serve(state, listener, socket, peer, abort).await;
            }
        }
    }
}

async fn serve<S>(state: Arc<State>, listener: Listener, socket: S, peer: SocketAddr, abort: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let client = Client { address: peer.ip().to_string(), connection: state.count_connection(listener), abort };
    let service = service_fn(|request| answer(Arc::clone(&state), listener, request, &client));
    // A client that leaves, or a body that breaks on purpose, is not this side's trouble.
    let _ = http1::Builder::new()
        .title_case_headers(listener == Listener::Login)
        .serve_connection(TokioIo::new(socket), service)
        .await;
}

/// Who is at the other end of a connection.
struct Client {
    address: String,
    /// Its number, at the login server.
    connection: u64,
    abort: Arc<AtomicBool>,
}

async fn answer(
    state: Arc<State>,
    listener: Listener,
    request: Request<Incoming>,
    client: &Client,
) -> io::Result<Response<Body>> {
    let abort = Arc::clone(&client.abort);
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let record = Record::new(listener, parts.method.as_str(), target, &parts.headers);
    state.log.add(Arc::clone(&record));
    if side(&state, listener).hang {
        state.effects.count(format!("hang {}", name(listener)));
    }
    state.knobs.wait_while(|k| select(k, listener).hang).await;
    if side(&state, listener).reset {
        state.effects.count(format!("reset {}", name(listener)));
        abort.store(true, Ordering::Release);
        return Err(io::Error::other("the simulator resets this connection on purpose"));
    }
    let delay = state.knobs.delay(|k| select(k, listener));
    if !delay.is_zero() {
        state.effects.count(format!("delay {}", name(listener)));
        tokio::time::sleep(delay).await;
    }
    let reply = match listener {
        Listener::Login => {
            let body = Intake::new(body, Arc::clone(&state), Arc::clone(&record), Arc::clone(&abort));
            let (method, headers, connection) = (&parts.method, &parts.headers, client.connection);
            let request = login::Request { method, target, headers, client: &client.address, connection };
            login::answer(&state, &request, body).await?
        }
        Listener::Storage => storage::answer(&state, &parts.method, target, &parts.headers, &client.address),
    };
    record.answered(reply.status().as_u16());
    let reads = matches!(parts.method, Method::GET | Method::HEAD)
        && ["/v2/", "/acr/v1/"].iter().any(|api| target.starts_with(api));
    if listener == Listener::Login && reads {
        state.knobs.wait_while(|k| k.hold_reads).await;
    }
    Ok(reply.map(|body| body.owned_by(record, abort)))
}

fn name(listener: Listener) -> &'static str {
    match listener {
        Listener::Login => "login",
        Listener::Storage => "storage",
    }
}

fn select(settings: &Settings, listener: Listener) -> Side {
    match listener {
        Listener::Login => settings.login,
        Listener::Storage => settings.storage,
    }
}

fn side(state: &State, listener: Listener) -> Side {
    state.knobs.read(|k| select(k, listener))
}

/// A connection that can be made to end in a reset instead of a clean close.
struct Socket {
    stream: TcpStream,
    abort: Arc<AtomicBool>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.abort.load(Ordering::Acquire) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
