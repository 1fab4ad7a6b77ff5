//! A kept connection, as plain as can be: the load must not be what is slow.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that is opened when it is needed.
pub struct Connection {
    address: SocketAddr,
    socket: Option<BufReader<TcpStream>>,
    line: Vec<u8>,
}

/// A whole answer.
#[derive(Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub digest: String,
    pub location: String,
    pub body: Vec<u8>,
}

impl Connection {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, socket: None, line: Vec::new() }
    }

    /// The next request has a new one.
    pub fn close(&mut self) {
        self.socket = None;
    }

    /// Sends a request and reads its answer to the end.
    pub fn ask(&mut self, method: &str, target: &str, lines: &str, body: Option<&[u8]>) -> io::Result<Reply> {
        let length = body.map(|body| format!("Content-Length: {}\r\n", body.len())).unwrap_or_default();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n{length}{lines}\r\n", self.address);
        let message = [head.as_bytes(), body.unwrap_or_default()].concat();
        let kept = self.socket.is_some();
        let reply = match self.exchange(method, &message) {
            // A server may close a connection that nobody uses at any time.
            Err(error) if kept && error.kind() == io::ErrorKind::UnexpectedEof && body.is_none() => {
                self.socket = None;
                self.exchange(method, &message)
            }
            reply => reply,
        };
        if reply.is_err() || lines.contains("Connection: close") {
            self.socket = None;
        }
        reply
    }

    fn exchange(&mut self, method: &str, message: &[u8]) -> io::Result<Reply> {
        if self.socket.is_none() {
            let socket = TcpStream::connect(self.address)?;
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            self.socket = Some(BufReader::with_capacity(16 << 10, socket));
        }
        let Some(socket) = &mut self.socket else { return Err(io::ErrorKind::NotConnected.into()) };
        socket.get_mut().write_all(message)?;
        let mut reply = Reply::default();
        let mut length = 0;
        loop {
            self.line.clear();
            if socket.read_until(b'\n', &mut self.line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = std::str::from_utf8(&self.line).map_err(io::Error::other)?.trim_end();
            if reply.status == 0 {
                let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
                reply.status = status.ok_or_else(|| io::Error::other(format!("no status: {line}")))?;
                continue;
            }
            let Some((name, value)) = line.split_once(": ") else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().map_err(io::Error::other)?;
            } else if name.eq_ignore_ascii_case("docker-content-digest") {
                value.clone_into(&mut reply.digest);
            } else if name.eq_ignore_ascii_case("location") {
                value.clone_into(&mut reply.location);
            }
        }
        if method != "HEAD" {
            reply.body.resize(length, 0);
            socket.read_exact(&mut reply.body)?;
        }
        Ok(reply)
    }
}
