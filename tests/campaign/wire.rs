//! One request on a connection of its own, and everything that came of it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json";

/// How a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Greedy,
    /// Leaves after so many bytes of the body.
    Leaves(usize),
    /// Takes a fortieth at a time, with a pause between.
    Slow,
}

/// What came of a request.
#[derive(Debug, Default)]
pub struct Outcome {
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    pub body: Vec<u8>,
    /// All that `Content-Length` promised came, and then the end.
    pub complete: bool,
    /// This side left before the end.
    pub left: bool,
}

impl Outcome {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    }

    fn length(&self) -> Option<usize> {
        self.header("content-length")?.parse().ok()
    }
}

/// Sends a request and reads its answer. An error: there was no whole head of an answer within `patience`.
pub async fn ask(
    address: SocketAddr,
    method: &str,
    target: &str,
    range: Option<(u64, u64)>,
    manner: Manner,
    patience: Duration,
) -> io::Result<Outcome> {
    let range = range.map(|(first, last)| format!("Range: bytes={first}-{last}\r\n")).unwrap_or_default();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nAccept: {ACCEPT}\r\n{range}Connection: close\r\n\r\n"
    );
    let mut outcome = Outcome::default();
    let talk = async {
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(request.as_bytes()).await?;
        outcome = head(&mut socket).await?;
        if method == "HEAD" {
            outcome.complete = true;
        } else {
            body(&mut socket, &mut outcome, manner).await?;
        }
        Ok(())
    };
    if let Ok(result) = timeout(patience, talk).await {
        return result.map(|()| outcome);
    }
    let so_far = format!("{} bytes after {patience:?}: {}", outcome.body.len(), outcome.head);
    Err(io::Error::new(io::ErrorKind::TimedOut, so_far))
}

async fn head(socket: &mut TcpStream) -> io::Result<Outcome> {
    let mut bytes = Vec::with_capacity(2048);
    let end = loop {
        if socket.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let body = bytes.split_off(end);
    let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok(Outcome { status, head, body, complete: false, left: false })
}

/// A body that breaks off is no error: the outcome says how much came.
async fn body(socket: &mut TcpStream, outcome: &mut Outcome, manner: Manner) -> io::Result<()> {
    let promised = outcome.length().ok_or_else(|| io::Error::other("an answer without Content-Length"))?;
    let mut chunk = vec![0; if manner == Manner::Slow { promised / 40 + 1 } else { 256 << 10 }];
    loop {
        if let Manner::Leaves(after) = manner
            && outcome.body.len() >= after
            && outcome.body.len() < promised
        {
            outcome.left = true;
            return Ok(());
        }
        match socket.read(&mut chunk).await {
            Ok(0) => break,
            Ok(count) => outcome.body.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error),
        }
        if manner == Manner::Slow {
            sleep(Duration::from_millis(20)).await;
        }
    }
    if outcome.body.len() > promised {
        return Err(io::Error::other("more bytes than Content-Length"));
    }
    outcome.complete = outcome.body.len() == promised;
    Ok(())
}
