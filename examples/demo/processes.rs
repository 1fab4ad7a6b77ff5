use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::Result;

const USER: &str = "demo";
const PASSWORD: &str = "only-for-the-demonstration";

/// Where everything is: a temporary folder, removed at the end, and four ports that were free a moment ago.
pub(crate) struct Place {
    folder: TempDir,
    pub(crate) upstream: u16,
    storage: u16,
    pub(crate) larder: u16,
    pub(crate) admin: u16,
}

impl Place {
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("larder-demo-").tempdir()?;
        // All are held until the last one is known: a port that is let go may be given out again.
        let held = (0..4).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<std::io::Result<Vec<_>>>()?;
        let ports = held.iter().map(|held| Ok(held.local_addr()?.port())).collect::<std::io::Result<Vec<_>>>()?;
        let [upstream, storage, larder, admin] = ports[..] else { return Err("four ports were asked for".into()) };
        Ok(Self { folder, upstream, storage, larder, admin })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn start_upstream(&self, rate: u64) -> Result<Process> {
        let mut command = Command::new(beside_this_program("acr-sim")?);
        command.args(["--port", &self.upstream.to_string(), "--storage-port", &self.storage.to_string()]);
        command.args(["--user", &format!("{USER}:{PASSWORD}"), "--redirect", "sas"]);
        command.args(["--rate", &rate.to_string(), "--seed-demo"]);
        Process::start(command, self.folder().join("registry.log"), Ready::Says("ready")).await
    }

    pub(crate) async fn start_larder(&self) -> Result<Process> {
        let password = self.folder().join("password");
        fs::write(&password, PASSWORD)?;
        let mut command = Command::new(beside_this_program("../larder")?);
        command.args(["serve", "--upstream", &format!("http://127.0.0.1:{}", self.upstream)]);
        command.args(["--username", USER, "--password-file"]).arg(password);
        // `localhost` is one or the other, depending on the machine and the client.
        command.args([
            "--listen",
            &format!("127.0.0.1:{}", self.larder),
            "--listen",
            &format!("[::1]:{}", self.larder),
        ]);
        command.args(["--admin", &format!("127.0.0.1:{}", self.admin), "--store"]).arg(self.folder().join("store"));
        Process::start(command, self.folder().join("larder.log"), Ready::Listens(self.larder)).await
    }
}

fn beside_this_program(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let program = here.with_file_name(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    if program.exists() {
        return Ok(program);
    }
    Err(format!("{} has not been built: run ./scripts/demo", program.display()).into())
}

/// How a server shows that it can be used.
#[derive(Clone, Copy)]
enum Ready {
    Listens(u16),
    Says(&'static str),
}

/// A server, with its output in a file; ends when this value does.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    async fn start(mut command: Command, log: PathBuf, ready: Ready) -> Result<Self> {
        let output = File::create(&log)?;
        command.stdin(std::process::Stdio::null()).stdout(output.try_clone()?).stderr(output).kill_on_drop(true);
        let child = command.spawn().map_err(|error| format!("starting {command:?}: {error}"))?;
        let mut process = Self { child, log };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !process.is(ready).await {
            if let Some(status) = process.child.try_wait()? {
                return Err(format!("a server ended with {status} at its start\n{}", process.last_words()).into());
            }
            if Instant::now() > deadline {
                return Err(format!("a server is not ready after 20 s\n{}", process.last_words()).into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(process)
    }

    async fn is(&self, ready: Ready) -> bool {
        match ready {
            Ready::Listens(port) => TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok(),
            Ready::Says(line) => fs::read_to_string(&self.log).is_ok_and(|text| text.lines().any(|said| said == line)),
        }
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// The end of what the process wrote.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("\nthe last lines of {}:\n{}\n", self.log.display(), lines[lines.len().saturating_sub(15)..].join("\n"))
    }
}
