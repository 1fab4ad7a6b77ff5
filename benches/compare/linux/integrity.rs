//! What it costs to send only what was checked: the first send of a blob after a start against later ones, and hits while the scrub
//! hashes at its default rate.

use std::time::Duration;

use tokio::time::Instant;

use super::Result;
use super::client::{Connection, Sink, paced, percentile};
use super::content::Artifact;
use super::origin::Origin;
use super::peers::{Cores, LARDER, counted, larder, larder_with};
use super::process::Server;
use super::report::Figure;

const MIB: usize = 1 << 20;
const LARGE: usize = 8;
const SMALL: usize = 256;
const PER_SECOND: u32 = 1_000;
const HITS: Duration = Duration::from_secs(4);
/// The scrub's default rate, in bytes per second.
const SCRUB: u64 = 8 << 20;
const LATER: &str = "later sends";
const QUIET: &str = "without scrub";

pub(super) fn measure(rounds: usize) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let origin = Origin::start(0)?;
    let artifact =
        Artifact::fresh("bench/integrity", &[[64 * MIB].repeat(LARGE), [MIB].repeat(SMALL), vec![MIB / 16]].concat());
    origin.add(&artifact);
    let paths: Vec<String> = artifact.blobs[1..].iter().map(|blob| artifact.blob_path(blob)).collect();
    let (large, rest) = paths.split_at(LARGE);
    let (small, hit) = rest.split_at(SMALL);
    let hit = [artifact.manifest_path(), hit[0].clone()];
    let without_scrub = || larder_with(folder.path(), origin.port, ("LARDER_STORE__SCRUB_RATE", "\"0\""));
    let server = without_scrub()?;
    for path in hit.iter().chain(&paths) {
        Connection::open(server.port)?.get(path, Sink::Discard)?;
    }
    drop(server);
    origin.take_fetches();

    let mut of_large = Figure::new("first send of a blob after a start, 64 MiB", "CPU s/GiB");
    let mut of_small = Figure::new("first send of a blob after a start, 1 MiB", "CPU s/GiB");
    let mut wait_large = Figure::new("first send of a blob after a start, 64 MiB, to the first byte", "ms");
    let mut wait_small = Figure::new("first send of a blob after a start, 1 MiB, to the first byte", "ms");
    let mut tail = Figure::new("hit beside the scrub, p99", "ms").at_most_times(LARDER, QUIET, 2.0);
    let mut middle = Figure::new("hit beside the scrub, p50", "ms");
    let mut cpu = Figure::new("1,000 hits a second beside the scrub", "CPU s/s");
    for _ in 0..rounds {
        let server = without_scrub()?;
        counted(folder.path())?;
        for (paths, of, wait) in [(large, &mut of_large, &mut wait_large), (small, &mut of_small, &mut wait_small)] {
            for name in [LARDER, LATER] {
                let sent = send(&server, paths)?;
                of.add(name, sent.cpu);
                wait.add(name, sent.first_byte);
            }
        }
        hits(QUIET, &server, &hit, [&mut tail, &mut middle, &mut cpu])?;
        drop(server);

        let server = larder(folder.path(), origin.port, Cores::All)?;
        counted(folder.path())?;
        hits(LARDER, &server, &hit, [&mut tail, &mut middle, &mut cpu])?;
        let before = server.read()?;
        std::thread::sleep(Duration::from_secs(2));
        let read = server.read()? - before;
        if read < SCRUB {
            return Err(format!("the scrub has read no more than {read} bytes in two seconds").into());
        }
    }
    match origin.take_fetches() {
        0 => Ok(vec![of_large, wait_large, of_small, wait_small, tail, middle, cpu]),
        fetches => Err(format!("{fetches} blobs were not stored, or found damaged").into()),
    }
}

struct Sent {
    /// The server's, in seconds per GiB.
    cpu: f64,
    /// In milliseconds, the median.
    first_byte: f64,
}

#[expect(clippy::cast_precision_loss, reason = "gigabytes")]
fn send(server: &Server, paths: &[String]) -> Result<Sent> {
    let (before, mut connection) = (server.cpu()?, Connection::open(server.port)?);
    let answers: Vec<_> = paths.iter().map(|path| connection.get(path, Sink::Discard)).collect::<Result<_>>()?;
    let bytes: u64 = answers.iter().map(|answer| answer.length).sum();
    let mut first: Vec<Duration> = answers.iter().map(|answer| answer.first_byte).collect();
    let cpu = (server.cpu()? - before) / (bytes as f64 / f64::from(1 << 30));
    Ok(Sent { cpu, first_byte: percentile(&mut first, 50) })
}

/// A manifest and a blob by turns, for a while.
fn hits(name: &'static str, server: &Server, paths: &[String], [tail, middle, cpu]: [&mut Figure; 3]) -> Result<()> {
    let (began, before) = (Instant::now(), server.cpu()?);
    let mut times = paced(server.port, paths, PER_SECOND, || began.elapsed() > HITS)?;
    cpu.add(name, (server.cpu()? - before) / began.elapsed().as_secs_f64());
    tail.add(name, percentile(&mut times, 99));
    middle.add(name, percentile(&mut times, 50));
    Ok(())
}
