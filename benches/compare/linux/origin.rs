//! The registry behind the caches: as much of the protocol as a pull needs, a limited rate per answer, and a count of fetches.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep};

use super::Result;
use super::content::{Artifact, Blob, MANIFEST_TYPE, TAG};

struct Content {
    media_type: &'static str,
    blob: Blob,
}

#[derive(Default)]
struct State {
    paths: Mutex<HashMap<String, Arc<Content>>>,
    /// Bytes per second and answer; 0 for no limit.
    rate: AtomicU64,
    fetches: AtomicU64,
}

/// Runs on a thread of its own until it is dropped.
pub(super) struct Origin {
    pub(super) port: u16,
    state: Arc<State>,
    _stop: oneshot::Sender<()>,
}

impl Origin {
    pub(super) fn start(rate: u64) -> Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State { rate: AtomicU64::new(rate), ..State::default() });
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&state);
        std::thread::spawn(move || serve(listener, &served, stopped));
        Ok(Self { port, state, _stop: stop })
    }

    pub(super) fn add(&self, artifact: &Artifact) {
        let mut paths = self.state.paths.lock().unwrap_or_else(PoisonError::into_inner);
        let manifest = Arc::new(Content { media_type: MANIFEST_TYPE, blob: artifact.manifest.clone() });
        for reference in [TAG, artifact.manifest.digest.as_str()] {
            paths.insert(format!("/v2/{}/manifests/{reference}", artifact.repository), Arc::clone(&manifest));
        }
        for blob in &artifact.blobs {
            let content = Content { media_type: "application/octet-stream", blob: blob.clone() };
            paths.insert(artifact.blob_path(blob), Arc::new(content));
        }
    }

    /// Whole blobs that were asked for since the last call.
    pub(super) fn take_fetches(&self) -> u64 {
        self.state.fetches.swap(0, Ordering::Relaxed)
    }
}

fn serve(listener: std::net::TcpListener, state: &Arc<State>, stopped: oneshot::Receiver<()>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let Ok(listener) = TcpListener::from_std(listener) else { return };
        let accept = async {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let state = Arc::clone(state);
                let service = service_fn(move |request| {
                    let state = Arc::clone(&state);
                    async move { Ok::<_, Infallible>(answer(&state, &request)) }
                });
                let mut http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service));
            }
        };
        tokio::select! { () = accept => {}, _ = stopped => {} }
    });
}

fn answer(state: &State, request: &Request<Incoming>) -> Response<Paced> {
    let path = request.uri().path();
    let base = Response::builder().header("docker-distribution-api-version", "registry/2.0");
    if path == "/v2/" {
        return built(base.status(StatusCode::OK), Paced::new(Bytes::new(), 0));
    }
    let content = state.paths.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
    let Some(content) = content else {
        let text = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"not in this origin"}]}"#;
        let base = base.status(StatusCode::NOT_FOUND).header(CONTENT_TYPE, "application/json");
        return built(base, Paced::new(Bytes::from_static(text.as_bytes()), 0));
    };
    let base = base.header(CONTENT_TYPE, content.media_type).header(ACCEPT_RANGES, "bytes");
    let base = base.header("docker-content-digest", &content.blob.digest);
    let whole = &content.blob.bytes;
    if request.method() == Method::HEAD {
        return built(base.header(CONTENT_LENGTH, whole.len()), Paced::new(Bytes::new(), 0));
    }
    let rate = state.rate.load(Ordering::Relaxed);
    if let Some((first, last)) = range_of(request.headers(), whole.len()) {
        let range = format!("bytes {first}-{last}/{}", whole.len());
        let base = base.status(StatusCode::PARTIAL_CONTENT).header(CONTENT_RANGE, range);
        return built(base, Paced::new(whole.slice(first..=last), rate));
    }
    if path.contains("/blobs/") {
        state.fetches.fetch_add(1, Ordering::Relaxed);
    }
    built(base, Paced::new(whole.clone(), rate))
}

#[expect(clippy::expect_used, reason = "every header is a literal or a digest")]
fn built(base: http::response::Builder, body: Paced) -> Response<Paced> {
    base.body(body).expect("a valid response")
}

fn range_of(headers: &HeaderMap, length: usize) -> Option<(usize, usize)> {
    let (first, last) = headers.get(RANGE)?.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    let first = first.parse().ok().filter(|first| *first < length)?;
    Some((first, last.parse().unwrap_or(length - 1).min(length - 1)))
}

/// A body that is no faster than its rate, counted from its first byte.
struct Paced {
    left: Bytes,
    sent: u64,
    rate: u64,
    began: Option<Instant>,
    due: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    const PIECE: usize = 64 << 10;

    fn new(bytes: Bytes, rate: u64) -> Self {
        Self { left: bytes, sent: 0, rate, began: None, due: None }
    }

    /// How long after the first piece the next one is due.
    fn schedule(&self) -> Duration {
        Duration::from_micros((self.sent * 1_000_000).checked_div(self.rate).unwrap_or(0))
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        if self.rate > 0 && self.due.is_none() {
            let began = *self.began.get_or_insert_with(Instant::now);
            let wait = (began + self.schedule()).saturating_duration_since(Instant::now());
            // Timers tick in milliseconds: sleeping less often and catching up keeps the rate exact.
            self.due = (wait > Duration::from_millis(1)).then(|| Box::pin(sleep(wait)));
        }
        if let Some(due) = &mut self.due {
            if due.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.due = None;
        }
        let size = self.left.len().min(Self::PIECE);
        let piece = self.left.split_to(size);
        self.sent += size as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}
