use super::{Client, PATIENCE, Setup, UPSTREAM};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes of what a process says that are kept: the last ones.
const KEPT: usize = 16 << 20;

/// The real program, for what only a process can show: signals, exit codes, its own environment. Killed when dropped.
pub struct Process {
    pub child: Child,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    stderr: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// `larder serve` with these arguments, besides listeners and store. Returns when it answers.
    pub async fn start(setup: &Setup, arguments: &[&str]) -> Self {
        Self::start_with(setup, arguments, |_| {}).await
    }

    /// The same, with a last word on the command.
    pub async fn start_with(setup: &Setup, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let address = free_address();
        // A port that was given back can be given out again at once.
        let admin = std::iter::repeat_with(free_address).find(|admin| *admin != address).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", setup.folder.path());
        command.env("LARDER_LOG_FORMAT", "json");
        command.arg("serve").args(["--listen", &address.to_string(), "--admin", &admin.to_string()]);
        command.arg("--store").arg(setup.store()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let stderr = Arc::<Mutex<String>>::default();
        let (pipe, sink) = (child.stderr.take().unwrap(), Arc::clone(&stderr));
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = writeln!(sink, "{line}");
                // Some say something about each of millions of requests.
                if sink.len() > 2 * KEPT {
                    let old = sink.len() - KEPT;
                    let line = sink.as_bytes()[old..].iter().position(|byte| *byte == b'\n');
                    sink.drain(..line.map_or(0, |line| old + line + 1));
                }
            }
        });
        let mut process = Self { child, address, admin, stderr, reader: Some(reader) };
        process.ready().await;
        process
    }

    /// Waits until `/readyz` says so.
    async fn ready(&mut self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if tokio::net::TcpStream::connect(self.admin).await.is_ok()
                && Client::new(self.admin).call("GET", "/readyz").send().await.status == 200
            {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("larder ended with {status}: {}", self.stderr());
            }
            assert!(tokio::time::Instant::now() < deadline, "larder does not get ready: {}", self.stderr());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// The text of `/metrics`.
    pub async fn metrics(&self) -> String {
        Client::new(self.admin).call("GET", "/metrics").send().await.text().to_owned()
    }

    /// The value of one metric, its labels written as in `/metrics`; 0 if it is not there.
    pub async fn metric(&self, series: &str) -> u64 {
        super::metric_in(&self.metrics().await, series)
    }

    /// What it has said so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[cfg(unix)]
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub async fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                if let Some(reader) = self.reader.take() {
                    let _ = reader.join();
                }
                return Some(status);
            }
            if tokio::time::Instant::now() > deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An address that nobody listens on at this moment.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The lines of a file for `--config` that names one upstream.
pub fn config_of(url: &str) -> String {
    format!("[[upstream]]\nname = \"{UPSTREAM}\"\ndefault = true\nurl = \"{url}\"\n")
}
