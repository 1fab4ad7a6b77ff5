//! The load: blocking HTTP/1.1 on keep-alive connections, as cheap as it can be made.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use rustix::thread::{CpuSet, sched_setaffinity};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::Result;
use super::content::{MANIFEST_TYPE, hex};

/// The core of the load generator; servers are on core 0.
const CORE: usize = 1;

/// What becomes of a body.
pub(super) enum Sink<'a> {
    /// The kernel throws it away: the reader costs next to nothing.
    Discard,
    Keep(&'a mut Vec<u8>),
    Hash(&'a mut Sha256),
}

pub(super) struct Answer {
    pub(super) length: u64,
    /// From the request to the first byte of the body.
    pub(super) first_byte: Duration,
}

pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Further lines of each request's head.
    lines: String,
}

impl Connection {
    pub(super) fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|e| format!("connecting to port {port}: {e}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream, buffer: vec![0; 256 << 10], lines: String::new() })
    }

    /// The same with further lines in each request's head.
    fn open_with(port: u16, lines: &str) -> Result<Self> {
        Ok(Self { lines: lines.to_owned(), ..Self::open(port)? })
    }

    pub(super) fn get(&mut self, path: &str, mut sink: Sink<'_>) -> Result<Answer> {
        let began = Instant::now();
        self.send(path)?;
        let (head, filled) = self.head(path)?;
        let length = length_of(&self.buffer[..head], path)?;
        let mut left = length - (filled - head) as u64;
        let mut first_byte = (filled > head).then(|| began.elapsed());
        sink.take(&self.buffer[head..filled]);
        while left > 0 {
            let got = self.some(&mut sink, left)?;
            if got == 0 {
                return Err(format!("{path}: the body ended {left} bytes early").into());
            }
            first_byte.get_or_insert_with(|| began.elapsed());
            left -= got as u64;
        }
        Ok(Answer { length, first_byte: first_byte.unwrap_or_else(|| began.elapsed()) })
    }

    /// Asks, and reads no more than the head of the answer.
    pub(super) fn begin(&mut self, path: &str) -> Result<()> {
        self.send(path)?;
        let (head, _) = self.head(path)?;
        length_of(&self.buffer[..head], path).map(drop)
    }

    fn send(&mut self, path: &str) -> Result<()> {
        let lines = &self.lines;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {MANIFEST_TYPE}\r\n{lines}\r\n");
        Ok(self.stream.write_all(request.as_bytes())?)
    }

    /// Reads until the head is whole: where it ends, and how much has been read.
    fn head(&mut self, path: &str) -> Result<(usize, usize)> {
        let mut filled = 0;
        loop {
            // No more than a head's worth, so that a body that is to be discarded is not copied first.
            let end = (filled + (4 << 10)).min(self.buffer.len());
            let got = self.stream.read(&mut self.buffer[filled..end])?;
            if got == 0 {
                return Err(format!("{path}: the connection ended before the head did").into());
            }
            filled += got;
            if let Some(at) = self.buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
                return Ok((at + 4, filled));
            }
        }
    }

    fn some(&mut self, sink: &mut Sink<'_>, left: u64) -> Result<usize> {
        let most = usize::try_from(left)?.min(self.buffer.len());
        if matches!(sink, Sink::Discard) {
            let (_, got) = recv(&self.stream, &mut self.buffer[..most], RecvFlags::TRUNC)?;
            return Ok(got);
        }
        let got = self.stream.read(&mut self.buffer[..most])?;
        sink.take(&self.buffer[..got]);
        Ok(got)
    }
}

impl Sink<'_> {
    fn take(&mut self, bytes: &[u8]) {
        match self {
            Sink::Discard => {}
            Sink::Keep(kept) => kept.extend_from_slice(bytes),
            Sink::Hash(hash) => hash.update(bytes),
        }
    }
}

fn length_of(head: &[u8], path: &str) -> Result<u64> {
    let head = std::str::from_utf8(head)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(format!("{path}: answered {}", head.lines().next().unwrap_or_default()).into());
    }
    let length =
        head.lines().filter_map(|line| line.split_once(':')).find(|(n, _)| n.eq_ignore_ascii_case("content-length"));
    let (_, length) = length.ok_or_else(|| format!("{path}: no Content-Length"))?;
    Ok(length.trim().parse()?)
}

/// `requests` GETs of one path, spread over `connections`, from the load generator's core. Returns the bytes of all bodies.
pub(super) fn load(port: u16, path: &str, connections: usize, requests: usize) -> Result<u64> {
    load_with(port, path, connections, requests, "")
}

/// The same with further lines in each request's head.
pub(super) fn load_with(port: u16, path: &str, connections: usize, requests: usize, lines: &str) -> Result<u64> {
    std::thread::scope(|scope| {
        let one = || -> Result<u64> {
            pin();
            let mut connection = Connection::open_with(port, lines)?;
            (0..requests / connections).map(|_| Ok(connection.get(path, Sink::Discard)?.length)).sum()
        };
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a load thread panicked")?).sum()
    })
}

/// GETs of the paths by turns, `per_second` of them on one connection, until `over`: how long each took, counted from when it was
/// due, so that whoever holds one up answers for those behind it.
pub(super) fn paced(port: u16, paths: &[String], per_second: u32, over: impl Fn() -> bool) -> Result<Vec<Duration>> {
    let mut connection = Connection::open(port)?;
    let (began, mut times) = (Instant::now(), Vec::new());
    for (number, path) in (0_u32..).zip(paths.iter().cycle()) {
        let due = began + Duration::from_secs(1) * number / per_second;
        // What the timer adds is not the server's.
        let due = if due > Instant::now() {
            std::thread::sleep(due - Instant::now());
            Instant::now()
        } else {
            due
        };
        connection.get(path, Sink::Discard)?;
        times.push(due.elapsed());
        if over() {
            break;
        }
    }
    Ok(times)
}

/// Milliseconds that so many of a hundred took at most.
pub(super) fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let at = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

pub(super) fn pin() {
    let mut core = CpuSet::new();
    core.set(CORE);
    // On a machine with one core there is nothing to choose.
    let _ = sched_setaffinity(None, &core);
}

/// What one of several simultaneous clients saw.
pub(super) struct Client {
    pub(super) took: Duration,
    pub(super) first_byte: Duration,
}

/// `clients` that ask for one blob at the same moment, each hashing what it gets as a real one does.
pub(super) fn stampede(port: u16, path: &str, digest: &str, clients: usize) -> Result<Vec<Client>> {
    let start = Barrier::new(clients);
    std::thread::scope(|scope| {
        let one = || -> Result<Client> {
            let connection = Connection::open(port);
            start.wait();
            let began = Instant::now();
            let mut hash = Sha256::new();
            let answer = connection?.get(path, Sink::Hash(&mut hash))?;
            let seen = format!("sha256:{}", hex(&hash.finalize()));
            if seen != digest {
                return Err(format!("{path}: the bytes are of {seen}").into());
            }
            Ok(Client { took: began.elapsed(), first_byte: answer.first_byte })
        };
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a client thread panicked")?).collect()
    })
}
