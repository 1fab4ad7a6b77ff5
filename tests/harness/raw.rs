//! Bytes on a socket, for what no HTTP library would send or would hide.

use super::PATIENCE;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Connects and sends.
pub async fn send(address: SocketAddr, bytes: impl AsRef<[u8]>) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(bytes.as_ref()).await.unwrap();
    socket
}

/// Connects, sends, and reads until the other side closes; the test fails if that takes too long.
pub async fn talk(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut socket = send(address, bytes).await;
    read_all(&mut socket).await
}

/// Reads until the other side closes or resets.
pub async fn read_all(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset after an answer still leaves the answer.
    let _ = timeout(PATIENCE, socket.read_to_end(&mut bytes)).await.expect("the connection is closed");
    bytes
}

/// The heads of the answers in `bytes`: what stands before each blank line that follows a status line.
pub fn heads(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let starts: Vec<usize> = text.match_indices("HTTP/1.").map(|(at, _)| at).collect();
    starts.iter().map(|at| text[*at..].split("\r\n\r\n").next().unwrap_or_default().to_owned()).collect()
}
