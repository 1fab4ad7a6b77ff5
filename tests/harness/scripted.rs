use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// An upstream that answers with the bytes that a test writes, for what no sound registry sends. A connection is kept after an answer
/// that does not say otherwise.
pub struct Scripted {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

impl Scripted {
    /// `answer` gets the request's first line (`GET /v2/… HTTP/1.1`) and gives status line, headers, blank line and body.
    pub async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start_with_heads(move |head| answer(head.lines().next().unwrap_or_default())).await
    }

    /// The same, for an answer that depends on the request's headers too: it gets the whole head.
    pub async fn start_with_heads(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, asked) = (Arc::new(answer), Arc::<Mutex<Vec<String>>>::default());
        let log = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                tokio::spawn(async move { converse(socket, &*answer, &log).await });
            }
        });
        Self { address, asked, task: task.abort_handle() }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The first lines of all requests.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(mut socket: TcpStream, answer: &(impl Fn(&str) -> Vec<u8> + ?Sized), log: &Mutex<Vec<String>>) {
    let mut bytes = Vec::new();
    loop {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            let mut more = [0; 4096];
            match socket.read(&mut more).await {
                Ok(read) if read > 0 => bytes.extend_from_slice(&more[..read]),
                _ => return,
            }
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end + 4]).into_owned();
        bytes.clear();
        log.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
        let written = answer(&head);
        if socket.write_all(&written).await.is_err() || ends(&written) {
            let _ = socket.shutdown().await;
            return;
        }
    }
}

/// Whether an answer says that its connection ends, or says nothing that a next one could follow.
fn ends(answer: &[u8]) -> bool {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").map(|end| &answer[..end]);
    let head = head.map(|head| String::from_utf8_lossy(head).to_ascii_lowercase());
    head.is_none_or(|head| head.contains("connection: close") || !head.contains("content-length:"))
}

/// An answer with these header lines, its length and its body.
pub fn answer(status: &str, lines: &[&str], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let lines: Vec<String> = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let head =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{}\r\n", body.len(), lines.concat());
    [head.as_bytes(), body].concat()
}
