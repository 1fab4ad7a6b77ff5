//! A server process: started, waited for, measured, ended.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::Result;

/// `/proc` counts time in these; it is 100 wherever Linux runs.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) struct Server {
    child: Child,
    pub(super) port: u16,
    pub(super) log: PathBuf,
}

impl Server {
    /// Starts a server whose arguments make it listen on `port`, and waits until it does.
    pub(super) fn start(mut command: Command, port: u16, log: &Path) -> Result<Self> {
        let output = File::create(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().map_err(|error| format!("starting {command:?}: {error}"))?;
        let mut server = Self { child, port, log: log.to_owned() };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if server.child.try_wait()?.is_some() || Instant::now() > deadline {
                let words = fs::read_to_string(log).unwrap_or_default();
                return Err(format!("{command:?} does not listen on port {port}; it said:\n{words}").into());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Seconds of CPU that the process and its children have used so far.
    pub(super) fn cpu(&self) -> Result<f64> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let pids = std::iter::once(pid.to_string()).chain(children.split_whitespace().map(str::to_owned));
        let ticks: u64 = pids.map(|pid| ticks(&pid)).sum::<Result<u64>>()?;
        #[expect(clippy::cast_precision_loss, reason = "hundredths of seconds")]
        Ok(ticks as f64 / TICKS_PER_SECOND)
    }

    /// The end of what it wrote, and how it ended if it did.
    pub(super) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let state = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let state = state.lines().find(|line| line.starts_with("State:")).unwrap_or("it is gone");
        format!("{state}; its last lines:\n{}", lines[lines.len().saturating_sub(10)..].join("\n"))
    }

    /// Bytes that the process has caused to be written to a disk so far.
    pub(super) fn written(&self) -> Result<u64> {
        self.io("write_bytes: ")
    }

    /// Bytes that the process has read so far, from wherever they came; what it has sent from a file is among them.
    pub(super) fn read(&self) -> Result<u64> {
        self.io("rchar: ")
    }

    /// Bytes of memory that the process and its children hold now.
    pub(super) fn resident(&self) -> Result<u64> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let pids = std::iter::once(pid.to_string()).chain(children.split_whitespace().map(str::to_owned));
        let of = |pid: String| -> Result<u64> {
            let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc")?;
            Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
        };
        pids.map(of).sum()
    }

    fn io(&self, what: &str) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/io", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(what)).ok_or(format!("no {what}in /proc"))?;
        Ok(line.parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Not the hard way first: a master that is killed leaves its workers behind.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            sleep(Duration::from_millis(10));
        }
    }
}

/// utime and stime of all threads of a process.
fn ticks(pid: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold blanks; the state after it is the third field.
    let (_, fields) = text.rsplit_once(") ").ok_or("an unreadable /proc/PID/stat")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
    Ok(field(14).zip(field(15)).map(|(user, system)| user + system).ok_or("an unreadable /proc/PID/stat")?)
}

/// A command on the servers' core.
pub(super) fn pinned(program: &str) -> Command {
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
        let mut command = Command::new("taskset");
        command.args(["-c", "0", program]);
        return command;
    }
    Command::new(program)
}

/// A port that was free a moment ago.
pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
