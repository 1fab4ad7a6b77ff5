//! A client's socket as hyper sees it: reads and writes are noted for [`Watch`], mapped slices leave by sendfile, and one fast
//! download does not keep the thread from others.
//!
//! A fast client never lets the socket block, so that without a budget per turn hyper would go on writing for as long as there are
//! bytes. After the budget the task steps back behind the I/O driver, which then sees the others.

use super::connection_watch::Watch;
use super::sendfile::Live;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

/// Bytes that one connection may write before the others have a turn.
const TURN: usize = 1 << 20;
/// How long, and for how many bytes, a client that is still sending is listened to after its answer.
pub(in crate::server) const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 8 << 20;
/// The first byte of every TLS connection.
const TLS_RECORD: u8 = 0x16;

/// A socket that was accepted.
pub(in crate::server) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

pub(in crate::server) struct Io {
    stream: Stream,
    watch: Arc<Watch>,
    live: Arc<Live>,
    turn: usize,
    /// Nothing has been read yet.
    fresh: bool,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Io {
    pub(in crate::server) fn new(stream: Stream, watch: Arc<Watch>, live: Arc<Live>) -> Self {
        Self { stream, watch, live, turn: TURN, fresh: true, linger: None }
    }

    /// Notes what a write did.
    fn wrote(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(Ok(bytes)) => {
                self.turn = self.turn.saturating_sub(*bytes);
                self.watch.sent(*bytes);
            }
            Poll::Ready(Err(_)) => (),
            Poll::Pending => {
                self.turn = TURN;
                self.watch.blocked();
            }
        }
        result
    }

    /// Steps back behind the I/O driver once the turn is used up.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.turn > 0 {
            return Poll::Ready(());
        }
        self.turn = TURN;
        // The first poll leaves the waker with the runtime, which wakes it after it has looked at the sockets; a plain wake would not.
        std::pin::pin!(tokio::task::yield_now()).poll(cx)
    }
}

impl hyper::rt::Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.remaining();
        let mut local = [std::mem::MaybeUninit::uninit(); 8 << 10];
        let room = local.len().min(before);
        let mut read = ReadBuf::uninit(&mut local[..room]);
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
        if !read.filled().is_empty() {
            this.watch.received();
            if std::mem::take(&mut this.fresh) && read.filled()[0] == TLS_RECORD {
                this.stream.note_tls();
            }
            buffer.put_slice(read.filled());
        }
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_turn(cx));
        let result = this.stream.poll_send(cx, &this.live, buffers);
        this.wrote(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.live.prune();
        let Stream::Tls(stream) = &mut this.stream else { return Poll::Ready(Ok(())) };
        // What was written may still lie here, encrypted.
        let flushed = Pin::new(stream).poll_flush(cx);
        if flushed.is_pending() {
            this.watch.blocked();
        } else {
            this.watch.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.watch.orderly_end();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        if !this.watch.must_linger() {
            return Poll::Ready(Ok(()));
        }
        let (patience, left) = this.linger.get_or_insert_with(|| (Box::pin(sleep(LINGER)), LINGER_BYTES));
        let mut local = [0; 8 << 10];
        while *left > 0 && patience.as_mut().poll(cx).is_pending() {
            let mut read = ReadBuf::new(&mut local);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() => *left = left.saturating_sub(read.filled().len()),
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // A plain close would pass for the end of an answer that has no length.
        #[cfg(unix)]
        if self.watch.must_reset()
            && let Some(stream) = self.stream.tcp()
        {
            let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        }
    }
}

impl Stream {
    /// Says that a client spoke TLS where plain HTTP is spoken; it has hyper's answer 400, which clients understand. Many clients try
    /// this first, each time, so it is said loudly once.
    fn note_tls(&self) {
        static TOLD: AtomicBool = AtomicBool::new(false);
        let Self::Tcp(stream) = self else { return };
        let (client, listener) = (stream.peer_addr().ok(), stream.local_addr().ok());
        if TOLD.swap(true, Ordering::Relaxed) {
            tracing::debug!(?client, ?listener, "a client speaks TLS where larder speaks plain HTTP");
        } else {
            tracing::info!(
                ?client,
                ?listener,
                "a client speaks TLS where larder speaks plain HTTP: give the client http:// (or its option for plain HTTP), or larder \
                 [server.tls]; some clients try both by themselves"
            );
        }
    }

    #[cfg(unix)]
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Tls(stream) => Some(stream.get_ref().0),
            Self::Unix(_) => None,
        }
    }

    #[cfg(target_os = "linux")]
    fn poll_send(&mut self, cx: &mut Context<'_>, live: &Live, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        use std::os::fd::AsFd;
        use tokio::io::Interest;
        loop {
            let result = match self {
                Self::Tcp(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_io(Interest::WRITABLE, || live.write(stream.as_fd(), buffers))
                }
                Self::Unix(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_io(Interest::WRITABLE, || live.write(stream.as_fd(), buffers))
                }
                Self::Tls(stream) => return Pin::new(stream).poll_write_vectored(cx, buffers),
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                result => return Poll::Ready(result),
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn poll_send(&mut self, cx: &mut Context<'_>, _: &Live, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
        }
    }

    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use hyper::rt::Write;

    #[tokio::test]
    async fn after_its_turn_a_connection_lets_others_go_first() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let watch = Arc::new(Watch::new(&Limits::default()));
        let mut io = Io::new(Stream::Tcp(stream), watch, Live::new(Arc::default()));
        let mut written = 0;
        let interrupted = std::future::poll_fn(|cx| {
            while written < TURN {
                assert!(io.wrote(Poll::Ready(Ok(64 << 10))).is_ready());
                written += 64 << 10;
            }
            Poll::Ready(Pin::new(&mut io).poll_write(cx, b"more").is_pending())
        });
        assert!(interrupted.await, "the socket would have taken it");
        assert_eq!(std::future::poll_fn(|cx| Pin::new(&mut io).poll_write(cx, b"more")).await.unwrap(), 4);
    }
}
