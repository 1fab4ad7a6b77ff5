//! Hosts that say nothing at all, not even that nobody is there: a full queue, a stopped process, connections that died in
//! silence, names that are gone.

use crate::harness::simulator::Options;
use crate::harness::{Acr, Larder, Process, Setup, config_of, until_async};
use bytes::Bytes;
use std::fmt::Write as _;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

const AT_ONCE: Duration = Duration::from_millis(700);

/// An address where packets vanish: somebody listens, never accepts, and the queue is full, so that the kernel drops every SYN.
pub(super) struct Blackhole {
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Blackhole {
    /// Takes the place of who has just stopped listening at `host`.
    pub(super) async fn at(host: &str) -> Self {
        let address = host.parse().unwrap();
        let listener = loop {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            match socket.bind(address).and_then(|()| socket.listen(1)) {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let mut queued = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            queued.push(stream);
            assert!(queued.len() < 100, "the queue never fills");
        }
        Self { _listener: listener, _queued: queued }
    }
}

fn push(acr: &Acr, tag: &str) -> String {
    let content = Bytes::from(format!("content of {tag}"));
    acr.push_artifact("a/b", tag, &[("x", "text/plain", content)]).layers[0].clone()
}

fn tag(tag: &str) -> String {
    format!("/v2/a/b/manifests/{tag}")
}

/// Hits, an expired tag and a list while nobody answers; whoever waits, waits once.
async fn stands_in(larder: &Larder, blob: &str) {
    let mut waited = 0;
    for _ in 0..10 {
        for target in [tag("v1"), "/v2/a/b/tags/list".to_owned(), format!("/v2/a/b/blobs/{blob}")] {
            let begun = Instant::now();
            let answer = larder.get(&target).await;
            assert_eq!(answer.status, 200, "{target}");
            assert!(begun.elapsed() < Duration::from_secs(1) + AT_ONCE, "{target} took {:?}", begun.elapsed());
            waited += usize::from(begun.elapsed() > AT_ONCE);
        }
    }
    assert!(waited <= 1, "{waited} requests waited");
}

async fn recovers(larder: &Larder, fresh: &str, within: Duration) {
    let begun = Instant::now();
    until_async("what is new comes again", async || larder.get(&tag(fresh)).await.status == 200).await;
    until_async("the tag is not stale any more", async || larder.get(&tag("v1")).await.header("warning").is_none())
        .await;
    assert!(begun.elapsed() < within, "recovery took {:?}", begun.elapsed());
}

async fn warm(setup: Setup, blob: &str) -> Larder {
    let setup = setup.upstream(|upstream| {
        upstream.freshness.tag_ttl = Duration::ZERO;
        upstream.connect_timeout = Duration::from_secs(2);
        upstream.first_byte_timeout = Duration::from_secs(2);
    });
    let larder = setup.start().await;
    for target in [tag("v1"), "/v2/a/b/tags/list".to_owned(), format!("/v2/a/b/blobs/{blob}")] {
        assert_eq!(larder.get(&target).await.status, 200, "{target}");
    }
    larder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_queue_is_full_costs_one_wait_and_a_start_serves_what_is_stored() {
    let acr = Acr::start(Options::public()).await;
    let blob = push(&acr, "v1");
    let larder = warm(Setup::of(&acr), &blob).await;
    acr.stop_listening();
    let hole = Blackhole::at(&acr.host()).await;
    stands_in(&larder, &blob).await;
    let larder = larder.stop().await.start().await;
    stands_in(&larder, &blob).await;
    let (status, _, message) = larder.get(&tag("none")).await.error();
    assert_eq!(status, 504, "{message}");
    assert!(message.contains("no connection to"), "{message}");
    drop(hole);
    acr.resume_listening();
    push(&acr, "v2");
    recovers(&larder, "v2", Duration::from_secs(14)).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_process_that_is_stopped_costs_one_wait_and_is_found_well_again() {
    use rustix::process::Signal;
    let acr = Acr::start(Options::public()).await;
    let blob = push(&acr, "v1");
    // A larder is as good an upstream as any, and a process.
    let behind = Setup::of(&acr);
    let process = Process::start(&behind, &["--upstream", &acr.url()]).await;
    let larder = warm(Setup::at(&format!("http://{}", process.address)), &blob).await;
    process.signal(Signal::STOP);
    stands_in(&larder, &blob).await;
    let (status, _, message) = larder.get(&tag("none")).await.error();
    assert_eq!(status, 504, "{message}");
    process.signal(Signal::CONT);
    push(&acr, "v2");
    recovers(&larder, "v2", Duration::from_secs(14)).await;
}

/// Carries connections to `target` until it is told to forget them: then it neither carries nor closes what is open.
async fn lossy_line(target: String) -> (String, tokio::sync::watch::Sender<u32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (losses, seen) = tokio::sync::watch::channel(0_u32);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (target, mut seen) = (target.clone(), seen.clone());
            tokio::spawn(async move {
                let mut far = TcpStream::connect(target).await.unwrap();
                let born = *seen.borrow_and_update();
                let lost = async { drop(seen.wait_for(|now| *now > born).await) };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = lost => tokio::time::sleep(Duration::from_secs(600)).await,
                }
            });
        }
    });
    (format!("http://{address}"), losses)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_died_in_silence_cost_one_wait_together() {
    let acr = Acr::start(Options { knobs: direct(), ..Options::public() }).await;
    acr.forgive();
    let blob = push(&acr, "v1");
    for number in 0..8 {
        push(&acr, &format!("early{number}"));
    }
    let (url, losses) = lossy_line(acr.host()).await;
    let larder = warm(Setup::at(&url), &blob).await;
    // Several connections are kept.
    let asking: Vec<_> =
        (0..8).map(|number| tokio::spawn(larder.call("GET", &tag(&format!("early{number}"))).send())).collect();
    for one in asking {
        assert_eq!(one.await.unwrap().status, 200);
    }
    losses.send_modify(|losses| *losses += 1);
    push(&acr, "v2");
    let begun = Instant::now();
    until_async("new connections are made", async || larder.get(&tag("v2")).await.status == 200).await;
    // One request finds out, after its 2 s; with each kept connection to be found out by itself it would be 16 s.
    assert!(begun.elapsed() < Duration::from_secs(6), "it took {:?}", begun.elapsed());
}

fn direct() -> crate::harness::simulator::Settings {
    use crate::harness::simulator::{Redirect, Settings};
    Settings { redirect: Redirect::Direct, ..Settings::default() }
}

/// A process whose hosts file is its own, and which has no name servers.
#[cfg(target_os = "linux")]
async fn with_hosts_of_its_own(setup: &Setup, acr: &Acr) -> (Process, std::path::PathBuf) {
    use std::process::Stdio;
    let hosts = setup.file("hosts", "127.0.0.1 localhost registry.example\n");
    let mut script = String::new();
    write!(script, "mount --bind '{}' /etc/hosts", hosts.display()).unwrap();
    script.push_str(" && { [ ! -e /etc/resolv.conf ] || mount --bind /dev/null /etc/resolv.conf; }");
    script.push_str(" && exec \"$@\"");
    let url = acr.url().replace("127.0.0.1", "registry.example");
    let config = setup.file("larder.toml", &format!("{}freshness = {{ tag_ttl = \"0s\" }}\n", config_of(&url)));
    let arguments = ["--config", config.to_str().unwrap()];
    let process = Process::start_with(setup, &arguments, |command| {
        let mut wrapped = crate::harness::namespace::unshare(&["--mount"]);
        wrapped.args(["sh", "-c", &script, "sh"]);
        wrapped.arg(command.get_program()).args(command.get_args());
        // Nothing of the tests' own settings, which larder would take for its.
        wrapped.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        wrapped.env("HOME", setup.folder.path()).env("LARDER_LOG_FORMAT", "json");
        wrapped.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        *command = wrapped;
    });
    (process.await, hosts)
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_stops_resolving_leaves_what_is_stored_and_is_found_again() {
    let acr = Acr::start(Options::public()).await;
    push(&acr, "v1");
    let setup = Setup::of(&acr);
    let (larder, hosts) = with_hosts_of_its_own(&setup, &acr).await;
    let get = |reference: &str| larder.client().call("GET", &tag(reference)).send();
    assert_eq!(get("v1").await.status, 200);
    std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    // Kept connections need no name; these end.
    acr.stop_listening();
    acr.resume_listening();
    for _ in 0..5 {
        let stale = get("v1").await;
        assert_eq!(stale.status, 200);
        assert!(stale.cache_status().ends_with("detail=stale"), "{}", stale.cache_status());
        let (status, _, message) = get("none").await.error();
        assert_eq!(status, 504, "{message}");
        assert!(message.contains("registry.example"), "{message}");
    }
    std::fs::write(&hosts, "127.0.0.1 localhost registry.example\n").unwrap();
    push(&acr, "v2");
    until_async("the name is found again", async || get("v2").await.status == 200).await;
    assert!(get("v1").await.header("warning").is_none());
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_program_that_hangs_leaves_what_is_stored() {
    use larder::config::{CredentialSettings, DockerLogins};
    let acr = Acr::start(Options::private("ci", "pw")).await;
    acr.forgive();
    let blob = push(&acr, "v1");
    let setup = Setup::of(&acr);
    let (programs, docker) = (setup.folder.path().join("bin"), setup.folder.path().join("docker"));
    let helper = |body: &str| setup.program("bin/docker-credential-vault", &format!("#!/bin/sh\n{body}\n"));
    helper(r#"echo '{"Username":"ci","Secret":"pw"}'"#);
    setup.file("docker/config.json", r#"{"credsStore":"vault"}"#);
    let path = format!("{}:/usr/bin:/bin", programs.display());
    let setup = setup.clone().variable("PATH", path).variable("DOCKER_CONFIG", docker);
    let setup = setup.credential(CredentialSettings::DockerConfig(DockerLogins { config_file: None }));
    let larder = warm(setup, &blob).await;
    let setup = larder.stop().await;
    setup.program("bin/docker-credential-vault", "#!/bin/sh\nexec sleep 60\n");
    let larder = setup.start().await;
    stands_in(&larder, &blob).await;
}
