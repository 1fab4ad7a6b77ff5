//! What a client gets that speaks plain HTTP where TLS is expected: an answer in its own language.

use crate::server::http::connection_io::LINGER;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For so many bytes the client is still listened to: closing at once would take the answer away from it.
const LINGER_BYTES: u64 = 1 << 20;

const BODY: &str = r#"{"errors":[{"code":"UNSUPPORTED","message":"this port of larder speaks TLS and the request came without: write https:// instead of http://, and leave out options such as --plain-http or --insecure"}]}"#;

/// Answers 400 in plain HTTP, and waits a moment for the client to read it.
pub(super) async fn refuse(mut stream: TcpStream) {
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        BODY.len()
    );
    let answered = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(BODY.as_bytes()).await?;
        stream.shutdown().await?;
        let (mut rest, mut nowhere) = (stream.take(LINGER_BYTES), tokio::io::sink());
        tokio::io::copy(&mut rest, &mut nowhere).await
    };
    // Whatever becomes of it, the connection ends here.
    let _ = timeout(LINGER, answered).await;
}
