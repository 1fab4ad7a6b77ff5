//! Asks name servers that the operator names (`[network] dns`) for the addresses of a host, and nobody else: neither the system's
//! resolver nor its hosts file, in which a registry's own name may lead to larder.
//!
//! As much of DNS (RFC 1035) as that needs: a question for A and one for AAAA over UDP, over TCP where the answer is too long. The
//! server follows aliases; nothing is remembered, since connections are kept and names are asked for seldom. May block.

use aws_lc_rs::rand;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;
use tokio::time::Instant;

/// How long a server may take to answer; each is asked so often.
const ANSWER: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// Addresses of a name that are kept.
const MOST: usize = 64;
/// Bytes of an answer over UDP: nothing larger was asked for.
const DATAGRAM: usize = 4096;

const A: u16 = 1;
const AAAA: u16 = 28;
const IN: u16 = 1;
/// Bits of the second word of a message: a response, cut short; and where the code of a failure lies.
const RESPONSE: u16 = 0x8000;
const TRUNCATED: u16 = 0x0200;
const CODE: u16 = 0x000F;
const NO_SUCH_NAME: u16 = 3;

/// What a server says to one question.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Said {
    Addresses(Vec<IpAddr>),
    NoSuchName,
    /// It cannot or will not say, with this code.
    Failed(u16),
    /// The answer is longer than a datagram.
    Cut,
}

/// The addresses of `name`, as the first server says that answers.
pub(in crate::upstream) fn lookup(servers: &[SocketAddr], name: &str) -> io::Result<Vec<SocketAddr>> {
    let mut problem = io::Error::other("no name server is configured");
    for server in (0..ROUNDS).flat_map(|_| servers) {
        match ask(*server, name) {
            Ok(Some(addresses)) if !addresses.is_empty() => {
                return Ok(addresses.into_iter().take(MOST).map(|address| SocketAddr::new(address, 0)).collect());
            }
            Ok(Some(_)) => return Err(io::Error::other(format!("{name} has no address, says name server {server}"))),
            Ok(None) => {
                return Err(io::Error::other(format!(
                    "there is no {name}, says name server {server} of [network] dns"
                )));
            }
            Err(error) => problem = io::Error::other(format!("name server {server} of [network] dns: {error}")),
        }
    }
    Err(problem)
}

/// What one server knows; `None`: there is no such name.
fn ask(server: SocketAddr, name: &str) -> io::Result<Option<Vec<IpAddr>>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    let mut open: Vec<Question> = vec![Question::new(name, A)?, Question::new(name, AAAA)?];
    for question in &open {
        socket.send(&question.message)?;
    }
    let (mut found, mut answered, mut failure) = (Vec::new(), false, None);
    let (deadline, mut buffer) = (Instant::now() + ANSWER, [0; DATAGRAM]);
    while !open.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        // What answers no question of ours is not from the server, or too late.
        let read = |question: &Question| question.read(&buffer[..length]);
        let Some((at, said)) = open.iter().enumerate().find_map(|(at, question)| Some((at, read(question)?))) else {
            continue;
        };
        let question = open.swap_remove(at);
        let said = if said == Said::Cut { question.over_tcp(server, deadline)? } else { said };
        match said {
            Said::Addresses(addresses) => {
                found.extend(addresses);
                answered = true;
            }
            Said::NoSuchName => return Ok(None),
            // Some answer so for addresses of IPv6, which they do not know.
            Said::Failed(code) => failure = Some(code),
            Said::Cut => return Err(io::Error::other("its answer is cut short")),
        }
    }
    if let (true, Some(code)) = (found.is_empty(), failure) {
        return Err(io::Error::other(format!("it refuses to say (code {code})")));
    }
    if !answered || (found.is_empty() && !open.is_empty()) {
        return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", ANSWER.as_secs())));
    }
    // The shorter way first; connecting tries the other family soon.
    found.sort_by_key(IpAddr::is_ipv6);
    Ok(Some(found))
}

/// One question, as it is sent.
pub(in crate::upstream) struct Question {
    message: Vec<u8>,
    kind: u16,
}

impl Question {
    pub(in crate::upstream) fn new(name: &str, kind: u16) -> io::Result<Self> {
        let mut id = [0; 2];
        rand::fill(&mut id).map_err(io::Error::other)?;
        Self::with_id(id, name, kind)
    }

