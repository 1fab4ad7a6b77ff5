use super::{PATIENCE, sha256, sha512};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Frame;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use sha2::Digest as _;
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Speaks HTTP/1.1 and changes nothing of what it sends or gets. A connection per request.
#[derive(Clone, Copy, Debug)]
pub struct Client(SocketAddr);

/// A request's body.
type Sending = UnsyncBoxBody<Bytes, std::io::Error>;

/// One request.
pub struct Call {
    address: SocketAddr,
    request: Request<Sending>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An answer whose body ended before its end, with what came of it.
#[derive(Debug)]
pub struct Broken {
    pub answer: Answer,
    pub error: String,
}

/// An answer whose body is still to come. Dropping it closes the connection.
pub struct Streaming {
    pub status: StatusCode,
    pub headers: HeaderMap,
    method: http::Method,
    body: Incoming,
    /// All that came so far.
    taken: BytesMut,
    connection: tokio::task::JoinHandle<()>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self(address)
    }

    /// A request with `Host` and nothing else.
    pub fn call(self, method: &str, target: &str) -> Call {
        let host = self.0.to_string();
        let request = Request::builder().method(method).uri(target).header("Host", host);
        Call { address: self.0, request: request.body(sending(Empty::new())).unwrap() }
    }
}

impl Call {
    /// Adds a header line, beside any of that name.
    #[must_use]
    pub fn line(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::try_from(name).unwrap();
        self.request.headers_mut().append(name, HeaderValue::try_from(value).unwrap());
        self
    }

    /// Says `Host` differently.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.request.headers_mut().insert("host", HeaderValue::try_from(host).unwrap());
        self
    }

    #[must_use]
    pub fn range(self, range: &str) -> Self {
        self.line("Range", range)
    }

    /// Sends a body, with its length.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        *self.request.body_mut() = sending(Full::new(body.into()));
        self
    }

    /// Sends a body as its pieces come, without a length unless a header says it. `Err` breaks it off.
    #[must_use]
    pub fn pieces(mut self, pieces: tokio::sync::mpsc::Receiver<std::io::Result<Bytes>>) -> Self {
        *self.request.body_mut() = UnsyncBoxBody::new(Pieces(pieces));
        self
    }

    /// The whole answer; the test fails if its body breaks off.
    pub async fn send(self) -> Answer {
        let what = format!("{} {}", self.request.method(), self.request.uri());
        match self.try_send().await {
            Ok(answer) => answer,
            Err(broken) => panic!("{what}: the body broke off: {broken:?}"),
        }
    }

    /// The whole answer, or how much came of it.
    pub async fn try_send(self) -> Result<Answer, Broken> {
        self.open().await.rest().await
    }

    /// The answer's head.
    pub async fn open(self) -> Streaming {
        let what = format!("{} {}", self.request.method(), self.request.uri());
        let method = self.request.method().clone();
        let opened = timeout(PATIENCE, async {
            let socket = TcpStream::connect(self.address).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake::<_, Sending>(TokioIo::new(socket)).await.unwrap();
            let connection = tokio::spawn(async move {
                let _ = connection.await;
            });
            let response = sender.send_request(self.request).await.map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>((response, connection))
        });
        let opened = opened.await.unwrap_or_else(|_| panic!("{what}: no answer within {PATIENCE:?}"));
        let (response, connection) = opened.unwrap_or_else(|error| panic!("{what}: no answer: {error:?}"));
        let (head, body) = response.into_parts();
        Streaming { status: head.status, headers: head.headers, method, body, taken: BytesMut::new(), connection }
    }
}

/// A body whose pieces somebody feeds.
struct Pieces(tokio::sync::mpsc::Receiver<std::io::Result<Bytes>>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<std::io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

fn sending<B>(body: B) -> Sending
where
    B: http_body::Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
{
    UnsyncBoxBody::new(body.map_err(|never| match never {}))
}

impl Streaming {
    /// The next bytes; `None` at a clean end.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, String>> {
        loop {
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("the body goes on")?;
            match frame {
                Ok(frame) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => {
                        self.taken.extend_from_slice(&data);
                        return Some(Ok(data));
                    }
                    _ => {}
                },
                Err(error) => return Some(Err(format!("{error:?}"))),
            }
        }
    }

    /// Reads to the end and keeps nothing: how many bytes came, their digest, and whether the end was a clean one.
    pub async fn hashed(mut self) -> (u64, String, Result<(), String>) {
        let mut count = self.taken.len() as u64;
        let mut hasher = sha2::Sha256::new_with_prefix(std::mem::take(&mut self.taken));
        loop {
            let chunk = self.chunk().await;
            hasher.update(&self.taken);
            count += self.taken.len() as u64;
            self.taken.clear();
            let end = match chunk {
                Some(Ok(_)) => continue,
                Some(Err(error)) => Err(error),
                None => Ok(()),
            };
            return (count, format!("sha256:{}", super::hex(&hasher.finalize())), end);
        }
    }

    /// At least so many bytes, of a body that has them.
    pub async fn at_least(&mut self, count: usize) -> Bytes {
        let mut bytes = BytesMut::new();
        while bytes.len() < count {
            match self.chunk().await {
                Some(Ok(chunk)) => bytes.extend_from_slice(&chunk),
                other => panic!("{} of {count} bytes came, then {other:?}", bytes.len()),
            }
        }
        bytes.freeze()
    }

    /// The whole answer, what was read of it before included.
    pub async fn rest(mut self) -> Result<Answer, Broken> {
        let mut error = None;
        while let Some(chunk) = self.chunk().await {
            if let Err(problem) = chunk {
                error = Some(problem);
                break;
            }
        }
        let body = std::mem::take(&mut self.taken).freeze();
        let answer = Answer { status: self.status, headers: self.headers.clone(), body };
        if let Some(error) = error {
            return Err(Broken { answer, error });
        }
        answer.verify(&self.method);
        Ok(answer)
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Answer {
    /// The header's one value; the test fails if it has several lines.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.lines(name);
        assert!(lines.len() < 2, "{name} has {} lines", lines.len());
        lines.first().copied()
    }

    /// Every line of the header.
    pub fn lines(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// Status, OCI error code and message of an error that has the specification's form.
    pub fn error(&self) -> (u16, String, String) {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let body = self.json();
        let errors = body["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 1, "{body}");
        let text = |key: &str| errors[0][key].as_str().unwrap().to_owned();
        (self.status.as_u16(), text("code"), text("message"))
    }

    /// The word that `Cache-Status` says.
    pub fn cache_status(&self) -> &str {
        self.header("cache-status").expect("every answer says where it came from")
    }

    /// A complete body is what its headers say it is.
    fn verify(&self, method: &http::Method) {
        if method == http::Method::HEAD {
            assert!(self.body.is_empty(), "HEAD has a body");
            return;
        }
        if let Some(length) = self.header("content-length") {
            assert_eq!(length.parse::<usize>().unwrap(), self.body.len(), "Content-Length");
        }
        if self.status == StatusCode::OK
            && let Some(digest) = self.header("docker-content-digest")
        {
            let real = if digest.starts_with("sha512:") { sha512(&self.body) } else { sha256(&self.body) };
            assert_eq!(real, digest, "a complete answer does not match its digest");
        }
    }
}
