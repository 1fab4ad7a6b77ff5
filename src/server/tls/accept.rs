//! From a TCP connection to one that is encrypted, or to an answer that says what was expected.

use super::{Tls, plain};
use crate::config::ClientName;
use rustls::server::Acceptor;
use std::future::Future as _;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a client may take from connecting to the end of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The first byte of every TLS connection: a record of a handshake.
const RECORD: u8 = 0x16;
/// Encrypted bytes that may wait for one client.
const BUFFER: usize = 64 << 10;

/// A client after its handshake.
pub(in crate::server) struct Secured {
    pub(in crate::server) stream: Box<TlsStream<TcpStream>>,
    /// The name that the client asked for, in lower case.
    pub(in crate::server) server_name: Option<Arc<str>>,
    /// Whom its certificate names, if it presented one.
    pub(in crate::server) client: Option<ClientName>,
}

impl Tls {
    /// The handshake. An error has been answered, as far as that helps.
    pub(in crate::server) async fn accept(&self, stream: TcpStream) -> io::Result<Secured> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long");
        let stream = timeout(HANDSHAKE, self.meet(stream)).await.map_err(late)??;
        let (_, session) = stream.get_ref();
        let server_name = session.server_name().map(|name| name.to_ascii_lowercase().into());
        let client = session.peer_certificates().and_then(|chain| ClientName::of(chain.first()?));
        Ok(Secured { stream: Box::new(stream), server_name, client })
    }

    async fn meet(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first != [RECORD] {
            plain::refuse(stream).await;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the client does not speak TLS"));
        }
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let turn = self.0.turns.acquire().await;
        // Everybody who can go on goes first.
        tokio::task::yield_now().await;
        let config = self.config();
        let mut handshake = pin!(start.into_stream_with(config, |session| session.set_buffer_limit(Some(BUFFER))));
        let done = std::future::poll_fn(|cx| match handshake.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => Poll::Ready(None),
        });
        let done = done.await;
        // What is left is waiting for the client, and little work.
        drop(turn);
        match done {
            Some(done) => done,
            None => handshake.await,
        }
    }
}
