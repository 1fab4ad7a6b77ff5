//! Runs a program that hands out a login, within limits: of time, of output, of lifetime, of environment.
//!
//! What it says on stdout may be a secret and is repeated nowhere. Its complaint, the first line of stderr, is for people, and goes
//! through [`complaint`] first, since programs quote what they were given.

use super::complaint;
use crate::config::Environment;
use std::path::Path;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

/// More than any token; what is longer is not read.
const MAX_OUTPUT: u64 = 1 << 20;
/// How long the output is waited for when the program has ended: what it has started may hold the other end for ever.
const AFTER: Duration = Duration::from_millis(200);
/// What programs need to find themselves, their user's files, a keychain, a proxy and a certificate authority.
const NEEDED: [&str; 38] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "TEMP",
    "TMP",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "DBUS_SESSION_BUS_ADDRESS",
    "GNUPGHOME",
    "GPG_TTY",
    "PASSWORD_STORE_DIR",
    "DOCKER_CONFIG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SYSTEMROOT",
    "SystemRoot",
    "USERPROFILE",
    "APPDATA",
    "LOCALAPPDATA",
    "PROGRAMDATA",
    "PATHEXT",
    "COMSPEC",
];
/// Languages, folders, and the settings of the clouds whose helpers hand out their logins.
const NEEDED_BY_PREFIX: [&str; 6] = ["LC_", "XDG_", "AZURE_", "AWS_", "GOOGLE_", "CLOUDSDK_"];

/// What a program said.
pub(in crate::upstream) struct Output {
    pub(in crate::upstream) success: bool,
    /// How it ended, for people: `exit code 1`.
    pub(in crate::upstream) end: String,
    /// May hold a secret.
    pub(in crate::upstream) stdout: Zeroizing<Vec<u8>>,
    /// The first line of what it said to people, cut and without what may be a secret.
    pub(in crate::upstream) complaint: String,
}

impl Output {
    /// How it failed: its end, and its complaint.
    pub(in crate::upstream) fn failure(&self) -> String {
        if self.complaint.is_empty() { self.end.clone() } else { format!("{}: {}", self.end, self.complaint) }
    }
}

/// Runs `program` with `input`. One that is not done within `limit` is killed with all its children, and so it is when the
/// caller stops waiting. The error is a sentence that names the program.
pub(in crate::upstream) async fn run(
    program: &Path,
    arguments: &[&str],
    input: &str,
    limit: Duration,
    environment: &Environment,
) -> Result<Output, String> {
    let name = program.display();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.env_clear().envs(environment.iter().filter(|(name, _)| is_needed(name)));
    #[cfg(unix)]
    command.process_group(0);
    let child = command.spawn().map_err(|error| format!("cannot run {name}: {error}"))?;
    let mut group = Group { id: child.id(), child };
    let output = tokio::time::timeout(limit, converse(&mut group.child, input)).await;
    match output {
        Ok(output) => output.map_err(|error| format!("cannot talk to {name}: {error}")),
        Err(_) => Err(format!("{name} did not answer within {} s and was killed", limit.as_secs_f32())),
    }
}

fn is_needed(name: &str) -> bool {
    NEEDED.contains(&name) || NEEDED_BY_PREFIX.iter().any(|prefix| name.starts_with(prefix))
}

async fn converse(child: &mut Child, input: &str) -> std::io::Result<Output> {
    if let Some(mut stdin) = child.stdin.take() {
        // A program that needs no input may have closed its end already.
        drop(stdin.write_all(input.as_bytes()).await);
    }
    let (mut stdout, mut stderr) = (Zeroizing::new(Vec::new()), Zeroizing::new(Vec::new()));
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let status = {
        let reading = async { tokio::join!(bounded(out, &mut stdout), bounded(err, &mut stderr)) };
        let mut reading = pin!(reading);
        tokio::select! {
            (out, err) = &mut reading => {
                out.and(err)?;
                child.wait().await?
            }
            status = child.wait() => {
                if let Ok((out, err)) = tokio::time::timeout(AFTER, reading).await {
                    out.and(err)?;
                }
                status?
            }
        }
    };
    let complaint = complaint::of(&String::from_utf8_lossy(&stderr), &String::from_utf8_lossy(&stdout));
    Ok(Output { success: status.success(), end: in_words(status), stdout, complaint })
}

fn in_words(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    }
}

async fn bounded(stream: Option<impl AsyncRead + Unpin>, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    if let Some(stream) = stream {
        stream.take(MAX_OUTPUT).read_to_end(bytes).await?;
    }
    Ok(())
}

/// A child and what it started: `az` is a script that waits for an interpreter. Nothing of it outlives the question.
struct Group {
    /// The child's own, and its group's.
    id: Option<u32>,
    child: Child,
}

impl Drop for Group {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(group) = self.id.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw) {
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
        let output =
            run(&program, &["get"], "host\n", Duration::from_secs(10), &Environment::of_process()).await.unwrap();
        assert_eq!(&output.stdout[..], b"got host get\n");
        assert_eq!((output.success, output.complaint.as_str()), (false, "oops"));
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let body = format!("sh -c 'sleep 1; echo x > {}' & wait", mark.display());
        let program = script(folder.path(), "hang", &body);
        let error = run(&program, &[], "", Duration::from_millis(200), &Environment::of_process()).await.err().unwrap();
        assert!(error.contains("hang did not answer within 0.2 s"), "{error}");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(!mark.exists(), "the child outlived the limit");
    }

    #[tokio::test]
    async fn sees_what_it_needs_of_the_environment_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let program =
            script(folder.path(), "look", "echo \"$PATH $AZURE_CONFIG_DIR ${LARDER_SECRET-none} ${CANARY-none}\"");
        let environment = Environment::default().with("PATH", "/bin").with("AZURE_CONFIG_DIR", "az");
        let environment = environment.with("LARDER_SECRET", "s3cret").with("CANARY", "canary");
        let output = run(&program, &[], "", Duration::from_secs(10), &environment).await.unwrap();
        assert_eq!(&output.stdout[..], b"/bin az none none\n");
    }

    #[tokio::test]
    async fn an_answer_counts_although_something_holds_the_pipe_which_does_not_stay() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let body = format!("(sleep 2; echo x > {}) & echo answer", mark.display());
        let program = script(folder.path(), "leaves", &body);
        let begun = tokio::time::Instant::now();
        let output = run(&program, &[], "", Duration::from_secs(10), &Environment::of_process()).await.unwrap();
        assert!(output.success && begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        assert_eq!(&output.stdout[..], b"answer\n");
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert!(!mark.exists(), "what it left behind went on");
    }
}
