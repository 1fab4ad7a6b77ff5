//! How the program ends: what runs may finish, what hangs does not hold it up, a second signal means now, and what a stop cut
//! short goes on at the next start.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::harness;

use harness::simulator::{Options, samples};
use harness::{Acr, Process, Setup, Streaming, raw, until};
use rustix::process::Signal;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

const MIB: usize = 1 << 20;
/// "At once", on a machine that is busy with other things as well; well below the drain of 30 s.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A registry with one blob behind a link of so many bytes per second, and where the blob is.
async fn registry(size: usize, rate: u64) -> (Acr, String) {
    let acr = Acr::start(Options::public()).await;
    let digest = acr.push_blob("app", samples::incompressible(7, size));
    acr.knobs().turn(|knobs| knobs.total_rate = Some(rate));
    (acr, format!("/v2/app/blobs/{digest}"))
}

async fn start(setup: &Setup, url: &str) -> Process {
    Process::start(setup, &["--upstream", url, "--login", "anonymous"]).await
}

/// Whatever a shell or a container gave it: what the system allows is what it has.
#[tokio::test]
async fn the_limit_on_open_files_is_raised() {
    let (acr, _) = registry(MIB, MIB as u64).await;
    let setup = Setup::of(&acr);
    let larder = Process::start_with(&setup, &["--upstream", &acr.url(), "--login", "anonymous"], |command| {
        let mut limited = Command::new("sh");
        limited
            .args(["-c", "ulimit -S -n 300 && exec \"$@\"", "sh"])
            .arg(command.get_program())
            .args(command.get_args());
        limited.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        limited.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        *command = limited;
    })
    .await;
    let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    assert_eq!(larder.metric("process_max_fds").await, allowed.min(65_536));
}

/// A download that has begun.
async fn begin(larder: &Process, target: &str) -> Streaming {
    let mut answer = larder.client().call("GET", target).open().await;
    assert_eq!(answer.status, 200);
    answer.at_least(1).await;
    answer
}

async fn drains(larder: &Process) {
    until("the drain begins", || larder.stderr().contains("no new connections")).await;
}

async fn ends_well(larder: &mut Process, within: Duration) {
    let status = larder.ended(within).await.unwrap_or_else(|| panic!("it still runs: {}", larder.stderr()));
    assert_eq!(status.code(), Some(0), "{}", larder.stderr());
}

async fn a_signal_finishes_what_runs(signal: Signal) {
    let (acr, target) = registry(4 * MIB, 2 * MIB as u64).await;
    let setup = Setup::of(&acr);
    let mut larder = start(&setup, &acr.url()).await;
    let download = begin(&larder, &target).await;
    larder.signal(signal);
    drains(&larder).await;
    assert!(TcpStream::connect(larder.address).await.is_err(), "a new connection is taken");
    let ready = harness::Client::new(larder.admin).call("GET", "/readyz").send().await;
    assert_eq!(ready.status, 503, "what sends traffic here must learn of it");
    let answer = download.rest().await.expect("a running download finishes");
    assert_eq!(answer.headers["content-length"], (4 * MIB).to_string());
    ends_well(&mut larder, AT_ONCE).await;
    assert!(setup.store().join(target.replace("/v2/app/blobs/sha256:", "blobs/sha256/")).exists(), "and it is stored");
}

#[tokio::test]
async fn sigterm_lets_a_running_download_finish() {
    a_signal_finishes_what_runs(Signal::TERM).await;
}

#[tokio::test]
async fn sigint_does_the_same() {
    a_signal_finishes_what_runs(Signal::INT).await;
}

