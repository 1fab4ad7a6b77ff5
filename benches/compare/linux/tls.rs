//! What is stored, over TLS 1.3: the server's CPU for a GiB of blobs and for a handshake, and memory for downloads that wait.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::time::Instant;

use super::Result;
use super::client::{Connection, Sink, pin};
use super::content::Artifact;
use super::origin::Origin;
use super::peers::{LARDER, NGINX, larder_over_tls, nginx_over_tls};
use super::process::Server;
use super::report::Figure;

const MIB: usize = 1 << 20;
/// Handshakes a second, beside a download that is read at `RATE` bytes a second.
const STORM: u32 = 1000;
const RATE: f64 = 64.0 * 1_048_576.0;
/// Downloads that nobody reads.
const WAITING: usize = 200;

/// A certificate for 127.0.0.1, as files.
pub(super) struct Certificate {
    pub(super) file: PathBuf,
    pub(super) key: PathBuf,
    trusted: Arc<ClientConfig>,
}

impl Certificate {
    fn make(folder: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let (file, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        fs::write(&file, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into());
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        // Each handshake is a whole one.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self { file, key, trusted: Arc::new(config) })
    }

    fn connect(&self, port: u16) -> Result<StreamOwned<ClientConnection, TcpStream>> {
        let name = ServerName::try_from("127.0.0.1")?;
        let mut session = ClientConnection::new(Arc::clone(&self.trusted), name)?;
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(session, stream))
    }
}

pub(super) fn measure(rounds: usize) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let origin = Origin::start(0)?;
    let artifact = Artifact::fresh("bench/tls", &[64 * MIB, MIB]);
    origin.add(&artifact);
    let certificate = Certificate::make(folder.path())?;
    let servers = [
        (LARDER, larder_over_tls(folder.path(), origin.port, &certificate)?),
        (NGINX, nginx_over_tls(folder.path(), &artifact, &certificate)?),
    ];
    let (large, small) = (artifact.blob_path(&artifact.blobs[1]), artifact.blob_path(&artifact.blobs[2]));
    for (_, (server, _)) in &servers {
        for path in [&large, &small] {
            Connection::open(server.port)?.get(path, Sink::Discard)?;
        }
    }
    let mut of_large = Figure::new("blob hit over TLS, 64 MiB", "CPU s/GiB").at_most_times(LARDER, NGINX, 0.7);
    let mut of_small = Figure::new("blob hit over TLS, 1 MiB", "CPU s/GiB");
    let mut of_shakes = Figure::new("TLS handshake and a blob hit of 1 MiB", "CPU µs");
    let mut of_beside = Figure::new("download of 64 MiB/s over TLS beside 1,000 handshakes/s", "times its time alone")
        .at_most(LARDER, 1.1);
    let mut of_waiting = Figure::new("memory of a download over TLS that waits", "KiB").at_most(LARDER, 128.0);
    for round in 0..=rounds {
        for (name, (server, port)) in &servers {
            let failed = |error| format!("{name}: {error}\n{}", server.last_words());
            let samples = [
                (&mut of_large, per_gib(server, *port, &certificate, &large, 16).map_err(failed)?),
                (&mut of_small, per_gib(server, *port, &certificate, &small, 512).map_err(failed)?),
                (&mut of_shakes, per_handshake(server, *port, &certificate, &small).map_err(failed)?),
                (&mut of_beside, beside_handshakes(*port, &certificate, &large).map_err(failed)?),
            ];
            for (figure, sample) in samples.into_iter().filter(|_| round > 0) {
                figure.add(name, sample);
            }
        }
    }
    for (name, (server, port)) in &servers {
        of_waiting.add(name, per_waiting(server, *port, &certificate, &large)?);
    }
    Ok(vec![of_large, of_small, of_shakes, of_beside, of_waiting])
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// One GET on a kept connection: the bytes of its body, which are thrown away.
fn get(stream: &mut Stream, path: &str, buffer: &mut [u8]) -> Result<u64> {
    read(stream, path, buffer, |_| {})
}

