//! Ten thousand connections over TLS that ask for nothing: more than may be open. Others are served, and memory has a bound.

use crate::harness::simulator::Options;
use crate::harness::tls::{Authority, Dialer, get};
use crate::harness::{Acr, Process, Setup, config_of};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, timeout};

const IDLE: usize = 10_000;
const TAG: &str = "/v2/samples/config/manifests/v1";

/// Both ends of a connection are files: one in this process, one in larder's.
fn raise_the_limit_on_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let enough = limit.maximum.is_none_or(|most| most > IDLE as u64 + 1000);
    assert!(
        enough,
        "this test opens {IDLE} connections, and the system lets it open {limit:?} files: ulimit -Hn 65536"
    );
}

fn tls_address(listen: SocketAddr) -> String {
    format!("tls://{listen}")
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_over_tls_keep_nobody_out() {
    raise_the_limit_on_open_files();
    let acr = Acr::start(Options::public()).await;
    let artifact = acr.push_artifact("samples/config", "v1", &[("f", "text/plain", Bytes::from(vec![7; 20_000_000]))]);
    let (setup, authority) = (Setup::of(&acr), Authority::new("test"));
    let pair = authority.issue(&["localhost"]);
    let (certificate, key) = (setup.file("server.pem", &pair.certificate), setup.file("server.key", &pair.key));
    let tls = format!("[server.tls]\ncertificate_file = '{}'\nkey_file = '{}'\n", certificate.display(), key.display());
    let file = setup.file("larder.toml", &(tls + &config_of(&acr.url())));
    let address = crate::harness::free_address();
    let arguments = ["--config", file.to_str().unwrap(), "--listen", &tls_address(address)];
    let larder = Process::start(&setup, &arguments).await;
    let dialer = Dialer::trusting(&authority);
    // A download is under way all the time.
    let stream = dialer.connect(address, "localhost").await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let blob = format!("/v2/samples/config/blobs/{}", artifact.layers[0]);
    let mut download = sender.send_request(get("localhost", &blob)).await.unwrap().into_body();
    let mut got = download.frame().await.unwrap().unwrap().into_data().unwrap().len();

    let config = dialer.config();
    let mut idle = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        // The session is resumed: what is tried is their number.
        idle.push(Dialer::connect_with(&config, address, "localhost").await.unwrap());
    }
    let began = Instant::now();
    let answer = timeout(Duration::from_secs(10), dialer.get(address, "localhost", TAG)).await.unwrap().unwrap();
    assert_eq!(answer.body(), &artifact.manifest);
    println!("an answer beside {IDLE} idle connections: {:?}", began.elapsed());
    while let Some(frame) = download.frame().await {
        got += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(got, 20_000_000, "the download goes on");
    let resident = resident_kib(larder.child.id());
    println!("resident: {resident} KiB");
    assert!(resident / IDLE as u64 <= 64, "{resident} KiB for {IDLE} idle connections");
}

fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}
