//! A connection that still listens when it can no longer write.
//!
//! A server that refuses a body answers and closes, while the body is on its way. The next write fails, and the answer lies
//! unread: a client that gives up at the failed write loses it, and the client never hears "too large" or "not allowed".

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Takes a failed write for one that waits; what can be read then tells how the connection ended.
pub(in crate::upstream) struct ReadAfterWriteError<T> {
    io: T,
    deaf: bool,
}

impl<T> ReadAfterWriteError<T> {
    pub(in crate::upstream) fn new(io: T) -> Self {
        Self { io, deaf: false }
    }

    /// Waits for ever instead of failing: the reader, which sees the end as well, ends the connection.
    fn hushed<V>(&mut self, result: Poll<io::Result<V>>) -> Poll<io::Result<V>> {
        match result {
            Poll::Ready(Err(error)) if is_closed(&error) => {
                self.deaf = true;
                Poll::Pending
            }
            other => other,
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted)
}

impl<T: AsyncRead + Unpin> AsyncRead for ReadAfterWriteError<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ReadAfterWriteError<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.hushed(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, buffers);
        self.hushed(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.hushed(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn an_answer_is_read_although_the_other_side_takes_nothing_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.read_exact(&mut [0; 10]).await.unwrap();
            socket.write_all(b"too large").await.unwrap();
            // Closed with bytes unread: the system answers the rest with a reset.
        });
        let mut io = ReadAfterWriteError::new(TcpStream::connect(address).await.unwrap());
        let upload = vec![0; 64 << 20];
        let mut answer = Vec::new();
        let (mut reader, mut writer) = tokio::io::split(&mut io);
        let mut taken = vec![0; 9];
        tokio::select! {
            read = reader.read_exact(&mut taken) => { read.unwrap(); }
            written = writer.write_all(&upload) => panic!("{written:?}"),
        }
        answer.extend_from_slice(&taken);
        assert_eq!(answer, b"too large");
        server.await.unwrap();
    }
}