/// The same; `each` is told how many bytes of the body each read brought.
fn read(stream: &mut Stream, path: &str, buffer: &mut [u8], mut each: impl FnMut(usize)) -> Result<u64> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut head = Vec::new();
    let (length, mut left) = loop {
        let got = stream.read(buffer)?;
        head.extend_from_slice(&buffer[..got]);
        if let Some(at) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&head[..at]).to_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: u64 = length.ok_or("no Content-Length")?.trim().parse()?;
            break (length, length - (head.len() - at - 4) as u64);
        }
        if got == 0 {
            return Err("the connection ended before the head did".into());
        }
    };
    while left > 0 {
        let got = stream.read(buffer)?;
        if got == 0 {
            return Err("the body ended early".into());
        }
        each(got);
        left -= got as u64;
    }
    Ok(length)
}

#[expect(clippy::cast_precision_loss, reason = "gigabytes")]
fn per_gib(server: &Server, port: u16, certificate: &Certificate, path: &str, requests: usize) -> Result<f64> {
    let before = server.cpu()?;
    let one = || -> Result<u64> {
        pin();
        let (mut stream, mut buffer) = (certificate.connect(port)?, vec![0; 256 << 10]);
        (0..requests / 2).map(|_| get(&mut stream, path, &mut buffer)).sum()
    };
    let bytes: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a load thread panicked")?).sum::<Result<u64>>()
    })?;
    Ok((server.cpu()? - before) / (bytes as f64 / f64::from(1 << 30)))
}

fn per_handshake(server: &Server, port: u16, certificate: &Certificate, path: &str) -> Result<f64> {
    let (before, mut buffer) = (server.cpu()?, vec![0; 256 << 10]);
    for _ in 0..200 {
        get(&mut certificate.connect(port)?, path, &mut buffer)?;
    }
    Ok((server.cpu()? - before) * 1e6 / 200.0)
}

/// How much longer a download takes, which is read as a link of `RATE` would, while others do nothing but begin connections.
fn beside_handshakes(port: u16, certificate: &Certificate, path: &str) -> Result<f64> {
    let alone = paced_download(port, certificate, path)?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let storm = || -> Result<u32> {
            pin();
            let (began, each) = (Instant::now(), Duration::from_secs(1) * 4 / STORM);
            let mut made = 0;
            while !over.load(Ordering::Relaxed) {
                let due = began + each * made;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                certificate.connect(port)?;
                made += 1;
            }
            Ok(made)
        };
        let storms: Vec<_> = (0..4).map(|_| scope.spawn(storm)).collect();
        let beside = paced_download(port, certificate, path);
        over.store(true, Ordering::Relaxed);
        let made: Result<Vec<u32>> =
            storms.into_iter().map(|storm| storm.join().map_err(|_| "a load thread panicked")?).collect();
        let (beside, made) = (beside?, f64::from(made?.iter().sum::<u32>()));
        let rate = made / beside.as_secs_f64();
        if rate < 0.8 * f64::from(STORM) {
            return Err(format!("only {rate:.0} handshakes/s were made: this machine is too small or too busy").into());
        }
        Ok(beside.as_secs_f64() / alone.as_secs_f64())
    })
}

/// Twice the blob at `RATE`.
#[expect(clippy::cast_precision_loss, reason = "kilobytes")]
fn paced_download(port: u16, certificate: &Certificate, path: &str) -> Result<Duration> {
    let (mut stream, mut buffer) = (certificate.connect(port)?, vec![0; 64 << 10]);
    let began = Instant::now();
    let mut due = began;
    for _ in 0..2 {
        read(&mut stream, path, &mut buffer, |got| {
            due += Duration::from_secs(1).mul_f64(got as f64 / RATE);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        })?;
    }
    Ok(began.elapsed())
}

/// What the process grows by for a download whose client reads nothing.
#[expect(clippy::cast_precision_loss, reason = "kilobytes")]
fn per_waiting(server: &Server, port: u16, certificate: &Certificate, path: &str) -> Result<f64> {
    let before = server.resident()?;
    let mut waiting = Vec::new();
    for _ in 0..WAITING {
        let mut stream = certificate.connect(port)?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
        stream.flush()?;
        waiting.push(stream);
    }
    std::thread::sleep(Duration::from_secs(3));
    Ok(server.resident()?.saturating_sub(before) as f64 / 1024.0 / WAITING as f64)
}
