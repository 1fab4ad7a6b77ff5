//! Programs: found, run to their end within a time limit, or kept running until they are dropped.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

use tokio::time::Instant;

/// Longer than any step takes on a busy machine; shorter than the patience of whoever waits for a hung test.
const PATIENCE: Duration = Duration::from_secs(120);
const NOTICE: Duration = Duration::from_millis(10);

/// The folder of a test: removed at its end, or kept and named if `LARDER_TEST_KEEP` is set.
pub(crate) struct Folder {
    path: PathBuf,
    _removed: Option<tempfile::TempDir>,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let made = tempfile::Builder::new().prefix("larder-real-").tempdir().unwrap();
        if std::env::var_os("LARDER_TEST_KEEP").is_none() {
            return Self { path: made.path().to_owned(), _removed: Some(made) };
        }
        let path = made.keep();
        println!("kept: {}", path.display());
        Self { path, _removed: None }
    }

    /// A folder in it, made if it is not there.
    pub(crate) fn sub(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }
}

/// The program's path; a missing one fails the test with the line that brings it.
pub(crate) fn program(name: &str) -> PathBuf {
    let tools = std::env::var_os("LARDER_TOOLS").map(PathBuf::from);
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers where an ordinary user's PATH does not look.
    let folders = tools.into_iter().chain([built]).chain(std::env::split_paths(&path)).chain(["/usr/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: run ./scripts/test, which installs it, or see docs/testing.md"))
}

/// A command that sees none of the user's settings: neither logins nor proxies nor larder's own variables.
pub(crate) fn command(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home).env("DOCKER_CONFIG", home.join(".docker")).env("NO_COLOR", "1");
    for kept in ["PATH", "LANG", "TMPDIR", "RUST_BACKTRACE"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command
}

/// What a program said until it ended.
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    stderr: String,
    line: String,
}

impl Outcome {
    /// The standard output of a program that succeeded.
    pub(crate) fn ok(self) -> Vec<u8> {
        assert!(self.status.success(), "{self}");
        self.stdout
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stdout = String::from_utf8_lossy(&self.stdout);
        write!(f, "{}\n{}\nstdout: {stdout}\nstderr: {}", self.line, self.status, self.stderr)
    }
}

/// Runs a command to its end, in a folder; what it says goes through files, so that no pipe can fill up.
pub(crate) fn run(mut command: Command, folder: &Path) -> Outcome {
    let said = tempfile::tempdir().unwrap();
    let (stdout, stderr) = (said.path().join("stdout"), said.path().join("stderr"));
    command.current_dir(folder).stdin(Stdio::null());
    command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
    let line = format!("{command:?}");
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            break child.wait().unwrap();
        }
        sleep(NOTICE);
    };
    let stderr = String::from_utf8_lossy(&fs::read(stderr).unwrap()).into_owned();
    Outcome { status, stdout: fs::read(stdout).unwrap(), stderr, line }
}

/// One request to a server of this machine: the status and the body of its answer.
pub(crate) fn http(port: u16, method: &str, target: &str) -> (u16, String) {
    http_with(port, "Host: localhost\r\n", method, target)
}

/// The same with these lines in its head.
pub(crate) fn http_with(port: u16, lines: &str, method: &str, target: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head =
        format!("{method} {target} HTTP/1.0\r\n{lines}Accept: application/vnd.oci.image.manifest.v1+json, */*\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Waits for something that must come about.
pub(crate) fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        sleep(10 * NOTICE);
    }
}

/// A server: killed when dropped. If the test is failing then, its last words are printed.
pub(crate) struct Server {
    name: &'static str,
    child: Child,
    log: PathBuf,
    pub(crate) port: u16,
}

impl Server {
    /// Starts a server whose arguments make it listen on `port`, and waits until it does.
    pub(crate) fn start(name: &'static str, command: Command, port: u16, log: &Path) -> Self {
        Self::start_with_input(name, command, port, log, Stdio::null())
    }

    /// The same, with a standard input.
    pub(crate) fn start_with_input(
        name: &'static str,
        mut command: Command,
        port: u16,
        log: &Path,
        input: impl Into<Stdio>,
    ) -> Self {
        let log = log.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(input).stdout(output.try_clone().unwrap()).stderr(output);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut server = Self { name, child, log, port };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "{name} ended at its start: {ended:?}");
            assert!(Instant::now() < deadline, "{name} does not listen on port {port}");
            sleep(NOTICE);
        }
        server
    }

    /// Asks it to end, as systemd would.
    pub(crate) fn terminate(&self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    }

    /// How it ended, once it has.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} does not end", self.name);
            sleep(NOTICE);
        }
    }

    /// The folder with its log and, of a registry, its content.
    pub(crate) fn home(&self) -> &Path {
        self.log.parent().unwrap()
    }

    pub(crate) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            println!("--- the last lines of {}:\n{}", self.name, lines[lines.len().saturating_sub(25)..].join("\n"));
        }
    }
}

/// A port that is free, from below those that the system gives to outgoing connections: one of these could take it before the
/// server does.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97);
    let candidates = (0..10_000).map(|_| start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000);
    let mut ports = candidates.filter_map(|offset| u16::try_from(20_000 + offset).ok());
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.find(free).unwrap_or_else(|| panic!("no port between 20000 and 30000 is free"))
}