    pub(in crate::upstream) fn with_id(id: [u8; 2], name: &str, kind: u16) -> io::Result<Self> {
        // Recursion is wanted; one question, nothing else.
        let mut message = [&id[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
        for label in name.trim_end_matches('.').split('.') {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length));
            let length = length.ok_or_else(|| io::Error::other(format!("'{name}' is no name that DNS can hold")))?;
            message.push(length);
            message.extend_from_slice(label.as_bytes());
        }
        message.push(0);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&IN.to_be_bytes());
        Ok(Self { message, kind })
    }

    /// What a message says to this question; `None`: nothing, it answers another.
    pub(in crate::upstream) fn read(&self, message: &[u8]) -> Option<Said> {
        let asked = self.message.get(12..)?;
        let (head, rest) = message.split_at_checked(12)?;
        let (echo, mut rest) = rest.split_at_checked(asked.len())?;
        let flags = word(head, 2)?;
        if head[..2] != self.message[..2]
            || flags & RESPONSE == 0
            || word(head, 4)? != 1
            || !echo.eq_ignore_ascii_case(asked)
        {
            return None;
        }
        match flags & CODE {
            0 => {}
            NO_SUCH_NAME => return Some(Said::NoSuchName),
            code => return Some(Said::Failed(code)),
        }
        if flags & TRUNCATED != 0 {
            return Some(Said::Cut);
        }
        let mut addresses = Vec::new();
        for _ in 0..word(head, 6)? {
            rest = skip_name(rest)?;
            let (kind, class) = (word(rest, 0)?, word(rest, 2)?);
            let length = usize::from(word(rest, 8)?);
            let data = rest.get(10..10 + length)?;
            rest = &rest[10 + length..];
            if (kind, class) == (self.kind, IN) && addresses.len() < MOST {
                addresses.extend(address(kind, data));
            }
        }
        Some(Said::Addresses(addresses))
    }

    /// The same question where the answer may be of any length.
    fn over_tcp(&self, server: SocketAddr, deadline: Instant) -> io::Result<Said> {
        let left = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let mut stream = TcpStream::connect_timeout(&server, left())?;
        stream.set_write_timeout(Some(left()))?;
        let length = u16::try_from(self.message.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &self.message].concat())?;
        let mut length = [0; 2];
        read_all(&mut stream, &mut length, &left)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        read_all(&mut stream, &mut answer, &left)?;
        self.read(&answer).ok_or_else(|| io::Error::other("its answer over TCP is to another question"))
    }
}

/// Reads all of it by a deadline, however slowly it comes.
fn read_all(stream: &mut TcpStream, mut into: &mut [u8], left: &impl Fn() -> Duration) -> io::Result<()> {
    while !into.is_empty() {
        stream.set_read_timeout(Some(left()))?;
        let count = stream.read(into)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        into = &mut into[count..];
    }
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

/// What follows a name, which ends with a label of no length or with a reference to another place.
fn skip_name(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let (&length, rest) = bytes.split_first()?;
        match length {
            0 => return Some(rest),
            1..=63 => bytes = rest.get(usize::from(length)..)?,
            0xC0.. => return rest.get(1..),
            _ => return None,
        }
    }
}

