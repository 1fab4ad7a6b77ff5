//! systemd without PID 1: its own `systemd-socket-activate`, sockets that outlive the process, a notify socket, and what its analysers
//! say of the units.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::process::{Folder, Server, command, free_port, http, program, run};
use crate::simulator::{Options, Simulator, samples};

/// Hands the socket over that is its standard input, as the registry's: what systemd does for larder.socket.
const HAND_OVER: &str =
    r#"exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_FDNAMES=registry LISTEN_PID=$$; exec "$0" "$@""#;

/// The unit with a program that is here.
fn units(folder: &Folder) -> Vec<String> {
    let units = folder.sub("units");
    let of = |name: &str| {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)).unwrap();
        let path = units.join(name);
        fs::write(&path, text.replace("/usr/local/bin/larder", env!("CARGO_BIN_EXE_larder"))).unwrap();
        path.to_str().unwrap().to_owned()
    };
    vec![of("larder.service"), of("larder.socket")]
}

fn analyze(folder: &Folder, arguments: &[&str]) -> String {
    let mut analyze = command(&program("systemd-analyze"), &folder.sub("home"));
    analyze.args(arguments);
    let outcome = run(analyze, &folder.sub("home"));
    assert!(outcome.status.success(), "{outcome}");
    outcome.to_string()
}

#[test]
fn systemd_units_are_verified_and_give_away_little() {
    let folder = Folder::new();
    let units = units(&folder);
    let said = analyze(&folder, &["verify", "--man=no", &units[0], &units[1]]);
    assert!(said.ends_with("stderr: "), "nothing to say: {said}");
    // 1.3 of 10; what is above fails.
    analyze(&folder, &["security", "--offline=true", "--threshold=13", &units[0]]);
}

fn serve(folder: &Folder, upstream: &str) -> (Vec<String>, u16) {
    let admin = free_port();
    let store = folder.sub("larder").join("store").display().to_string();
    let arguments = ["serve", "--upstream", upstream, "--login", "anonymous", "--store", &store, "--admin"];
    let arguments = arguments.map(str::to_owned).into_iter().chain([format!("127.0.0.1:{admin}")]);
    (arguments.collect(), admin)
}

fn simulator() -> (Simulator, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let simulator = runtime.block_on(Simulator::start(Options::public()));
    simulator.push_artifact("samples/config", "v1", &[("app.yaml", "text/yaml", "answer: 42\n".into())]);
    (simulator, runtime)
}

#[test]
fn systemd_socket_activate_starts_it_with_its_first_connection() {
    let folder = Folder::new();
    let (simulator, _runtime) = simulator();
    let (port, (arguments, admin)) = (free_port(), serve(&folder, &simulator.url()));
    let mut activate = command(&program("systemd-socket-activate"), &folder.sub("larder"));
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        activate.args(["--listen", &address]);
    }
    // One name for each socket.
    activate.args(["--fdname=registry:registry", env!("CARGO_BIN_EXE_larder")]).args(&arguments);
    let _server = Server::start("activated", activate, port, &folder.sub("larder"));
    assert_eq!(http(port, "GET", "/v2/samples/config/manifests/v1").0, 200);
    let mut six = TcpStream::connect(("::1", port)).unwrap();
    six.write_all(b"GET /v2/ HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    six.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 200 "), "{answer}");
    assert_eq!(http(admin, "GET", "/readyz").0, 200);
}

#[test]
fn systemd_hears_which_sockets_have_no_use() {
    let folder = Folder::new();
    let (arguments, _) = serve(&folder, "registry.test");
    let attempt = |names: &str, more: &[&str]| {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let mut sh = command(Path::new("/bin/sh"), &folder.sub("larder"));
        sh.args(["-c", &HAND_OVER.replace("=registry", names), env!("CARGO_BIN_EXE_larder")])
            .args(&arguments)
            .args(more);
        let output = sh.stdin(OwnedFd::from(socket)).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap(), address)
    };
    let (code, said, _) = attempt("=larder.socket", &[]);
    assert!(code == Some(2) && said.contains("FileDescriptorName=registry"), "{code:?} {said}");
    let (code, said, address) = attempt("=registry", &["--listen", "127.0.0.1:5999"]);
    let remedy = format!("remove the key, write listen = [\"{address}\"], or change ListenStream=");
    assert!(code == Some(2) && said.contains("flag --listen") && said.contains(&remedy), "{code:?} {said}");
}

/// Starts larder as `systemctl start` does while larder.socket has the socket.
fn start(folder: &Folder, socket: &TcpListener, arguments: &[String], change: impl Fn(&mut Command)) -> Server {
    let mut sh = command(Path::new("/bin/sh"), &folder.sub("larder"));
    sh.args(["-c", HAND_OVER, env!("CARGO_BIN_EXE_larder")]).args(arguments);
    change(&mut sh);
    let port = socket.local_addr().unwrap().port();
    Server::start_with_input("handed", sh, port, &folder.sub("larder"), OwnedFd::from(socket.try_clone().unwrap()))
}

#[test]
fn systemd_restarts_refuse_no_connection_and_cut_no_download() {
    let folder = Folder::new();
    let (simulator, _runtime) = simulator();
    let big = samples::incompressible(5, 24 << 20);
    let digest = simulator.push_blob("samples/big", big.clone());
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let (arguments, _) = serve(&folder, &simulator.url());
    let mut larder = start(&folder, &socket, &arguments, |_| ());
    assert_eq!(http(port, "GET", "/v2/samples/config/manifests/v1").0, 200);

    let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let askers: Vec<_> = (0..4)
        .map(|_| {
            let (over, asked) = (Arc::clone(&over), Arc::clone(&asked));
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    // Panics where the connection is refused or the answer is none.
                    assert_eq!(http(port, "GET", "/v2/samples/config/manifests/v1").0, 200);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..4 {
        let target = format!("/v2/samples/big/blobs/{digest}");
        let mut download = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(download, "GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut body = vec![0; 1 << 16];
        download.read_exact(&mut body).unwrap();
        larder.terminate();
        std::thread::sleep(Duration::from_millis(50));
        download.read_to_end(&mut body).unwrap();
        assert!(body.ends_with(&big[1 << 16..]), "round {round}: {} bytes", body.len());
        assert!(larder.ended().success());
        let before = asked.load(Ordering::Relaxed);
        larder = start(&folder, &socket, &arguments, |_| ());
        crate::process::wait_for("answers after the restart", || asked.load(Ordering::Relaxed) > before + 4);
    }
    over.store(true, Ordering::Relaxed);
    for asker in askers {
        asker.join().unwrap();
    }
    assert!(asked.load(Ordering::Relaxed) > 20);
}

/// What comes next to the notify socket.
fn notified(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn systemd_is_told_of_start_life_and_end() {
    let folder = Folder::new();
    let (simulator, _runtime) = simulator();
    let path = folder.sub("notify").join("socket");
    let notify = UnixDatagram::bind(&path).unwrap();
    notify.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let (arguments, _) = serve(&folder, &simulator.url());
    let mut larder = start(&folder, &socket, &arguments, |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    });
    let said: Vec<String> = (0..6).map(|_| notified(&notify)).collect();
    let all = said.concat();
    assert_eq!(all.matches("READY=1").count(), 1, "{said:?}");
    assert_eq!(all.matches("WATCHDOG=1").count(), 5, "{said:?}");
    larder.terminate();
    while !notified(&notify).contains("STOPPING=1") {}
    assert!(larder.ended().success());
}
