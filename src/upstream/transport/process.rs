//! Runs a program that hands out a login, within limits: of time, of output, of lifetime.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

/// More than any token; what is longer is not read.
const MAX_OUTPUT: u64 = 1 << 20;

/// What a program said.
pub(in crate::upstream) struct Output {
    pub(in crate::upstream) success: bool,
    /// May hold a secret.
    pub(in crate::upstream) stdout: Zeroizing<Vec<u8>>,
    /// The first line of what it said to people.
    pub(in crate::upstream) complaint: String,
}

/// Runs `program` with `input`. One that is not done within `limit` is killed with all its children, and so it is when the
/// caller stops waiting. The error is a sentence that names the program.
pub(in crate::upstream) async fn run(
    program: &Path,
    arguments: &[&str],
    input: &str,
    limit: Duration,
) -> Result<Output, String> {
    let name = program.display();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    let mut child = Group(command.spawn().map_err(|error| format!("cannot run {name}: {error}"))?);
    let output = tokio::time::timeout(limit, converse(&mut child.0, input)).await;
    match output {
        Ok(output) => output.map_err(|error| format!("cannot talk to {name}: {error}")),
        Err(_) => Err(format!("{name} did not answer within {} s and was killed", limit.as_secs_f32())),
    }
}

async fn converse(child: &mut Child, input: &str) -> std::io::Result<Output> {
    if let Some(mut stdin) = child.stdin.take() {
        // A program that needs no input may have closed its end already.
        drop(stdin.write_all(input.as_bytes()).await);
    }
    let (stdout, stderr) = tokio::join!(bounded(child.stdout.take()), bounded(child.stderr.take()));
    let (stdout, stderr) = (stdout?, stderr?);
    let status = child.wait().await?;
    let complaint = String::from_utf8_lossy(&stderr).lines().map(str::trim).find(|line| !line.is_empty()).map(cut);
    Ok(Output { success: status.success(), stdout, complaint: complaint.unwrap_or_default() })
}

async fn bounded(stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    if let Some(stream) = stream {
        stream.take(MAX_OUTPUT).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

fn cut(line: &str) -> String {
    line.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// A child and what it started: `az` is a script that waits for an interpreter.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(id) = self.0.id()
            && let Some(group) = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw)
        {
            // A group that has ended by itself is as good as killed.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::upstream::testing::script;

    #[tokio::test]
    async fn hands_over_input_and_output() {
        let folder = tempfile::tempdir().unwrap();
        let program = script(folder.path(), "echo-it", "read line; echo \"got $line $1\"; echo oops >&2; exit 3");
        let output = run(&program, &["get"], "host\n", Duration::from_secs(10)).await.unwrap();
        assert_eq!(&output.stdout[..], b"got host get\n");
        assert_eq!((output.success, output.complaint.as_str()), (false, "oops"));
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let body = format!("sh -c 'sleep 1; echo x > {}' & wait", mark.display());
        let program = script(folder.path(), "hang", &body);
        let error = run(&program, &[], "", Duration::from_millis(200)).await.err().unwrap();
        assert!(error.contains("hang did not answer within 0.2 s"), "{error}");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(!mark.exists(), "the child outlived the limit");
    }
}
