//! Asking the running daemon through its Unix socket.

use super::arguments::Question;
use crate::config::{Sources, find_socket};
use crate::telemetry::{plain, plain_lines};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// A list of a large store takes a while to walk; a daemon that hangs is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes that are read and sent at a time.
const PIECE: usize = 256 << 10;

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

    pub(super) fn failed(text: String) -> Self {
        Self { code: 1, text }
    }

    pub(super) fn usage(text: String) -> Self {
        Self { code: 2, text }
    }

    /// The same, with what it is about before it.
    pub(super) fn about(self, what: &str) -> Self {
        Self { text: format!("{what}: {}", self.text), ..self }
    }

    /// The exit code of a command that ended so; a trouble is said.
    pub(super) fn exit_code(ended: Result<ExitCode, Self>) -> ExitCode {
        ended.unwrap_or_else(|trouble| trouble.tell())
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
        self.send(method, path, Bytes::new())
    }

    /// Sends a request with a body and waits for its answer.
    pub(super) fn post(&self, path: &str, body: Bytes) -> Result<Value, Trouble> {
        self.send(&Method::POST, path, body)
    }

    /// Writes an answer's body as it comes. A body that ends too early is an error.
    pub(super) fn download(&self, path: &str, to: &mut dyn std::io::Write) -> Result<(), Trouble> {
        let result = self.runtime.block_on(download(&self.socket, path, to));
        result.map_err(|error| match error {
            Download::Absent(error) => Trouble::new(3, absent(&self.socket, &error)),
            Download::Refused(status, error) => Trouble::new(if status == 400 { 2 } else { 1 }, error),
            Download::Broken(error) => {
                Trouble::new(1, format!("the daemon's answer broke: {error}; try again, it continues"))
            }
            Download::Write(error) => Trouble::new(1, format!("cannot write: {error}")),
        })
    }

    /// Sends what `reader` gives as the body of a PUT.
    pub(super) fn upload(&self, path: &str, reader: &mut dyn std::io::Read) -> Result<Value, Trouble> {
        match self.runtime.block_on(upload(&self.socket, path, reader)) {
            Ok((200, value)) => Ok(value),
            Ok((_, value)) => Err(Trouble::new(1, value["error"].as_str().unwrap_or("the daemon did not understand"))),
            Err(error) => Err(Trouble::new(3, absent(&self.socket, &error))),
        }
    }

    /// Sends a request whose answer does not end: its first line. The daemon is told of the end by the connection's.
    pub(super) fn hold(&self, path: &str) -> Result<(Value, Held), Trouble> {
        match self.runtime.block_on(hold(&self.socket, path)) {
            Ok((200, value, held)) => Ok((value, held)),
            Ok((_, value, _)) => {
                Err(Trouble::new(1, value["error"].as_str().unwrap_or("the daemon did not understand")))
            }
            Err(error) => Err(Trouble::new(3, absent(&self.socket, &error))),
        }
    }

    fn send(&self, method: &Method, path: &str, body: Bytes) -> Result<Value, Trouble> {
        let call = call(&self.socket, method.clone(), path.to_owned(), body);
        let call = async { tokio::time::timeout(PATIENCE, call).await };
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

/// An answer that has not ended, and its connection.
#[cfg(unix)]
pub(super) struct Held(
    #[expect(dead_code, reason = "it is held")]
    (hyper::client::conn::http1::SendRequest<Full<Bytes>>, hyper::body::Incoming),
);

#[cfg(not(unix))]
pub(super) struct Held;

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
async fn call(socket: &Path, method: Method, path: String, body: Bytes) -> Result<(u16, Value), String> {
    let stream = tokio::net::UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let request = Request::builder().method(method).uri(path).header("host", "larder");
    let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
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

#[cfg(unix)]
async fn hold(socket: &Path, path: &str) -> Result<(u16, Value, Held), String> {
    let stream = tokio::net::UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    tokio::spawn(connection);
    let request = Request::post(path).header("host", "larder").body(Full::default());
    let response = sender.send_request(request.map_err(|error| error.to_string())?).await.map_err(text)?;
    let (status, mut body) = (response.status().as_u16(), response.into_body());
    let first = body.frame().await.ok_or("the daemon says nothing")?.map_err(text)?;
    let value = serde_json::from_slice(&first.into_data().unwrap_or_default()).unwrap_or_default();
    Ok((status, value, Held((sender, body))))
}

#[cfg(not(unix))]
async fn hold(_: &Path, _: &str) -> Result<(u16, Value, Held), String> {
    Err("this platform has no Unix sockets".to_owned())
}

#[cfg(unix)]
async fn upload(socket: &Path, path: &str, reader: &mut dyn std::io::Read) -> Result<(u16, Value), String> {
    let text = |error: hyper::Error| error.to_string();
    let stream = tokio::net::UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let connection = tokio::spawn(connection);
    let (mut body, receiving) = http_body_util::channel::Channel::<Bytes, std::io::Error>::new(2);
    let request = Request::put(path).header("host", "larder").body(receiving).map_err(|error| error.to_string())?;
    let feeding = async {
        let mut buffer = vec![0; PIECE];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    if body.send_data(Bytes::copy_from_slice(&buffer[..read])).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    body.abort(error);
                    return;
                }
            }
        }
        drop(body);
    };
    let (response, ()) = tokio::join!(sender.send_request(request), feeding);
    let response = response.map_err(text)?;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.map_err(text)?.to_bytes();
    connection.abort();
    Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
}

#[cfg(not(unix))]
async fn upload(_: &Path, _: &str, _: &mut dyn std::io::Read) -> Result<(u16, Value), String> {
    Err("this platform has no Unix sockets".to_owned())
}

/// Why a download has failed.
enum Download {
    Absent(String),
    Refused(u16, String),
    Broken(String),
    Write(std::io::Error),
}

#[cfg(unix)]
async fn download(socket: &Path, path: &str, to: &mut dyn std::io::Write) -> Result<(), Download> {
    let broken = |error: hyper::Error| Download::Broken(error.to_string());
    let stream = tokio::net::UnixStream::connect(socket).await.map_err(|error| Download::Absent(error.to_string()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path).header("host", "larder").body(Full::<Bytes>::default());
    let request = request.map_err(|error| Download::Broken(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    let (status, mut body) = (response.status().as_u16(), response.into_body());
    if status != 200 {
        let bytes = body.collect().await.map_err(broken)?.to_bytes();
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        return Err(Download::Refused(status, value["error"].as_str().unwrap_or("the daemon refuses").to_owned()));
    }
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(broken)?.into_data() {
            to.write_all(&data).map_err(Download::Write)?;
        }
    }
    connection.abort();
    to.flush().map_err(Download::Write)
}

#[cfg(not(unix))]
async fn download(_: &Path, _: &str, _: &mut dyn std::io::Write) -> Result<(), Download> {
    Err(Download::Absent("this platform has no Unix sockets".to_owned()))
}

#[cfg(not(unix))]
async fn call(_: &Path, _: Method, _: String, _: Bytes) -> Result<(u16, Value), String> {
    Err("this platform has no Unix sockets".to_owned())
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    use super::*;

    #[cfg(unix)]
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
