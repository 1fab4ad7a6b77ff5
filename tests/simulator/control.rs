//! A third listener, on loopback, where shell scripts turn knobs and read what was seen.
//!
//! `GET`/`POST /_sim/knobs` (JSON, only the fields to change), `POST /_sim/knobs/reset`, `GET`/`DELETE /_sim/log`,
//! `GET /_sim/violations`, `POST /_sim/stop`, `POST /_sim/resume`, `POST /_sim/revoke`.

use std::io;
use std::sync::Arc;

use http::{Method, Request};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::State;
use super::reply::{self, Reply};
use super::serve::Port;

pub(super) async fn run(state: Arc<State>, port: Arc<Port>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            next = port.next() => if let Some((stream, _)) = next {
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    let service = service_fn(|request| answer(&state, request));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(state: &State, request: Request<Incoming>) -> io::Result<Reply> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, 1024 * 1024).collect().await.map_err(io::Error::other)?.to_bytes();
    let post = parts.method == Method::POST;
    Ok(match parts.uri.path() {
        "/_sim/knobs" if post => match turn(state, &body) {
            Ok(()) => knobs(state),
            Err(why) => reply::text(400, "text/plain", why + "\n"),
        },
        "/_sim/knobs" => knobs(state),
        "/_sim/knobs/reset" if post => {
            state.knobs.reset();
            knobs(state)
        }
        "/_sim/log" if parts.method == Method::DELETE => {
            state.log.clear();
            reply::empty(204)
        }
        "/_sim/log" => json(&state.log.seen()),
        "/_sim/violations" => json(&state.log.violations()),
        "/_sim/stop" if post => {
            state.login.close();
            state.storage.close();
            reply::empty(204)
        }
        "/_sim/resume" if post => match state.login.reopen().and_then(|()| state.storage.reopen()) {
            Ok(()) => reply::empty(204),
            Err(why) => reply::text(500, "text/plain", format!("{why}\n")),
        },
        "/_sim/revoke" if post => {
            state.tokens.revoke();
            reply::empty(204)
        }
        _ => reply::text(404, "text/plain", "see docs/simulator.md for what there is\n"),
    })
}

fn turn(state: &State, body: &[u8]) -> Result<(), String> {
    let patch = serde_json::from_slice(body).map_err(|e| format!("the body is not JSON: {e}"))?;
    state.knobs.turn_json(&patch)
}

fn knobs(state: &State) -> Reply {
    json(&state.knobs.get())
}

fn json(value: &impl serde::Serialize) -> Reply {
    match serde_json::to_string_pretty(value) {
        Ok(text) => reply::text(200, "application/json", text + "\n"),
        Err(why) => reply::text(500, "text/plain", format!("{why}\n")),
    }
}