fn address(kind: u16, data: &[u8]) -> Option<IpAddr> {
    match kind {
        A => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
        AAAA => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// An answer with these records, behind an alias.
    fn answer(question: &[u8], flags: u16, records: &[IpAddr]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2..4].copy_from_slice(&(RESPONSE | flags).to_be_bytes());
        let count = u16::try_from(records.len()).unwrap() + 1;
        message[6..8].copy_from_slice(&count.to_be_bytes());
        // The name asked for is an alias of "x".
        message.extend_from_slice(&[0xC0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 3, 1, b'x', 0]);
        for record in records {
            let (kind, data) = match record {
                IpAddr::V4(address) => (A, address.octets().to_vec()),
                IpAddr::V6(address) => (AAAA, address.octets().to_vec()),
            };
            message.extend_from_slice(&[1, b'x', 0]);
            message.extend_from_slice(&kind.to_be_bytes());
            message.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
            message.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
            message.extend_from_slice(&data);
        }
        message
    }

    fn kind(question: &[u8]) -> u16 {
        word(question, question.len() - 4).unwrap()
    }

    /// A name server that answers as `reply` says; how often it was asked.
    fn server(reply: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (address, asked) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                for message in reply(&buffer[..length]) {
                    let _ = socket.send_to(&message, client);
                }
            }
        });
        (address, asked)
    }

    fn ips(found: io::Result<Vec<SocketAddr>>) -> Vec<String> {
        found.unwrap().iter().map(|address| address.ip().to_string()).collect()
    }

    fn both(question: &[u8]) -> Vec<Vec<u8>> {
        let records: &[IpAddr] =
            if kind(question) == A { &[[10, 0, 0, 7].into()] } else { &[Ipv6Addr::LOCALHOST.into()] };
        vec![answer(question, 0, records)]
    }

    #[test]
    fn both_kinds_of_addresses_are_found_behind_an_alias() {
        let (address, _) = server(both);
        assert_eq!(ips(lookup(&[address], "myacr.azurecr.io")), ["10.0.0.7", "::1"]);
    }

    #[test]
    fn what_answers_another_question_is_not_believed() {
        let (address, _) = server(|question| {
            let mut forged = answer(question, 0, &[[6, 6, 6, 6].into()]);
            forged[0] ^= 1;
            let mut other = question.to_vec();
            other[14] ^= 2;
            vec![
                forged,
                answer(&other, 0, &[[6, 6, 6, 6].into()]),
                question.to_vec(),
                b"x".to_vec(),
                both(question).remove(0),
            ]
        });
        assert_eq!(ips(lookup(&[address], "myacr.azurecr.io")), ["10.0.0.7", "::1"]);
    }

    #[test]
    fn the_next_server_is_asked_when_one_refuses_or_is_silent_and_not_when_there_is_no_such_name() {
        let (refusing, _) = server(|question| vec![answer(question, 5, &[])]);
        let (silent, silences) = server(|_| Vec::new());
        let (good, asked) = server(both);
        assert_eq!(ips(lookup(&[refusing, silent, good], "a.lan")).len(), 2);
        assert_eq!((silences.load(Ordering::SeqCst), asked.load(Ordering::SeqCst)), (2, 2));
        let (missing, _) = server(|question| vec![answer(question, NO_SUCH_NAME, &[])]);
        let error = lookup(&[missing, good], "a.lan").unwrap_err().to_string();
        assert!(error.contains("there is no a.lan") && error.contains(&missing.to_string()), "{error}");
        let (empty, _) = server(|question| vec![answer(question, 0, &[])]);
        assert!(lookup(&[empty, good], "a.lan").unwrap_err().to_string().contains("no address"));
    }

    #[test]
    fn one_family_is_enough_and_silence_ends_after_two_seconds_each_time() {
        let (v4_only, _) = server(|question| if kind(question) == A { both(question) } else { Vec::new() });
        assert_eq!(ips(lookup(&[v4_only], "a.lan")), ["10.0.0.7"]);
        let (silent, asked) = server(|_| Vec::new());
        let began = Instant::now();
        let error = lookup(&[silent], "a.lan").unwrap_err().to_string();
        assert!(error.contains("no answer within 2 s") && error.contains("[network] dns"), "{error}");
        assert!(began.elapsed() < ANSWER * 3 && asked.load(Ordering::SeqCst) == 4, "{:?}", began.elapsed());
    }

    #[test]
    fn a_long_answer_comes_over_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(address).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&answer(&buffer[..length], TRUNCATED, &[]), client);
            }
        });
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut question = vec![0; 2];
                stream.read_exact(&mut question).unwrap();
                question.resize(usize::from(word(&question, 0).unwrap()), 0);
                stream.read_exact(&mut question).unwrap();
                let many: Vec<IpAddr> = (0..100).map(|last| IpAddr::from([10, 0, 0, last])).collect();
                let message = answer(&question, 0, if kind(&question) == A { &many } else { &[] });
                stream.write_all(&u16::try_from(message.len()).unwrap().to_be_bytes()).unwrap();
                // In two pieces.
                stream.write_all(&message[..20]).unwrap();
                stream.write_all(&message[20..]).unwrap();
            }
        });
        assert_eq!(lookup(&[address], "a.lan").unwrap().len(), MOST);
    }

    #[test]
    fn names_that_dns_cannot_hold_are_asked_for_nowhere() {
        for name in ["", ".", "a..b", &"x".repeat(64)] {
            assert!(Question::new(name, A).is_err(), "{name:?}");
        }
    }
}
