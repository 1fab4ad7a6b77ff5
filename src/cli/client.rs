//! Asking the running daemon through its Unix socket.

use super::arguments::Question;
use crate::config::{Sources, find_socket};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// A list of a large store takes a while to walk; a daemon that hangs is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks, prints with `show` or as JSON, and says how it went: 0 done, 1 failed, 2 wrong arguments, 3 no daemon runs.
pub(super) fn ask(
    question: Question,
    sources: Sources,
    requests: &[(Method, String)],
    show: impl Fn(&Value) -> String,
) -> ExitCode {
    let socket = match find_socket(&question.place.into_sources(sources)) {
        Ok(Some(socket)) => socket,
        Ok(None) => return fail(2, "this platform has no Unix sockets, through which the commands ask the daemon"),
        Err(errors) => return fail(2, &format!("the configuration is wrong\n{errors}")),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &error.to_string()),
    };
    for (method, path) in requests {
        let answer =
            runtime.block_on(async { tokio::time::timeout(PATIENCE, call(&socket, method.clone(), path)).await });
        match answer {
            Ok(Ok((200, value))) => {
                let text = if question.json { format!("{value:#}\n") } else { show(&value) };
                if std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()).is_err() {
                    return ExitCode::FAILURE;
                }
            }
            Ok(Ok((status, value))) => {
                let code = if status == 400 { 2 } else { 1 };
                return fail(code, value["error"].as_str().unwrap_or("the daemon did not understand"));
            }
            Ok(Err(error)) => return fail(3, &absent(&socket, &error)),
            Err(_) => return fail(1, "the daemon does not answer"),
        }
    }
    ExitCode::SUCCESS
}

fn absent(socket: &Path, error: &str) -> String {
    format!(
        "no larder answers at {}: {error}; start one, or name the same --store or --config as it has",
        socket.display()
    )
}

fn fail(code: u8, text: &str) -> ExitCode {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("larder: {text}\n").as_bytes());
    ExitCode::from(code)
}

#[cfg(unix)]
async fn call(socket: &PathBuf, method: Method, path: &str) -> Result<(u16, Value), String> {
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
async fn call(_: &PathBuf, _: Method, _: &str) -> Result<(u16, Value), String> {
    Err("this platform has no Unix sockets".to_owned())
}