#[tokio::test]
async fn a_second_signal_stops_at_once_and_the_next_start_goes_on() {
    let (acr, target) = registry(8 * MIB, MIB as u64).await;
    let setup = Setup::of(&acr);
    let mut larder = start(&setup, &acr.url()).await;
    let mut download = begin(&larder, &target).await;
    download.at_least(MIB / 2).await;
    larder.signal(Signal::TERM);
    drains(&larder).await;
    larder.signal(Signal::TERM);
    ends_well(&mut larder, AT_ONCE).await;
    download.rest().await.expect_err("a download that was cut does not look whole");

    acr.knobs().turn(|knobs| knobs.total_rate = None);
    let larder = start(&setup, &acr.url()).await;
    let answer = larder.client().call("GET", &target).send().await;
    assert_eq!(answer.status, 200);
    let bodies: Vec<_> = acr.log().into_iter().filter(harness::simulator::Seen::is_blob_body).collect();
    let resumed = bodies.last().and_then(|seen| seen.range.clone()).expect("the rest is asked for, not all of it");
    let offset: usize = resumed.strip_prefix("bytes=").and_then(|r| r.strip_suffix('-')).unwrap().parse().unwrap();
    assert!(offset >= MIB / 2, "what a reader had is kept: {resumed}");
    assert_eq!(bodies.len(), 2, "{bodies:?}");
}

#[tokio::test]
async fn the_deadline_cuts_a_download_that_takes_longer() {
    let (acr, target) = registry(8 * MIB, MIB as u64 / 4).await;
    let setup = Setup::of(&acr);
    let text = format!("[server]\ndrain = \"1s\"\n{}", harness::config_of(&acr.url()));
    let file = setup.file("larder.toml", &text);
    let mut larder = Process::start(&setup, &["--config", file.to_str().unwrap()]).await;
    let download = begin(&larder, &target).await;
    let began = Instant::now();
    larder.signal(Signal::TERM);
    ends_well(&mut larder, AT_ONCE).await;
    assert!(began.elapsed() >= Duration::from_millis(900), "it had a second");
    download.rest().await.expect_err("a download that was cut does not look whole");
}

#[tokio::test]
async fn nothing_that_only_waits_holds_up_a_drain() {
    let (acr, target) = registry(MIB, 64 * MIB as u64).await;
    let setup = Setup::of(&acr);
    let mut larder = start(&setup, &acr.url()).await;
    let address = larder.address;
    let mut kept_alive = raw::send(address, format!("GET /v2/ HTTP/1.1\r\nHost: {address}\r\n\r\n")).await;
    let mut some = [0; 12];
    kept_alive.read_exact(&mut some).await.unwrap();
    assert_eq!(&some, b"HTTP/1.1 200");
    let waiting = [
        raw::send(address, "").await,
        raw::send(address, "GET /v2/ HT").await,
        raw::send(address, "GET /v2/ HTTP/1.1\r\nHost: a").await,
        raw::send(address, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await,
        raw::send(address, "PRI * HTT").await,
        raw::send(address, [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]).await,
        // A preface with its SETTINGS: a whole HTTP/2 connection without a stream.
        raw::send(address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await,
        // A body that was announced and does not come.
        raw::send(address, format!("PUT /v2/x HTTP/1.1\r\nHost: {address}\r\nContent-Length: 9\r\n\r\n")).await,
    ];
    // All of them are seen: one more request is answered after them.
    assert_eq!(larder.client().call("GET", &target).send().await.status, 200);
    larder.signal(Signal::TERM);
    ends_well(&mut larder, AT_ONCE).await;
    drop((waiting, kept_alive));
}

#[tokio::test]
async fn a_reader_that_stands_still_is_cut_at_the_deadline() {
    let (acr, target) = registry(32 * MIB, 256 * MIB as u64).await;
    let setup = Setup::of(&acr);
    let text = format!("[server]\ndrain = \"1s\"\n{}", harness::config_of(&acr.url()));
    let file = setup.file("larder.toml", &text);
    let mut larder = Process::start(&setup, &["--config", file.to_str().unwrap()]).await;
    let still = begin(&larder, &target).await;
    larder.signal(Signal::TERM);
    ends_well(&mut larder, AT_ONCE).await;
    still.rest().await.expect_err("a download that was cut does not look whole");
}

#[tokio::test]
async fn a_program_that_cannot_start_says_so_in_its_exit_code() {
    let (acr, _) = registry(1, 1).await;
    let setup = Setup::of(&acr);
    let _first = start(&setup, &acr.url()).await;
    let mut second = tokio::process::Command::new(env!("CARGO_BIN_EXE_larder"));
    second.env_clear().args(["serve", "--upstream", &acr.url(), "--login", "anonymous", "--store"]);
    second.arg(setup.store()).args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let output = second.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("process") && said.contains(setup.store().to_str().unwrap()), "who holds the store: {said}");
}
