//! A push through larder against the same push to the upstream itself.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::Result;
use super::content::{Blob, hex};
use super::peers::{Cores, LARDER, REGISTRY, empty_registry, larder_that_pushes};
use super::report::Figure;

const DIRECT: &str = "direct";
const SIZE: usize = 256 << 20;
/// A gigabit of network.
const RATE: u64 = 128 << 20;
/// 0.95 of a direct push's speed.
const MOST: f64 = 1.0 / 0.95;
const PIECE: usize = 128 << 10;

#[derive(Clone, Copy)]
enum Way {
    /// One `PUT` with everything, as ORAS pushes.
    Put,
    /// A streamed `PATCH` and an empty `PUT`, as docker and podman push.
    Patch,
}

pub(super) fn measure(rounds: usize) -> Result<Vec<Figure>> {
    let at_network_speed = |name| Figure::new(name, "s").at_most_times(LARDER, DIRECT, MOST);
    let put = at_network_speed("push in one PUT, 256 MiB, upstream at 128 MiB/s");
    let patch = at_network_speed("push in a streamed PATCH, 256 MiB, upstream at 128 MiB/s");
    let registry = Figure::new("push in one PUT, 256 MiB, to docker-registry on the same machine", "s");
    let sink = sink()?;
    Ok(vec![
        compare(put, sink, Way::Put, rounds)?,
        compare(patch, sink, Way::Patch, rounds)?,
        compare_registry(registry, rounds)?,
    ])
}

fn compare(mut figure: Figure, upstream: u16, way: Way, rounds: usize) -> Result<Figure> {
    let folder = tempfile::tempdir()?;
    let larder = larder_that_pushes(folder.path(), upstream, Cores::All)?;
    for _ in 0..rounds {
        for (name, port) in [(DIRECT, upstream), (LARDER, larder.port)] {
            figure.add(name, push(port, &Blob::fresh(SIZE), way).map_err(|error| format!("{name}: {error}"))?);
        }
    }
    Ok(figure)
}

fn compare_registry(mut figure: Figure, rounds: usize) -> Result<Figure> {
    let folder = tempfile::tempdir()?;
    let registry = empty_registry(folder.path())?;
    let larder = larder_that_pushes(folder.path(), registry.port, Cores::All)?;
    for _ in 0..rounds {
        for (name, port) in [(REGISTRY, registry.port), (LARDER, larder.port)] {
            figure.add(name, push(port, &Blob::fresh(SIZE), Way::Put).map_err(|error| format!("{name}: {error}"))?);
        }
    }
    Ok(figure)
}

/// Seconds from the first request to the 201.
fn push(port: u16, blob: &Blob, way: Way) -> Result<f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    let began = Instant::now();
    let empty = "Content-Length: 0\r\n";
    stream.write_all(request("POST", "/v2/bench/push/blobs/uploads/", empty).as_bytes())?;
    let mut location = answer(&mut stream, "202")?;
    let length = blob.bytes.len();
    if let Way::Patch = way {
        stream.write_all(request("PATCH", &location, "Transfer-Encoding: chunked\r\n").as_bytes())?;
        for piece in blob.bytes.chunks(PIECE) {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
            stream.write_all(piece)?;
            stream.write_all(b"\r\n")?;
        }
        stream.write_all(b"0\r\n\r\n")?;
        location = answer(&mut stream, "202")?;
    }
    let joint = if location.contains('?') { '&' } else { '?' };
    let end = format!("{location}{joint}digest={}", blob.digest);
    match way {
        Way::Patch => stream.write_all(request("PUT", &end, empty).as_bytes())?,
        Way::Put => {
            stream.write_all(request("PUT", &end, &format!("Content-Length: {length}\r\n")).as_bytes())?;
            stream.write_all(&blob.bytes)?;
        }
    }
    answer(&mut stream, "201")?;
    Ok(began.elapsed().as_secs_f64())
}

fn request(method: &str, target: &str, lines: &str) -> String {
    // Some registries answer with a whole address.
    let path = target.find("/v2/").map_or(target, |at| &target[at..]);
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

/// Reads the head of an answer without a body, and gives its `Location`.
fn answer(stream: &mut TcpStream, status: &str) -> Result<String> {
    let head = head(stream)?.ok_or("the connection ended before the answer")?;
    if !head.starts_with(&format!("HTTP/1.1 {status}")) {
        return Err(format!("answered {}", head.lines().next().unwrap_or_default()).into());
    }
    Ok(field(&head, "location").unwrap_or_default().to_owned())
}

/// `None`: the connection has ended.
fn head(stream: &mut TcpStream) -> Result<Option<String>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    Ok(Some(String::from_utf8(head)?))
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// An upstream that hashes what it is sent, at the speed of a network, and says yes if the digest holds.
fn sink() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        let hash = Arc::new(Mutex::new(Sha256::new()));
        for stream in listener.incoming().flatten() {
            let hash = Arc::clone(&hash);
            std::thread::spawn(move || {
                if let Err(error) = serve(stream, &hash) {
                    println!("the upstream of the pushes: {error}");
                }
            });
        }
    });
    Ok(port)
}

fn serve(mut stream: TcpStream, hash: &Mutex<Sha256>) -> Result<()> {
    stream.set_nodelay(true)?;
    while let Some(head) = head(&mut stream)? {
        let line = head.lines().next().unwrap_or_default().to_owned();
        // One push at a time: the hash is that of the upload that runs.
        let mut hash = hash.lock().map_err(|_| "a push panicked")?;
        if line.starts_with("POST") {
            *hash = Sha256::new();
        }
        take_body(&mut stream, &head, &mut hash)?;
        let wanted = line.split("digest=").nth(1).and_then(|rest| rest.split_whitespace().next());
        let status = match wanted {
            _ if line.starts_with("GET") => "200 OK",
            None => "202 Accepted\r\nLocation: /v2/bench/push/blobs/uploads/1?_state=x",
            Some(wanted) if wanted.replace("%3A", ":") == format!("sha256:{}", hex(&hash.clone().finalize())) => {
                "201 Created"
            }
            Some(_) => "400 Bad Request",
        };
        let answer =
            format!("HTTP/1.1 {status}\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}

fn take_body(stream: &mut TcpStream, head: &str, hash: &mut Sha256) -> Result<()> {
    let began = Instant::now();
    let mut taken = 0;
    if field(head, "transfer-encoding").is_some() {
        loop {
            let mut size = Vec::new();
            let mut byte = [0];
            while !size.ends_with(b"\r\n") {
                stream.read_exact(&mut byte)?;
                size.push(byte[0]);
            }
            let size = u64::from_str_radix(std::str::from_utf8(&size)?.trim(), 16)?;
            take(stream, size, hash, (&mut taken, began))?;
            stream.read_exact(&mut [0; 2])?;
            if size == 0 {
                return Ok(());
            }
        }
    }
    let length = field(head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    take(stream, length, hash, (&mut taken, began))
}

fn take(stream: &mut TcpStream, mut left: u64, hash: &mut Sha256, (taken, began): (&mut u64, Instant)) -> Result<()> {
    let mut buffer = vec![0; PIECE];
    while left > 0 {
        let most = usize::try_from(left)?.min(PIECE);
        let got = stream.read(&mut buffer[..most])?;
        if got == 0 {
            return Err("a body ended early".into());
        }
        hash.update(&buffer[..got]);
        left -= got as u64;
        *taken += got as u64;
        let due = Duration::from_nanos(*taken * 1_000_000_000 / RATE);
        if let Some(ahead) = due.checked_sub(began.elapsed()) {
            std::thread::sleep(ahead);
        }
    }
    Ok(())
}
