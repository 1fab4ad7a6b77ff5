//! Asking the running daemon through its Unix socket.

use super::arguments::Question;
use crate::config::{Sources, find_socket};
use crate::telemetry::{plain, plain_lines};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// A list of a large store takes a while to walk; a daemon that hangs is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why the daemon gave no answer.
pub(super) struct Trouble {
    /// 1 failed, 2 wrong arguments or configuration, 3 no daemon runs.
    pub(super) code: u8,
    pub(super) text: String,
}

impl Trouble {
    fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Says it.
    pub(super) fn tell(&self) -> ExitCode {
        // Without stderr there is nobody to tell; the exit code remains.
        let _ = writeln!(std::io::stderr(), "larder: {}", plain_lines(&self.text));
        ExitCode::from(self.code)
    }
}

/// Where the running daemon is asked.
pub(super) struct Daemon {
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Daemon {
    pub(super) fn of(sources: &Sources) -> Result<Self, Trouble> {
        let socket = match find_socket(sources) {
            Ok(Some(socket)) => socket,
            Ok(None) => {
                let text = "this platform has no Unix sockets, through which the commands ask the daemon";
                return Err(Trouble::new(2, text));
            }
            Err(errors) => return Err(Trouble::new(2, format!("the configuration is wrong\n{errors}"))),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self { socket, runtime: runtime.map_err(|error| Trouble::new(1, error.to_string()))? })
    }

    /// Sends a request and waits for its answer.
    pub(super) fn call(&self, method: &Method, path: &str) -> Result<Value, Trouble> {
        let call = async { tokio::time::timeout(PATIENCE, call(&self.socket, method.clone(), path.to_owned())).await };
        match self.runtime.block_on(call) {
            Ok(Ok((200, value))) => Ok(readable(value)),
            Ok(Ok((status, value))) => {
                let code = if status == 400 { 2 } else { 1 };
                Err(Trouble::new(code, value["error"].as_str().unwrap_or("the daemon did not understand")))
            }
            Ok(Err(error)) => Err(Trouble::new(3, absent(&self.socket, &error))),
            Err(_) => Err(Trouble::new(1, "the daemon does not answer")),
        }
    }
}

/// What a terminal may show: names, sentences and errors in it may be a registry's.
fn readable(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(plain(&text)),
        Value::Array(values) => Value::Array(values.into_iter().map(readable).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, value)| (plain(&key), readable(value))).collect())
        }
        other => other,
    }
}

/// Asks, prints with `show` or as JSON, and says how it went: 0 done, 1 failed, 2 wrong arguments, 3 no daemon runs.
pub(super) fn ask(
    question: Question,
    sources: Sources,
    requests: &[(Method, String)],
    show: impl Fn(&Value) -> String,
) -> ExitCode {
    let daemon = match Daemon::of(&question.place.into_sources(sources)) {
        Ok(daemon) => daemon,
        Err(trouble) => return trouble.tell(),
    };
    for (method, path) in requests {
        let value = match daemon.call(method, path) {
            Ok(value) => value,
            Err(trouble) => return trouble.tell(),
        };
        let text = if question.json { format!("{value:#}\n") } else { show(&value) };
        if std::io::stdout().write_all(text.as_bytes()).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// A parameter's value as a query takes it.
pub(super) fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn absent(socket: &Path, error: &str) -> String {
    format!(
        "no larder answers at {}: {error}; start one, or name the same --store or --config as it has",
        socket.display()
    )
}

#[cfg(unix)]
async fn call(socket: &Path, method: Method, path: String) -> Result<(u16, Value), String> {
    let stream = tokio::net::UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let request = Request::builder().method(method).uri(path).header("host", "larder");
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(text)?.to_bytes();
        let value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        Ok((status, value))
    };
    tokio::select! {
        answer = answer => answer,
        Err(error) = connection => Err(error.to_string()),
    }
}

#[cfg(not(unix))]
async fn call(_: &Path, _: Method, _: String) -> Result<(u16, Value), String> {
    Err("this platform has no Unix sockets".to_owned())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_does_not_answer_is_waited_for_for_two_minutes() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let _accepting = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let daemon = Daemon { socket, runtime };
        let clock = || daemon.runtime.block_on(async { tokio::time::Instant::now() });
        let begun = clock();
        let trouble = daemon.call(&Method::GET, "/v1/status").unwrap_err();
        assert_eq!((trouble.code, &*trouble.text), (1, "the daemon does not answer"));
        let waited = clock() - begun;
        assert!(waited >= PATIENCE && waited < PATIENCE + Duration::from_secs(1), "{waited:?}");
    }
}
